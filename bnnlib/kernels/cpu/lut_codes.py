"""Codes of signs, for the look-up products of `lut_matmul`."""

import numpy as np
from numba import njit

from bnnlib.kernels.cpu.lut_tables import CODE_SCALE, SIGNS

FOUR_BITS = np.uint32(0x40201008)  # times four bytes 0 or 1: CODE_SCALE times their code, on top
LAST_CODE = np.uint8((len(SIGNS) - 1) * CODE_SCALE)
ROWS_PER_BLOCK = 64  # whose codes are made at a time; and so many groups of columns


@njit(nogil=True, cache=True)
def column_codes(weights, codes, first, last):
    """Write steps first .. last - 1 of codes (ceil(R / 4), N or wider): weights (R, N) float32.

    A code is the signs of four rows of one column, for a dense layer's forward product: the first
    of the four in the highest bit, times CODE_SCALE; rows outside count as -1.
    """
    rows, columns = weights.shape
    for g in range(first, last):
        step = codes[g]
        step[:] = 0
        for i in range(min(4, rows - 4 * g)):
            row = weights[4 * g + i]
            bit = np.uint8(8 * CODE_SCALE >> i)
            for n in range(columns):
                step[n] |= bit if row[n] >= 0 else np.uint8(0)


@njit(nogil=True, cache=True)
def row_codes(weights, codes, first, last):
    """Write columns ROWS_PER_BLOCK * first .. of codes (T * ceil(N / 4), R or wider).

    weights (T, R, N) float32. A code is the signs of four columns of one row, for the gradient of
    the input; all else is as in `column_codes`.
    """
    taps, rows, columns = weights.shape
    groups = (columns + 3) // 4
    bits = np.empty((ROWS_PER_BLOCK, 4 * ROWS_PER_BLOCK), np.uint8)
    words = bits.view(np.uint32)
    for low in range(first * ROWS_PER_BLOCK, min(last * ROWS_PER_BLOCK, rows), ROWS_PER_BLOCK):
        count = min(ROWS_PER_BLOCK, rows - low)
        for t in range(taps):
            for q in range(0, groups, ROWS_PER_BLOCK):
                bits[:] = 0
                for r in range(count):
                    signs = bits[r]
                    row = weights[t, low + r, 4 * q : 4 * (q + ROWS_PER_BLOCK)]
                    for n in range(len(row)):
                        signs[n] = row[n] >= 0
                for g in range(min(ROWS_PER_BLOCK, groups - q)):
                    step = codes[t * groups + q + g, low : low + count]
                    for r in range(count):
                        step[r] = words[r, g] * FOUR_BITS >> np.uint32(24)


@njit(nogil=True, cache=True)
def sign_codes(images, side, codes, first, last):
    """Write rows first .. last - 1 of codes (groups, T, C or more) from signs (B, H, W, C) int8.

    A group is four pixels beside each other; T = side * side taps, side 1 or 3, above left first.
    Pixels outside the image count as -1. Signs are only added: vectors don't shift bytes.
    """
    _, height, width, channels = images.shape
    outside = np.full(channels, np.int8(-1))
    in_row = (width + 3) // 4
    reach = side // 2
    for g in range(first, last):
        row = g // in_row
        left = g % in_row * 4
        for t in range(side * side):
            y = row % height + t // side - reach
            x = left + t % side - reach
            made = codes[g, t]
            inside = 0 <= y < height
            line = images[row // height, y if inside else 0]
            a = line[x] if inside and 0 <= x < width else outside
            b = line[x + 1] if inside and x + 1 < width else outside
            c = line[x + 2] if inside and x + 2 < width else outside
            d = line[x + 3] if inside and x + 3 < width else outside
            for i in range(channels):
                two = np.int8(a[i] + a[i] + b[i])
                three = np.int8(two + two + c[i])
                twice = np.uint8(three + three + d[i] + 15)  # the code: 0, 2, ..., 30
                made[i] = twice * np.uint8(CODE_SCALE // 2) & LAST_CODE  # whatever bytes they are
            made[channels:] = 0
