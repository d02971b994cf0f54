"""How numbers are laid out for the look-up products of `lookup`: planes, and codes of signs."""

import numpy as np
from numba import njit

LINES = 16  # channels copied at a time: a cache line of float32, and as many planes to follow


@njit(nogil=True, cache=True)
def step_of(group, tap, block, groups, taps):
    """The place of a group and a tap in the order in which `lookup.shifted` takes its steps."""
    begin = group // block * block
    return begin * taps + tap * min(block, groups - begin) + group - begin


@njit(nogil=True, cache=True)
def column_codes(weights, codes, first, last):
    """Steps first .. last - 1 of codes (ceil(R / 4), N or wider), from weights (R, N) float32.

    A code is the signs of four rows of one column, for a dense layer's forward product: uint8, the
    first of the four in the highest bit; what lies outside counts as -1.
    """
    rows, columns = weights.shape
    for g in range(first, last):
        to = codes[g]
        to[:] = 0
        for i in range(min(4, rows - 4 * g)):
            row, bit = weights[4 * g + i], np.uint8(8 >> i)
            for n in range(columns):
                to[n] |= bit if row[n] >= 0 else np.uint8(0)


@njit(nogil=True, cache=True)
def row_codes(weights, codes, block, first, last):
    """Rows first .. last - 1 of codes (R or more, T * ceil(N / 4)), from weights (T, R, N) float32.

    A code is the signs of four columns of one row, for the gradient of the input; the order of
    steps is that of `lookup.shifted` with `block` groups at a time.
    """
    taps, _, columns = weights.shape
    groups = (columns + 3) // 4
    bits = np.zeros(groups * 4, np.uint8)
    for r in range(first, last):
        for t in range(taps):
            for n in range(columns):
                bits[n] = weights[t, r, n] >= 0
            for q in range(0, groups, block):
                count = min(block, groups - q)
                s = step_of(q, t, block, groups, taps)
                out, of = codes[r, s : s + count], bits[4 * q :]
                for j in range(count):
                    n = 4 * j
                    out[j] = of[n] << 3 | of[n + 1] << 2 | of[n + 2] << 1 | of[n + 3]


@njit(nogil=True, cache=True)
def image_planes(images, planes, start, first, last):
    """Images first .. last - 1 of (B, H, W, C) -> planes (C or more, .), any two number types.

    Pixel (y, x) of image b goes to start + (b * (H + 1) + y) * (W + 1) + x; zeros fill the rest.
    A few planes are written at a time: so many lines of memory are followed at once.
    """
    _, height, width, channels = images.shape
    row = width + 1
    for b in range(first, last):
        for low in range(0, channels, LINES):
            high = min(low + LINES, channels)
            for y in range(height):
                p = start + (b * (height + 1) + y) * row
                for c in range(low, high):
                    source, target = images[b, y, :, c], planes[c, p : p + row]
                    for x in range(width):
                        target[x] = source[x]
                    target[width] = 0
            p = start + (b * (height + 1) + height) * row
            for c in range(low, high):
                planes[c, p : p + row] = 0


@njit(nogil=True, cache=True)
def plane_images(planes, images, first, last):
    """Planes (C or more, .) -> images first .. last - 1 of (B, H, W, C): undoes `image_planes`."""
    _, height, width, channels = images.shape
    for b in range(first, last):
        for low in range(0, channels, LINES):
            high = min(low + LINES, channels)
            for y in range(height):
                p = (b * (height + 1) + y) * (width + 1)
                for c in range(low, high):
                    source, target = planes[c, p : p + width], images[b, y, :, c]
                    for x in range(width):
                        target[x] = source[x]


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
def plane_rows(planes, rows, first, last):
    """Planes (C or more, B or more) -> channels LINES * first .. of (B, C): undoes `row_planes`."""
    batch, channels = rows.shape
    for low in range(first * LINES, min(last * LINES, channels), LINES):
        high = min(low + LINES, channels)
        for b in range(batch):
            for c in range(low, high):
                rows[b, c] = planes[c, b]


@njit(nogil=True, cache=True)
def sign_codes(bits, codes, first, last):
    """Rows first .. last - 1 of codes (P, C): bits (P + 3, C) of a row and the next three."""
    for p in range(first, last):
        a, b, c, d, to = bits[p], bits[p + 1], bits[p + 2], bits[p + 3], codes[p]
        for i in range(len(to)):
            to[i] = a[i] << 3 | b[i] << 2 | c[i] << 1 | d[i]
