"""2x2 max pooling and its gradient, in one pass each, for images whose channels come last.

Images (B H, W, C) float32: rows of all images, one after another. Kernels do rows first .. last - 1
of the smaller ones; places (like the smaller, uint8) say which of four pixels was the largest:
2 row + column.
"""

import numpy as np
from numba import njit


@njit(nogil=True)
def beats(later, earlier):
    """Whether it is larger, or no number: so torch passes on what is no number."""
    return (later > earlier) | (later != later)


@njit(nogil=True, cache=True)
def maxima(images, out, places, first, last):
    """The largest of each four, and which it is: the first of equals."""
    for r in range(first, last):
        upper, lower = images[2 * r], images[2 * r + 1]
        for x in range(out.shape[1]):
            a, b, c, d = upper[2 * x], upper[2 * x + 1], lower[2 * x], lower[2 * x + 1]
            to, place = out[r, x], places[r, x]
            for i in range(len(to)):
                in_upper, in_lower = beats(b[i], a[i]), beats(d[i], c[i])
                above, below = b[i] if in_upper else a[i], d[i] if in_lower else c[i]
                is_lower = beats(below, above)
                to[i] = below if is_lower else above
                place[i] = 2 + in_lower if is_lower else in_upper


@njit(nogil=True, cache=True)
def spread(grads, places, out, first, last):
    """Each gradient of grads, as the smaller, to where its maximum was in out; 0 elsewhere."""
    for r in range(first, last):
        for x in range(grads.shape[1]):
            grad, place = grads[r, x], places[r, x]
            for p in range(4):
                to = out[2 * r + p // 2, 2 * x + p % 2]
                for i in range(len(to)):
                    to[i] = grad[i] if place[i] == p else np.float32(0)
