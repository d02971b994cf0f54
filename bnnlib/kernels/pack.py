"""How numbers are laid out for the look-up products of `lookup`: planes, and codes of signs."""

import numpy as np
from numba import njit

from bnnlib.kernels.lookup import SCALE

FOUR_BITS = np.uint32(0x40201008)  # times four bytes 0 or 1: SCALE times their code, on top
BLOCK = 64  # rows, and groups of columns, whose codes are made at a time
LINES = 16  # channels copied at a time: a cache line of float32, and as many planes to follow


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
def image_planes(images, planes, first, last):
    """Images first .. last - 1 of (B, H, W, C) -> planes (B (H + 1) + 1, C or more, W + 2 or more).

    Row y of image b goes to b (H + 1) + y + 1, one place to the right; zeros fill the rest. A few
    channels are written at a time: so many lines of memory are followed at once.
    """
    _, height, width, channels = images.shape
    for b in range(first, last):
        if b == 0:
            planes[0] = 0
        for y in range(height):
            image, plane = images[b, y], planes[b * (height + 1) + y + 1]
            plane[:, 0] = plane[:, width + 1 :] = plane[channels:] = 0
            for low in range(0, channels, LINES):
                for c in range(low, min(low + LINES, channels)):
                    source, target = image[:, c], plane[c, 1 : width + 1]
                    for x in range(width):
                        target[x] = source[x]
        planes[(b + 1) * (height + 1)] = 0


@njit(nogil=True, cache=True)
def row_planes(rows, planes, first, last):
    """Channels LINES * first .. of (B, C) -> planes (C or more, B or more); zeros fill the rest."""
    batch, channels = rows.shape
    for low in range(first * LINES, min(last * LINES, channels), LINES):
        high = min(low + LINES, channels)
        for b in range(batch):
            for c in range(low, high):
                planes[c, b] = rows[b, c]
        planes[low:high, batch:] = 0


@njit(nogil=True, cache=True)
def sign_codes(bits, shifts, starts, codes, first, last):
    """Rows first .. last - 1 of codes (groups, T, C), from bits (positions, C).

    Group g at tap t is the four positions from starts[g] + shifts[t] on.
    """
    for g in range(first, last):
        for t in range(len(shifts)):
            p, to = starts[g] + shifts[t], codes[g, t]
            a, b, c, d = bits[p], bits[p + 1], bits[p + 2], bits[p + 3]
            for i in range(len(to)):
                to[i] = (a[i] << 3 | b[i] << 2 | c[i] << 1 | d[i]) * SCALE
