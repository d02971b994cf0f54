"""What torch does in several passes over memory, in one: binarization, its gradient, updates.

Flat float32 arrays; every kernel does elements first .. last - 1, in the order of operations of its
torch counterpart in `bnnlib.binarize` and `bnnlib.rules`. Loops count from 0 over slices: LLVM does
not vectorize an index that Numba can't prove not to be negative.
"""

import numpy as np
from numba import njit

from bnnlib.kernels.cpu.arithmetic import fma, nearest_power

SQRT2_CARRY = np.int32(0x4AFB0C)  # 2^24 - the 24-bit mantissa of sqrt(2), rounded up: see `ap2`
EXPONENT = np.int32(-1 << 23)
CHUNK = 1024
SMALLEST = np.float32(2**-126)  # that is normal


@njit(nogil=True, cache=True)
def sign(x, out, first, last):
    """+1 where x >= 0, -1 where x < 0, and a NaN as it is."""
    x, out = x[first:last], out[first:last]
    for i in range(len(x)):
        signed = np.float32(1) if x[i] >= 0 else np.float32(-1)
        out[i] = signed if x[i] == x[i] else x[i]


@njit(nogil=True, cache=True)
def passes(x, out, first, last):
    """Whether |x| <= 1; out is bytes."""
    x, out = x[first:last], out[first:last]
    for i in range(len(x)):
        out[i] = abs(x[i]) <= 1


@njit(nogil=True, cache=True)
def cancel(grad, passes, out, first, last):
    """grad where `passes` is 1, else 0."""
    grad, passes, out = grad[first:last], passes[first:last], out[first:last]
    for i in range(len(grad)):
        out[i] = grad[i] if passes[i] else 0


@njit(nogil=True, cache=True, error_model="numpy")
def adam(value, grad, m, v, step, beta2, weight1, weight2, eps, bound, first, last):
    """`rules.adam_update`, then clipped to [-bound, bound]; weights are 1 - beta."""
    value, grad, m, v = value[first:last], grad[first:last], m[first:last], v[first:last]
    for i in range(len(value)):
        g = grad[i]
        m[i] += weight1 * (g - m[i])
        v[i] = beta2 * v[i] + weight2 * g * g
        moved = value[i] - step * (m[i] / (np.sqrt(v[i]) + eps))
        moved = bound if moved > bound else moved
        value[i] = -bound if moved < -bound else moved


@njit(nogil=True, cache=True, error_model="numpy")
def adamax_coded(value, grad, m, v, v_bits, step, beta2, weight1, eps, bound, first, last):
    """`rules.adamax_coded_update`, then clipped; v_bits is v seen as int32."""
    for start in range(first, last, CHUNK):  # one pass over memory, three over a cached piece
        piece = slice(start, min(start + CHUNK, last))
        x, g, first_moment = value[piece], grad[piece], m[piece]
        second_moment, bits = v[piece], v_bits[piece]
        for i in range(len(x)):
            size, decayed = abs(g[i]), beta2 * second_moment[i]
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
    """`rules.adamax_printed_update`, then clipped; equal to torch's passes bit by bit."""
    value, grad, m, v = value[first:last], grad[first:last], m[first:last], v[first:last]
    for i in range(len(value)):
        moment = fma(weight1, grad[i] - m[i], m[i])
        spread = larger(beta2 * v[i], abs(grad[i]))
        inverse = np.float32(0) if spread < SMALLEST else nearest_power(np.float32(1) / spread)
        m[i], v[i] = moment, spread
        value[i] = clipped(fma(-step * moment, inverse, value[i]), bound)


@njit(nogil=True, cache=True, error_model="numpy")
def adamax_decaying(value, grad, m, v, step, beta2, weight1, eps, bound, first, last):
    """`rules.adamax_decaying_update`, then clipped; equal to torch's passes bit by bit."""
    value, grad, m, v = value[first:last], grad[first:last], m[first:last], v[first:last]
    for i in range(len(value)):
        moment = fma(weight1, grad[i] - m[i], m[i])
        spread = larger(beta2 * v[i], abs(grad[i]))
        m[i], v[i] = moment, spread
        moved = value[i] + -step * moment / (nearest_power(spread) + eps)
        value[i] = clipped(moved, bound)
