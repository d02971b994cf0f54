"""Binarization, its gradient and updates in one pass over memory, where torch makes several.

Flat float32 arrays; every kernel does elements first .. last - 1, in the order of operations of its
torch counterpart in `bnnlib.binarize` and `bnnlib.rules`. Loops count from 0 over slices: LLVM does
not vectorize an index that Numba can't prove not to be negative.
"""

import numpy as np
from numba import njit

from bnnlib.kernels.cpu.arithmetic import fma, nearest_power

SQRT2_CARRY = np.int32(0x4AFB0C)  # 2^24 - the 24-bit mantissa of sqrt(2), rounded up: see `ap2`
EXPONENT = np.int32(-1 << 23)
ELEMENTS_PER_CHUNK = 1024
SMALLEST = np.float32(2**-126)  # that is normal


@njit(nogil=True, cache=True)
def sign(x, out, first, last):
    """Write +1 where x >= 0, -1 where x < 0, and a NaN as it is."""
    x = x[first:last]
    out = out[first:last]
    for i in range(len(x)):
        signed = np.float32(1) if x[i] >= 0 else np.float32(-1)
        out[i] = signed if x[i] == x[i] else x[i]


@njit(nogil=True, cache=True)
def passes(x, out, first, last):
    """Write whether |x| <= 1, as bytes."""
    x = x[first:last]
    out = out[first:last]
    for i in range(len(x)):
        out[i] = abs(x[i]) <= 1


@njit(nogil=True, cache=True)
def cancel(grad, passes, out, first, last):
    """Write grad where `passes` is 1, else 0."""
    grad = grad[first:last]
    passes = passes[first:last]
    out = out[first:last]
    for i in range(len(grad)):
        out[i] = grad[i] if passes[i] else 0


@njit(nogil=True, cache=True, error_model="numpy")
def adam(value, grad, m, v, step, beta2, weight1, weight2, eps, bound, first, last):
    """Do `rules.adam_update`, then clip to [-bound, bound]; weights are 1 - beta."""
    value = value[first:last]
    grad = grad[first:last]
    m = m[first:last]
    v = v[first:last]
    for i in range(len(value)):
        g = grad[i]
        m[i] += weight1 * (g - m[i])
        v[i] = beta2 * v[i] + weight2 * g * g
        moved = value[i] - step * (m[i] / (np.sqrt(v[i]) + eps))
        moved = bound if moved > bound else moved
        value[i] = -bound if moved < -bound else moved


@njit(nogil=True, cache=True, error_model="numpy")
def adamax_coded(value, grad, m, v, v_bits, step, beta2, weight1, eps, bound, first, last):
    """Do `rules.adamax_coded_update`, then clip; v_bits is v seen as int32."""
    # One pass over memory, and three over a piece in the cache
    for start in range(first, last, ELEMENTS_PER_CHUNK):
        piece = slice(start, min(start + ELEMENTS_PER_CHUNK, last))
        x = value[piece]
        g = grad[piece]
        first_moment = m[piece]
        second_moment = v[piece]
        bits = v_bits[piece]
        for i in range(len(x)):
            size = abs(g[i])
            decayed = beta2 * second_moment[i]
            second_moment[i] = size if size > decayed else decayed
        for i in range(len(x)):
            bits[i] = (bits[i] + SQRT2_CARRY) & EXPONENT
        for i in range(len(x)):
            first_moment[i] += weight1 * (g[i] - first_moment[i])
            second_moment[i] += eps
            moved = x[i] - step * (first_moment[i] / second_moment[i])
            moved = bound if moved > bound else moved
            x[i] = -bound if moved < -bound else moved


@njit(nogil=True)
def larger(a, b):
    """The larger of two, or NaN if one of them is: torch.maximum."""
    return a if (a > b) | (a != a) else b


@njit(nogil=True)
def clipped(x, bound):
    """x in [-bound, bound]; NaN stays."""
    x = bound if x > bound else x
    return -bound if x < -bound else x


@njit(nogil=True, cache=True, error_model="numpy")
def adamax_printed(value, grad, m, v, step, beta2, weight1, bound, first, last):
    """Do `rules.adamax_printed_update`, then clip; equal to torch's passes bit by bit."""
    value = value[first:last]
    grad = grad[first:last]
    m = m[first:last]
    v = v[first:last]
    for i in range(len(value)):
        moment = fma(weight1, grad[i] - m[i], m[i])
        spread = larger(beta2 * v[i], abs(grad[i]))
        inverse = np.float32(0) if spread < SMALLEST else nearest_power(np.float32(1) / spread)
        m[i] = moment
        v[i] = spread
        value[i] = clipped(fma(-step * moment, inverse, value[i]), bound)


@njit(nogil=True, cache=True, error_model="numpy")
def adamax_decaying(value, grad, m, v, step, beta2, weight1, eps, bound, first, last):
    """Do `rules.adamax_decaying_update`, then clip; equal to torch's passes bit by bit."""
    value = value[first:last]
    grad = grad[first:last]
    m = m[first:last]
    v = v[first:last]
    for i in range(len(value)):
        moment = fma(weight1, grad[i] - m[i], m[i])
        spread = larger(beta2 * v[i], abs(grad[i]))
        m[i] = moment
        v[i] = spread
        moved = value[i] + -step * moment / (nearest_power(spread) + eps)
        value[i] = clipped(moved, bound)
