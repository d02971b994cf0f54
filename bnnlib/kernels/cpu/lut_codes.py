"""Codes of signs, for the look-up products of `lookup`."""

import numpy as np
from numba import njit

from bnnlib.kernels.cpu.lut_matmul import SCALE, SIGNS

FOUR_BITS = np.uint32(0x40201008)  # times four bytes 0 or 1: SCALE times their code, on top
LAST_CODE = np.uint8((len(SIGNS) - 1) * SCALE)
BLOCK = 64  # rows, and groups of columns, whose codes are made at a time


@njit(nogil=True, cache=True)
def column_codes(weights, codes, first, last):
    """Steps first .. last - 1 of codes (ceil(R / 4), N or wider), from weights (R, N) float32.

    A code is the signs of four rows of one column, for a dense layer's forward product: the first
    of the four in the highest bit, times SCALE; what lies outside counts as -1.
    """
    rows, columns = weights.shape
    for g in range(first, last):
        to = codes[g]
        to[:] = 0
        for i in range(min(4, rows - 4 * g)):
            row, bit = weights[4 * g + i], np.uint8(8 * SCALE >> i)
            for n in range(columns):
                to[n] |= bit if row[n] >= 0 else np.uint8(0)


@njit(nogil=True, cache=True)
def row_codes(weights, codes, first, last):
    """Columns BLOCK * first .. of codes (T * ceil(N / 4), R or wider), from weights (T, R, N).

    A code is the signs of four columns of one row, for the gradient of the input; all as above.
    """
    taps, rows, columns = weights.shape
    groups = (columns + 3) // 4
    bits = np.empty((BLOCK, 4 * BLOCK), np.uint8)
    words = bits.view(np.uint32)
    for low in range(first * BLOCK, min(last * BLOCK, rows), BLOCK):
        count = min(BLOCK, rows - low)
        for t in range(taps):
            for q in range(0, groups, BLOCK):
                bits[:] = 0
                for r in range(count):
                    to, row = bits[r], weights[t, low + r, 4 * q : 4 * (q + BLOCK)]
                    for n in range(len(row)):
                        to[n] = row[n] >= 0
                for g in range(min(BLOCK, groups - q)):
                    to = codes[t * groups + q + g, low : low + count]
                    for r in range(count):
                        to[r] = words[r, g] * FOUR_BITS >> np.uint32(24)


@njit(nogil=True, cache=True)
def sign_codes(images, side, codes, first, last):
    """Rows first .. last - 1 of codes (groups, T, C or more), from signs (B, H, W, C) int8.

    A group is four pixels beside each other; T = side * side taps, side 1 or 3, above left first.
    What lies outside the image counts as -1. Signs are only added: vectors don't shift bytes.
    """
    _, height, width, channels = images.shape
    outside, in_row, reach = np.full(channels, np.int8(-1)), (width + 3) // 4, side // 2
    for g in range(first, last):
        row, left = g // in_row, g % in_row * 4
        for t in range(side * side):
            y, x, to = row % height + t // side - reach, left + t % side - reach, codes[g, t]
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
                to[i] = twice * np.uint8(SCALE // 2) & LAST_CODE  # other bytes, too, stay inside
            to[channels:] = 0
