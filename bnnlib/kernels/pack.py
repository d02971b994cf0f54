"""How numbers are laid out for the look-up products of `lookup`: planes, and codes of signs."""

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def step_of(group, tap, block, groups, taps):
    """The place of a group and a tap in the order in which `lookup.shifted` takes its steps."""
    begin = group // block * block
    return begin * taps + tap * min(block, groups - begin) + group - begin


@njit(nogil=True, cache=True)
def weight_codes(weights, forward, block, backward, back_block, first, last):
    """Codes of rows 4 * first .. 4 * last - 1 of weights (T, R, N) float32, by their signs.

    forward (T * ceil(R / 4), N or wider): four rows of one column, for outputs n. backward
    (R or more, T * ceil(N / 4)): four columns of one row, for outputs r. Both uint8, the first of
    the four in the highest bit; what lies outside counts as -1.
    """
    taps, rows, columns = weights.shape
    groups, back_groups = (rows + 3) // 4, (columns + 3) // 4
    bits = np.zeros((4, back_groups * 4), np.uint8)
    for g in range(first, last):
        for t in range(taps):
            for i in range(4):
                if 4 * g + i < rows:
                    for n in range(columns):
                        bits[i, n] = weights[t, 4 * g + i, n] >= 0
                else:
                    bits[i] = 0
            to = forward[step_of(g, t, block, groups, taps)]
            for n in range(columns):
                to[n] = bits[0, n] << 3 | bits[1, n] << 2 | bits[2, n] << 1 | bits[3, n]
            for i in range(min(4, rows - 4 * g)):
                for q in range(0, back_groups, back_block):
                    count = min(back_block, back_groups - q)
                    s = step_of(q, t, back_block, back_groups, taps)
                    out, of = backward[4 * g + i, s : s + count], bits[i, 4 * q :]
                    for j in range(count):
                        n = 4 * j
                        out[j] = of[n] << 3 | of[n + 1] << 2 | of[n + 2] << 1 | of[n + 3]


@njit(nogil=True, cache=True)
def image_planes(images, planes, start, first, last):
    """Images first .. last - 1 of (B, H, W, C) -> planes (C or more, .), any two number types.

    Pixel (y, x) of image b goes to start + (b * (H + 1) + y) * (W + 1) + x; zeros fill the rest.
    """
    _, height, width, channels = images.shape
    row = width + 1
    for b in range(first, last):
        begin = start + b * (height + 1) * row
        for y in range(height):
            source, p = images[b, y], begin + y * row
            for c in range(channels):
                target = planes[c, p : p + row]
                for x in range(width):
                    target[x] = source[x, c]
                target[width] = 0
        for c in range(channels):
            planes[c, begin + height * row : begin + (height + 1) * row] = 0


@njit(nogil=True, cache=True)
def plane_images(planes, images, first, last):
    """Planes (C or more, .) -> images first .. last - 1 of (B, H, W, C): undoes `image_planes`."""
    _, height, width, channels = images.shape
    row = width + 1
    for b in range(first, last):
        for y in range(height):
            target, p = images[b, y], (b * (height + 1) + y) * row
            for c in range(channels):
                source = planes[c, p : p + width]
                for x in range(width):
                    target[x, c] = source[x]


@njit(nogil=True, cache=True)
def sign_codes(bits, codes, first, last):
    """Rows first .. last - 1 of codes (P, C): bits (P + 3, C) of a row and the next three."""
    for p in range(first, last):
        a, b, c, d, to = bits[p], bits[p + 1], bits[p + 2], bits[p + 3], codes[p]
        for i in range(len(to)):
            to[i] = a[i] << 3 | b[i] << 2 | c[i] << 1 | d[i]
