"""The passes of shift-based batch normalization over memory that stand between its sums.

Arrays (rows, C) float32, a row for each position of each image; what is told per channel is (C,).
Kernels do rows first .. last - 1, in the order of operations of `bnnlib.shift_norm`'s torch.
"""

from numba import njit

from bnnlib.kernels.cpu.arithmetic import fma, nearest_power


@njit(nogil=True, cache=True)
def spread(x, mean, out, first, last):
    """AP2(x - mean) (x - mean)."""
    for r in range(first, last):
        own, to = x[r], out[r]
        for c in range(len(own)):
            centred = own[c] - mean[c]
            to[c] = nearest_power(centred) * centred


@njit(nogil=True, cache=True)
def affine(x, mean, factor, shift, out, first, last):
    """(x - mean) factor + shift."""
    for r in range(first, last):
        own, to = x[r], out[r]
        for c in range(len(own)):
            to[c] = (own[c] - mean[c]) * factor[c] + shift[c]


@njit(nogil=True, cache=True)
def along(x, grad, mean, out, first, last):
    """grad AP2(x - mean)."""
    for r in range(first, last):
        own, given, to = x[r], grad[r], out[r]
        for c in range(len(own)):
            to[c] = given[c] * nearest_power(own[c] - mean[c])


@njit(nogil=True, cache=True)
def gradient(x, grad, mean, slope, factor, shift, out, first, last):
    """AP2(x - mean) slope + grad factor - shift."""
    for r in range(first, last):
        own, given, to = x[r], grad[r], out[r]
        for c in range(len(own)):
            rounded = nearest_power(own[c] - mean[c])
            to[c] = fma(given[c], factor[c], rounded * slope[c]) - shift[c]
