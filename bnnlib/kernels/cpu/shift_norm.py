"""The passes of shift-based batch normalization over memory that stand between its sums.

Arrays (rows, C) float32, a row for each position of each image; values per channel are (C,).
Kernels do rows first .. last - 1, in the order of operations of `bnnlib.shift_norm`'s torch.
"""

from numba import njit

from bnnlib.kernels.cpu.arithmetic import fma, nearest_power


@njit(nogil=True, cache=True)
def spread(x, mean, out, first, last):
    """Write AP2(x - mean) (x - mean)."""
    for r in range(first, last):
        row = x[r]
        target = out[r]
        for c in range(len(row)):
            centred = row[c] - mean[c]
            target[c] = nearest_power(centred) * centred


@njit(nogil=True, cache=True)
def affine(x, mean, factor, shift, out, first, last):
    """Write (x - mean) factor + shift."""
    for r in range(first, last):
        row = x[r]
        target = out[r]
        for c in range(len(row)):
            target[c] = (row[c] - mean[c]) * factor[c] + shift[c]


@njit(nogil=True, cache=True)
def along(x, grad, mean, out, first, last):
    """Write grad AP2(x - mean)."""
    for r in range(first, last):
        row = x[r]
        given = grad[r]
        target = out[r]
        for c in range(len(row)):
            target[c] = given[c] * nearest_power(row[c] - mean[c])


@njit(nogil=True, cache=True)
def gradient(x, grad, mean, slope, factor, shift, out, first, last):
    """Write AP2(x - mean) slope + grad factor - shift."""
    for r in range(first, last):
        row = x[r]
        given = grad[r]
        target = out[r]
        for c in range(len(row)):
            rounded = nearest_power(row[c] - mean[c])
            target[c] = fma(given[c], factor[c], rounded * slope[c]) - shift[c]
