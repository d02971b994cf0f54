"""The innermost loops of binary products on the CPU, as LLVM vectors, for `xnor_product`.

No C compiler is needed, and LLVM lowers the vectors to what the processor has. Lanes are output
columns, so that nothing is ever summed across a vector. Two ways to count the differing bits of a
row x and 128 columns w, told apart by the dtype of the packed weights:

    popcount  int64: pop(x ^ w) of whole words, where the processor counts the bits of a vector
              (AVX-512 VPOPCNTDQ, NEON), or knows no table either: see `word_counts`
    table     uint8: four bits at a time, in `xnor_tables`. The number of bits in which a half
              byte of x differs from one of w is an entry of a table of 16, and one byte shuffle
              (AVX2, NEON) looks up 32 or 16 columns: half the instructions of counting bits by
              shuffles after an exclusive or

Planes (numbers p of 8 bits) are as many rows to the first. The second adds up the tables of four
planes, weighed 1, 2, 4 and 8, before it looks anything up, so that a number takes two look-ups
instead of eight.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from bnnlib.kernels.cpu.llvm import (
    BYTE,
    INT,
    LONG,
    SHORT,
    constant,
    load,
    loop,
    splat,
    store,
    zeros,
)
from bnnlib.kernels.cpu.word_counts import count_words
from bnnlib.kernels.cpu.xnor_tables import COLUMNS, PLANES_JOINED, codes_of

WORD_ROWS = 6  # that pass a tile together


def _subtract_counts(b: ir.IRBuilder, counts: list, bits, sums) -> None:
    """Subtract 2^bits counts from WORDS_ACROSS int32 at `sums`."""
    lanes = counts[0].type.count
    vector = ir.VectorType(INT, lanes)
    by = splat(b, b.trunc(bits, INT), lanes)
    for j, count in enumerate(counts):
        number = b.shl(b.trunc(count, vector), by)
        store(b, b.sub(load(b, sums, vector, 4 * lanes * j, 4), number), sums, 4 * lanes * j)


def _words(rows: int):
    """An intrinsic that subtracts twice the bits in which rows and WORDS_ACROSS columns differ.

    Sums (rows, COLUMNS) int32; rows at x, `stride` bytes apart, columns at w, `words` words long.
    """

    @intrinsic
    def subtract(typing, x, stride, w, words, sums):
        def emit(context, b, signature, arguments):
            x, stride, w, words, sums = arguments
            for i, counts in enumerate(count_words(context, b, rows, x, stride, w, words)):
                row_sums = b.add(sums, constant(4 * COLUMNS * i))
                _subtract_counts(b, counts, constant(1), row_sums)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 5), emit

    return subtract


subtract_rows = _words(WORD_ROWS)
subtract_row = _words(1)


@intrinsic
def subtract_planes(typing, x, stride, w, words, bits, sums):
    """`subtract_row` for PLANES_JOINED planes of a row, which weigh 2^bits, 2^(bits + 1), ..."""

    def emit(context, b, signature, arguments):
        x, stride, w, words, bits, sums = arguments
        total, *others = reversed(count_words(context, b, PLANES_JOINED, x, stride, w, words))
        for counts in others:
            total = [b.add(b.add(t, t), count) for t, count in zip(total, counts, strict=True)]
        _subtract_counts(b, total, bits, sums)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 6), emit


@intrinsic
def subtract(typing, counts, parts, bits, sums):
    """Subtract 2 (counts[0] + 2^bits counts[1] + 4^bits counts[2] + ...) from COLUMNS int32 sums.

    A part's counts are COLUMNS uint16; the next part's follow.
    """
    lanes = 32
    vector = ir.VectorType(INT, lanes)

    def emit(context, b, signature, arguments):
        counts, parts, bits, sums = arguments
        shift = splat(b, b.trunc(bits, INT), lanes)
        last = b.add(counts, b.mul(b.sub(parts, constant(1)), constant(2 * COLUMNS)))
        for low in range(0, COLUMNS, lanes):
            index, (total,), close = loop(b, parts, [zeros(vector)])
            at = b.sub(last, b.mul(index, constant(2 * COLUMNS)))
            number = b.zext(load(b, at, ir.VectorType(SHORT, lanes), 2 * low, 2), vector)
            total = b.add(b.shl(total, shift), number)
            close([total])
            before = load(b, sums, vector, 4 * low, 4)
            store(b, b.sub(before, b.add(total, total)), sums, 4 * low)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), emit


@intrinsic
def move(typing, out, sums, target):
    """Write COLUMNS int32 at one address to another, as numbers of the type of `out`.

    That is int32 or float32.
    """
    before = ir.VectorType(INT, 32)
    after = ir.VectorType({types.int32: INT, types.float32: ir.FloatType()}[out.dtype], 32)

    def emit(context, b, signature, arguments):
        _, sums, target = arguments
        for offset in range(0, 4 * COLUMNS, 4 * before.count):
            numbers = load(b, sums, before, offset, 4)
            store(b, numbers if after == before else b.sitofp(numbers, after), target, offset)
        return context.get_dummy_value()

    return types.void(out, types.intp, types.intp), emit


@intrinsic
def at_least(typing, sums, bounds):
    """The word of [sum >= bound] for 64 int32 at each of the two addresses."""
    vector = ir.VectorType(INT, 64)

    def emit(context, b, signature, arguments):
        sums, bounds = (load(b, address, vector, 0, 4) for address in arguments)
        return b.bitcast(b.icmp_signed(">=", sums, bounds), LONG)

    return types.int64(types.intp, types.intp), emit


@intrinsic
def place(typing, weights, word, row):
    """Write a word at the address `row` as the tiles read it: as it is, or as 16 codes."""

    def emit(context, b, signature, arguments):
        _, word, row = arguments
        if weights.dtype == types.uint8:
            word = codes_of(b, b.bitcast(word, ir.VectorType(BYTE, 8)))
        store(b, word, row)
        return context.get_dummy_value()

    return types.void(weights, types.uint64, types.intp), emit
