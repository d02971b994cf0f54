"""2x2 max pooling and its gradient, in one pass each, for images whose channels come last.

Images (B H, W, C) float32: rows of all images, one after another. Kernels do rows first .. last - 1
of the smaller ones; places (like the smaller, uint8) say which of four pixels was the largest:
2 row + column.
"""

import numpy as np
from numba import njit


@njit(nogil=True)
def beats(later, earlier):
    """Whether `later` replaces `earlier`: larger, or NaN, which torch propagates too."""
    return (later > earlier) | (later != later)


@njit(nogil=True, cache=True)
def maxima(images, out, places, first, last):
    """Write the largest of each four, and which it is: the first of equals."""
    for r in range(first, last):
        upper = images[2 * r]
        lower = images[2 * r + 1]
        for x in range(out.shape[1]):
            a = upper[2 * x]
            b = upper[2 * x + 1]
            c = lower[2 * x]
            d = lower[2 * x + 1]
            target = out[r, x]
            place = places[r, x]
            for i in range(len(target)):
                in_upper = beats(b[i], a[i])
                in_lower = beats(d[i], c[i])
                above = b[i] if in_upper else a[i]
                below = d[i] if in_lower else c[i]
                is_lower = beats(below, above)
                target[i] = below if is_lower else above
                place[i] = 2 + in_lower if is_lower else in_upper


@njit(nogil=True, cache=True)
def spread(grads, places, out, first, last):
    """Write the gradients of the smaller images to where their maxima were in out; 0 elsewhere."""
    for r in range(first, last):
        for x in range(grads.shape[1]):
            grad = grads[r, x]
            place = places[r, x]
            for p in range(4):
                target = out[2 * r + p // 2, 2 * x + p % 2]
                for i in range(len(target)):
                    target[i] = grad[i] if place[i] == p else np.float32(0)
