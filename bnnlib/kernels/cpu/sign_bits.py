"""Signs and bit planes packed into words on the CPU, 64 numbers at a time. Numba, LLVM vectors."""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

_BYTE = ir.IntType(8)
_INT = ir.IntType(32)
_LONG = ir.IntType(64)
COLUMNS_PER_BLOCK = 1024  # columns at a time, whole parts: their words stay in a first-level cache


def _numbers(b: ir.IRBuilder, address, element: ir.Type, align: int):
    """64 numbers at an address."""
    vector = ir.VectorType(element, 64)
    return b.load(b.inttoptr(address, vector.as_pointer()), align=align)


def _word(b: ir.IRBuilder, bits):
    return b.bitcast(bits, _LONG)


def _splat(b: ir.IRBuilder, value, vector: ir.VectorType):
    places = ir.VectorType(_INT, vector.count)
    one = b.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(_INT, 0))
    return b.shuffle_vector(one, one, ir.Constant(places, [0] * vector.count))


def _all(value, vector: ir.VectorType) -> ir.Constant:
    return ir.Constant(vector, [value] * vector.count)


@intrinsic
def sign_word(typing, like, address):
    """The word of [number >= 0] for the 64 numbers at an address, of the dtype of `like`.

    int16 stands for the bits of a float16 or bfloat16, which agree in this: -0.0 is not below 0.
    """
    kind = like.dtype

    def emit(context, b, signature, arguments):
        numbers = _numbers(b, arguments[1], context.get_value_type(kind), kind.bitwidth // 8)
        compare = b.fcmp_ordered if isinstance(kind, types.Float) else b.icmp_signed
        bits = compare(">=", numbers, _all(0, numbers.type))
        if kind == types.int16:
            bits = b.or_(bits, b.icmp_signed("==", numbers, _all(-(2**15), numbers.type)))
        return _word(b, bits)

    return types.int64(like, types.intp), emit


@intrinsic
def nan_word(typing, like, address, largest):
    """The word of [number is a NaN]; largest: infinity's bits, where int16 stands for a half."""
    kind = like.dtype

    def emit(context, b, signature, arguments):
        numbers = _numbers(b, arguments[1], context.get_value_type(kind), kind.bitwidth // 8)
        if isinstance(kind, types.Float):
            return _word(b, b.fcmp_unordered("uno", numbers, numbers))
        if kind != types.int16:
            return ir.Constant(_LONG, 0)
        size = b.and_(numbers, _all(2**15 - 1, numbers.type))
        return _word(b, b.icmp_signed(">", size, _splat(b, arguments[2], numbers.type)))

    return types.int64(like, types.intp, types.int16), emit


@intrinsic
def plane_word(typing, address, plane):
    """The word of bit `plane` of the 64 bytes at an address."""

    def emit(context, b, signature, arguments):
        numbers = _numbers(b, arguments[0], _BYTE, 1)
        mask = b.shl(ir.Constant(_BYTE, 1), b.trunc(arguments[1], _BYTE))
        chosen = b.and_(numbers, _splat(b, mask, numbers.type))
        return _word(b, b.icmp_unsigned("!=", chosen, _all(0, numbers.type)))

    return types.int64(types.intp, types.intp), emit


@njit(nogil=True, cache=True)
def signs(x, largest, words, first, last):
    """Write rows first .. last - 1 of words (R, ceil(K / 64)) int64: the signs of x (R, K).

    largest: see `nan_word`. Returns whether there is a NaN among them.
    """
    whole = x.shape[1] // 64
    found = 0
    rest = np.empty(64, x.dtype)
    rest[:] = -1 if largest == 0 else -32767  # as the bits of a half, the negative next to 0
    for r in range(first, last):
        at = x.ctypes.data + r * x.strides[0]
        for i in range(whole):
            words[r, i] = sign_word(x, at)
            found |= nan_word(x, at, largest)
            at += 64 * x.itemsize
        if whole < words.shape[1]:
            rest[: x.shape[1] - 64 * whole] = x[r, 64 * whole :]
            words[r, whole] = sign_word(x, rest.ctypes.data)
            found |= nan_word(x, rest.ctypes.data, largest)
    return found != 0


@njit(nogil=True, cache=True)
def planes(x, words, first, last):
    """Write rows first .. last - 1 of words (R, 8, ceil(K / 64)) int64: bit planes of x (R, K)."""
    whole = x.shape[1] // 64
    rest = np.zeros(64, np.uint8)
    for r in range(first, last):
        for i in range(words.shape[2]):
            at = x.ctypes.data + r * x.strides[0] + 64 * i
            if i == whole:
                rest[: x.shape[1] - 64 * whole] = x[r, 64 * whole :]
                at = rest.ctypes.data
            for plane in range(8):
                words[r, plane, i] = plane_word(at, plane)


@njit(nogil=True, cache=True)
def half_byte_tiles(weights, tiles, first, last):
    """Write tiles first .. last - 1 of the signs of weights (K, N): (tiles, steps, columns) uint8.

    Step s holds rows 4 s to 4 s + 3, the first in the lowest bit; outside, bits are 0. Returns
    whether there is a NaN among the weights.
    """
    width = tiles.shape[2]
    found = np.uint8(0)
    for t in range(first, last):
        low = t * width
        high = min((t + 1) * width, weights.shape[1])
        for s in range(tiles.shape[1]):
            made = tiles[t, s]
            made[:] = 0
            for i in range(min(4, weights.shape[0] - 4 * s)):
                row = weights[4 * s + i, low:high]
                bit = np.uint8(1 << i)
                for n in range(high - low):
                    made[n] |= bit if row[n] >= 0 else np.uint8(0)
                    found |= np.uint8(row[n] != row[n])
    return found != 0


@njit(nogil=True, cache=True)
def signs_of_rows(weights, first, low, words):
    """Write the signs of up to 64 rows of weights (K, N), from row `first`, into words (C,) int64.

    Row first + i is bit i, column low + n is word n; outside, bits are 0. Returns whether there is
    a NaN. Four rows at a time save reading words anew, and one comparison finds the NaNs of two.
    """
    high = min(low + len(words), weights.shape[1])
    found = np.int64(0)
    words[:] = 0
    rows = min(64, len(weights) - first)
    for i in range(0, rows // 4 * 4, 4):
        a = weights[first + i, low:high]
        b = weights[first + i + 1, low:high]
        c = weights[first + i + 2, low:high]
        d = weights[first + i + 3, low:high]
        for n in range(len(a)):
            bits = np.int64(a[n] >= 0) | np.int64(b[n] >= 0) << 1
            bits |= np.int64(c[n] >= 0) << 2 | np.int64(d[n] >= 0) << 3
            words[n] |= bits << i
            nans = (a[n] != a[n]) | (b[n] != b[n]) | (c[n] != c[n]) | (d[n] != d[n])
            found |= np.int64(nans)
    for i in range(rows // 4 * 4, rows):
        a = weights[first + i, low:high]
        for n in range(len(a)):
            words[n] |= np.int64(a[n] >= 0) << i
            found |= np.int64(a[n] != a[n])
    return found != 0


@njit(nogil=True, cache=True)
def word_tiles(weights, tiles, first, last):
    """Write words first .. last - 1 of tiles (tiles, parts, words, columns of a part) int64.

    Rows are read from end to end: each is as far from the next as all columns are wide. Returns
    whether there is a NaN among the weights.
    """
    parts = tiles.shape[1]
    width = tiles.shape[3]
    found = False
    columns = len(tiles) * parts * width
    words = np.empty(COLUMNS_PER_BLOCK, np.int64)
    for s in range(first, last):
        for low in range(0, columns, COLUMNS_PER_BLOCK):
            found |= signs_of_rows(weights, 64 * s, low, words)
            for at in range(0, min(COLUMNS_PER_BLOCK, columns - low), width):
                part = (low + at) // width
                made = tiles[part // parts, part % parts, s]
                for n in range(width):
                    made[n] = words[at + n]
    return found


@njit(nogil=True, cache=True)
def sums_of_taps(weights, sums, first, last):
    """Add up the signs of weights (taps C, N) in taps first .. last - 1 of sums (taps, N) int32.

    Sums may be wider than N.
    """
    channels = weights.shape[0] // sums.shape[0]
    for tap in range(first, last):
        made = sums[tap]
        made[:] = 0
        for c in range(tap * channels, (tap + 1) * channels):
            row = weights[c]
            for n in range(len(row)):
                made[n] += np.int32(1) if row[n] >= 0 else np.int32(-1)
