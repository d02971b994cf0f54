"""Yardsticks on a CPU: the paper's plain kernel in float32 and on words, and what registers allow.

The plain kernel is the paper's baseline carried over: 16 x 16 tiles of both matrices are copied
next to each other, then multiplied by three plain loops, columns inside, where a GPU has its
threads side by side. On words it is the very same loops with popcount(a ^ b) for the product: the
paper's XNOR kernel. Nothing in this study runs on either.

The bound is the time that the instructions of `xnor_product` would take if nothing were ever
loaded, stored or waited for.
"""

from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from bnnlib.kernels import cpu
from bnnlib.kernels.cpu import processor
from bnnlib.kernels.cpu.parallel_for import in_parts
from bnnlib.kernels.cpu.processor import Path, path_of, pick
from bnnlib.kernels.cpu.word_counts import ones, sums_of

TILE = 16
UNROLLED = 4  # steps of the bound's loop, so that its counter costs nothing
_BYTE = ir.IntType(8)
_INT = ir.IntType(32)
_LONG = ir.IntType(64)


@intrinsic
def _product(typing, a, b):
    """float32: a b. int64: the number of bits in which two words differ, int32."""

    def emit(context, builder, signature, arguments):
        if a == types.float32:
            return builder.fmul(*arguments)
        return builder.trunc(builder.ctpop(builder.xor(*arguments)), _INT)

    return (types.float32 if a == types.float32 else types.int32)(a, b), emit


@njit(nogil=True)
def _fetch(x, row, column, tile):
    """tile = x from that row and column on, 0 outside of x."""
    tile[:] = 0
    for i in range(min(TILE, x.shape[0] - row)):
        for j in range(min(TILE, x.shape[1] - column)):
            tile[i, j] = x[row + i, column + j]


@njit(nogil=True, cache=True)
def _multiply(a, b, offset, scale, out, first, last):
    """Rows of tiles first .. last - 1 of out (M, N) = offset + scale sum_k product(a_ik, b_jk)."""
    left = np.empty((TILE, TILE), a.dtype)
    right = np.empty((TILE, TILE), a.dtype)
    sums = np.empty((TILE, TILE), out.dtype)
    for row in range(first * TILE, last * TILE, TILE):
        for column in range(0, len(b), TILE):
            sums[:] = 0
            for start in range(0, a.shape[1], TILE):
                _fetch(a, row, start, left)
                _fetch(b, column, start, right.T)
                for i in range(TILE):
                    for j in range(TILE):
                        total = sums[i, j]
                        for k in range(TILE):
                            total += _product(left[i, k], right[k, j])
                        sums[i, j] = total
            for i in range(min(TILE, len(a) - row)):
                for j in range(min(TILE, len(b) - column)):
                    out[row + i, column + j] = offset + scale * sums[i, j]


def multiply_float(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a (M, K), b (N, K) float32 -> a b^T (M, N) float32."""
    return _in_tiles(a, b, np.float32(0), np.float32(1))


def multiply_words(a: np.ndarray, b: np.ndarray, k: int) -> np.ndarray:
    """Words a (M, words of k), b (N, words of k) int64 -> products of their signs (M, N) int32."""
    return _in_tiles(a, b, np.int32(k), np.int32(-2))


def _in_tiles(a: np.ndarray, b: np.ndarray, offset: np.number, scale: np.number) -> np.ndarray:
    out = np.empty((len(a), len(b)), offset.dtype)
    rows = -(-len(a) // TILE)
    in_parts(lambda first, last: _multiply(a, b, offset, scale, out, first, last), rows)
    return out


def _bound(sizes: Callable, step: Callable):
    """A Numba function (times, address): so often UNROLLED steps of each chain, in registers.

    sizes(path) -> (vector of a sum, vector of a constant, chains, constants); step(context,
    builder, sum, constant) -> the chain's next sum; constants lie at the address.
    """

    @intrinsic
    def steps(typing, times, address):
        def emit(context, b, signature, arguments):
            count, address = arguments
            total, vector, chains, constants = sizes(path_of(context))
            pointer = b.inttoptr(address, vector.as_pointer())
            place = [b.gep(pointer, [ir.Constant(_LONG, i)]) for i in range(constants)]
            fixed = [b.load(at, align=1) for at in place]
            start = [ir.Constant(total, [i] * total.count) for i in range(chains)]
            sums = [cgutils.alloca_once_value(b, value) for value in start]
            with cgutils.for_range(b, count):
                for _ in range(UNROLLED):
                    for i, at in enumerate(sums):
                        b.store(step(context, b, b.load(at), fixed[i % constants]), at)
            result = b.load(sums[0])
            for at in sums[1:]:  # so that LLVM leaves none of them out
                result = b.xor(result, b.load(at))
            one = b.extract_element(result, ir.Constant(_INT, 0))
            return one if one.type == _LONG else b.zext(one, _LONG)

        return types.int64(times, address), emit

    return njit(nogil=True)(lambda times, address: steps(times, address))


# Vectors of 32 bytes in chains, and as constants: they fill 16 registers.
LOOK_UPS = 10, 5
# Words of a vector; vectors in chains, and as constants: they fill 32 registers, or 16.
COUNTS = {Path.AVX512: (8, 24, 4), Path.NEON: (2, 20, 8), Path.GENERIC: (2, 8, 4)}


def _of_look_ups(path: Path) -> tuple:
    return ir.VectorType(_BYTE, 32), ir.VectorType(_BYTE, 32), *LOOK_UPS


def _of_counts(path: Path) -> tuple:
    lanes, *numbers = COUNTS.get(path, COUNTS[Path.AVX512])
    return sums_of(path, lanes), ir.VectorType(_LONG, lanes), *numbers


def _look_up(context, b: ir.IRBuilder, sums, table):
    """VPSHUFB and VPADDB."""
    return b.add(sums, pick(context, b, table, sums))


def _count(context, b: ir.IRBuilder, sums, word):
    differing = b.xor(b.bitcast(sums, word.type), word)
    return b.add(sums, ones(path_of(context), b, differing))


_look_ups, _counts = _bound(_of_look_ups, _look_up), _bound(_of_counts, _count)


def bound_name() -> str:
    """Name of the instructions that the bound counts here."""
    return "VPSHUFB + VPADDB" if cpu.looks_up() else "xor + popcount + add"


def run_bound(m: int, n: int, k: int) -> None:
    """Run the instructions that a product of (M, K) and (N, K) signs takes, on all threads."""
    if cpu.looks_up():
        run, multiply_adds = _look_ups, LOOK_UPS[0] * 128  # 32 columns of 4 bits each
    else:
        lanes, chains, _ = COUNTS.get(processor.path(), COUNTS[Path.AVX512])
        run, multiply_adds = _counts, chains * lanes * 64
    constants = np.arange(320, dtype=np.uint8) % 5
    times = -(-m * n * k // (UNROLLED * multiply_adds))
    in_parts(lambda first, last: run(last - first, constants.ctypes.data), times)
