"""Counts of the bits in which words differ: the innermost loop of products, for each processor.

Rows and columns are counted together, as far as a processor's registers hold their sums.
"""

from llvmlite import ir

from bnnlib.kernels.cpu.llvm import BYTE, INT, LONG, SHORT, call, constant, load, loop, splat, zeros
from bnnlib.kernels.cpu.processor import Path, path_of

WORDS_ACROSS = 32  # columns that are counted at a time
LANES = 8  # words of a 64 byte vector
NARROW_LANES = 2  # words of a 16 byte one
# (rows, vectors of columns) with sums in registers: 32 on ARM, 16 on the oldest x86
SUMS_IN_REGISTERS = {Path.NEON: (2, 8), Path.GENERIC: (1, 4)}
_QUADS = ir.VectorType(INT, 4)
_EIGHTS = ir.VectorType(SHORT, 8)
_BYTES = ir.VectorType(BYTE, 16)


def count_words(context, b: ir.IRBuilder, rows: int, x, stride, w, words) -> list[list]:
    """Count the bits in which `words` words of rows and of WORDS_ACROSS columns differ.

    Returns vectors of int64, by row and by column. The rows are at x, `stride` bytes apart, the
    columns at w; words < 4096.
    """
    path = path_of(context)
    together, vectors = SUMS_IN_REGISTERS.get(path, (rows, WORDS_ACROSS // LANES))
    counts = [[] for _ in range(rows)]
    for first in range(0, rows, together):
        row = b.add(x, b.mul(stride, constant(first)))
        some = min(together, rows - first)
        lanes = NARROW_LANES if path in SUMS_IN_REGISTERS else LANES
        for low in range(0, WORDS_ACROSS, vectors * lanes):
            column = b.add(w, constant(8 * low))
            found = _counted(path, b, (some, vectors, lanes), row, stride, column, words)
            for i, sums in enumerate(found):
                counts[first + i] += sums
    return counts


def _counted(path: Path, b: ir.IRBuilder, size, x, stride, w, words) -> list[list]:
    """`count_words` of size = (rows, vectors, words of a vector), with all sums in registers."""
    rows, vectors, lanes = size
    kind = ir.VectorType(LONG, lanes)
    index, sums, close = loop(b, words, [zeros(sums_of(path, lanes))] * (rows * vectors))
    at = b.add(w, b.mul(index, constant(8 * WORDS_ACROSS)))
    columns = [load(b, at, kind, 8 * lanes * j) for j in range(vectors)]
    following = []
    for i in range(rows):
        row = b.add(b.add(x, b.mul(stride, constant(i))), b.mul(index, constant(8)))
        word = splat(b, load(b, row, LONG), lanes)
        for j, column in enumerate(columns):
            differing = ones(path, b, b.xor(word, column))
            following.append(b.add(sums[i * vectors + j], differing))
    close(following)
    if path is Path.NEON:
        following = [_widened(b, sums) for sums in following]
    return [following[i * vectors : (i + 1) * vectors] for i in range(rows)]


def sums_of(path: Path, lanes: int) -> ir.VectorType:
    """The type of vector that holds sums of `ones` of `lanes` words."""
    return _EIGHTS if path is Path.NEON else ir.VectorType(LONG, lanes)


def ones(path: Path, b: ir.IRBuilder, words):
    """The number of ones of each word; on ARM of each two bytes (CNT), added in pairs (UADALP)."""
    if path is Path.NEON:
        counts = call(b, "llvm.ctpop.v16i8", _BYTES, b.bitcast(words, _BYTES))
        return call(b, "llvm.aarch64.neon.uaddlp.v8i16.v16i8", _EIGHTS, counts)
    return call(b, f"llvm.ctpop.v{words.type.count}i64", words.type, words)


def _widened(b: ir.IRBuilder, sums):
    """Eight uint16 -> two int64, each the sum of four."""
    fours = call(b, "llvm.aarch64.neon.uaddlp.v4i32.v8i16", _QUADS, sums)
    return call(b, "llvm.aarch64.neon.uaddlp.v2i64.v4i32", ir.VectorType(LONG, NARROW_LANES), fours)
