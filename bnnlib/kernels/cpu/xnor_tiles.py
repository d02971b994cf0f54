"""The innermost loops of binary products on the CPU, as LLVM vectors, for `xnor_product`.

No C compiler is needed, and LLVM lowers the vectors to what the processor has. Lanes are output
columns, so that nothing is ever summed across a vector. Two ways to count the differing bits of a
row x and 128 columns w, told apart by the dtype of the packed weights:

    popcount  int64: pop(x ^ w) of whole words, where the processor counts the bits of a vector
              (AVX-512 VPOPCNTDQ, NEON), or knows no table either: see `word_counts`
    table     uint8: four bits at a time. The number of bits in which a half byte of x differs from
              one of w is an entry of a table of 16, and one byte shuffle (AVX2, NEON) looks up 32
              or 16 columns: half the instructions of counting bits by shuffles after an
              exclusive or

Planes (numbers p of 8 bits) are so many rows to the first. To the second they are tables: the
counts of four planes, weighed 1, 2, 4 and 8, are added up before anything is looked up, so that a
number takes two look-ups instead of eight.
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
from bnnlib.kernels.cpu.processor import pick
from bnnlib.kernels.cpu.word_counts import count_words

COLUMNS = 128  # of a tile
STEPS = 4  # half bytes of a block: what packed weights hold is whole blocks
UNROLLED = 2  # half bytes that a turn of the table's innermost loop takes
VECTORS = 4  # of counts in a row of a tile
TABLE_BYTES = 32  # of a vector of looked-up counts
TOGETHER = 4  # planes whose tables are added up
WIDE = 64  # columns of a tile of which the joined tables' counts stay in registers

_HALF_TABLE = ir.VectorType(BYTE, 16)
_COUNTS = ir.VectorType(BYTE, TABLE_BYTES)


def _add_counts(b: ir.IRBuilder, counts, values: list) -> None:
    """counts (uint16, one vector after the other) += vectors of bytes."""
    for j, value in enumerate(values):
        kind = ir.VectorType(SHORT, TABLE_BYTES)
        number, offset = b.zext(value, kind), 2 * j * TABLE_BYTES
        store(b, b.add(load(b, counts, kind, offset, 2), number), counts, offset)


def _subtract_counts(b: ir.IRBuilder, counts: list, bits, sums) -> None:
    """WORDS_ACROSS int32 at `sums` -= 2^bits counts."""
    lanes = counts[0].type.count
    vector = ir.VectorType(INT, lanes)
    by = splat(b, b.trunc(bits, INT), lanes)
    for j, count in enumerate(counts):
        number = b.shl(b.trunc(count, vector), by)
        store(b, b.sub(load(b, sums, vector, 4 * lanes * j, 4), number), sums, 4 * lanes * j)


def _look_up(b: ir.IRBuilder, tables, code):
    """The table of a half byte of x, twice in a vector, from the address of its code."""
    place = b.add(tables, b.mul(b.zext(load(b, code, BYTE), LONG), constant(8)))
    return _twice(b, load(b, place, _HALF_TABLE))


def _twice(b: ir.IRBuilder, half):
    places = ir.Constant(ir.VectorType(INT, TABLE_BYTES), [*range(16), *range(16)])
    return b.shuffle_vector(half, half, places)


def _table_tile(context, b: ir.IRBuilder, rows: int, x, stride, w, blocks, counts, tables):
    """`rows` rows of codes, at most BLOCKS_AT_A_TIME blocks; see `_codes_of_rows`."""
    turns = b.mul(blocks, constant(STEPS // UNROLLED))
    index, sums, close = loop(b, turns, [zeros(_COUNTS)] * (rows * VECTORS))
    x = b.add(x, b.mul(index, constant(UNROLLED)))
    w = b.add(w, b.mul(index, constant(UNROLLED * COLUMNS)))
    for step in range(UNROLLED):
        at = [COLUMNS * step + TABLE_BYTES * j for j in range(VECTORS)]
        columns = [load(b, w, _COUNTS, offset) for offset in at]
        following = []
        for i in range(rows):
            code = b.add(x, b.add(b.mul(stride, constant(i)), constant(step)))
            table = _look_up(b, tables, code)
            for j, column in enumerate(columns):
                found = pick(context, b, table, column)
                following.append(b.add(sums[i * VECTORS + j], found))
        sums = following
    close(sums)
    for i in range(rows):
        row = b.add(counts, constant(2 * COLUMNS * i))
        _add_counts(b, row, sums[i * VECTORS : (i + 1) * VECTORS])


def _joined_tile(context, b: ir.IRBuilder, x, w, blocks, counts):
    """See `joined_row`. Bytes add up STEPS look-ups, at most 60 each; words of 16 bits the rest:
    the even columns' counts in one vector, the odd ones' in another."""
    vectors, half = WIDE // TABLE_BYTES, ir.VectorType(SHORT, TABLE_BYTES // 2)
    mask, eight = (ir.Constant(half, [number] * half.count) for number in (255, 8))
    order = [i // 2 + half.count * (i % 2) for i in range(TABLE_BYTES)]
    for low in range(0, COLUMNS, WIDE):
        index, sums, close = loop(b, blocks, [zeros(half)] * (4 * vectors))
        tables = b.add(x, b.mul(index, constant(STEPS * 2 * 16)))
        columns = b.add(w, b.mul(index, constant(STEPS * COLUMNS)))
        following = []
        for part in range(2):
            found = [None] * vectors
            for step in range(STEPS):
                table = _twice(b, load(b, tables, _HALF_TABLE, 16 * (2 * step + part)))
                for j in range(vectors):
                    column = load(b, columns, _COUNTS, COLUMNS * step + low + TABLE_BYTES * j)
                    one = pick(context, b, table, column)
                    found[j] = b.add(found[j], one) if step else one
            for j, bytes_found in enumerate(found):
                pairs, at = b.bitcast(bytes_found, half), 2 * (vectors * part + j)
                following.append(b.add(sums[at], b.and_(pairs, mask)))
                following.append(b.add(sums[at + 1], b.lshr(pairs, eight)))
        close(following)
        for i in range(2 * vectors):
            places = ir.Constant(ir.VectorType(INT, TABLE_BYTES), order)
            numbers = b.shuffle_vector(following[2 * i], following[2 * i + 1], places)
            column = low + i % vectors * TABLE_BYTES
            store(b, numbers, counts, 2 * (i // vectors * COLUMNS + column))


def _words(rows: int):
    """An intrinsic that subtracts from sums (rows, COLUMNS) int32 twice the bits in which rows at
    x, `stride` bytes apart, differ from WORDS_ACROSS columns at w, in `words` words."""

    @intrinsic
    def subtract(typing, x, stride, w, words, sums):
        def emit(context, b, signature, arguments):
            x, stride, w, words, sums = arguments
            for i, counts in enumerate(count_words(context, b, rows, x, stride, w, words)):
                to = b.add(sums, constant(4 * COLUMNS * i))
                _subtract_counts(b, counts, constant(1), to)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 5), emit

    return subtract


WORD_ROWS = 6
subtract_rows, subtract_row = _words(WORD_ROWS), _words(1)


@intrinsic
def subtract_planes(typing, x, stride, w, words, bits, sums):
    """As `subtract_row`, for TOGETHER planes of a row, which weigh 2^bits, 2^(bits + 1), ..."""

    def emit(context, b, signature, arguments):
        x, stride, w, words, bits, sums = arguments
        total, *others = reversed(count_words(context, b, TOGETHER, x, stride, w, words))
        for counts in others:
            total = [b.add(b.add(t, t), count) for t, count in zip(total, counts, strict=True)]
        _subtract_counts(b, total, bits, sums)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 6), emit


def _codes_of_rows(rows: int):
    """An intrinsic: counts (rows, COLUMNS) uint16 += the bits in which the rows at x, `stride`
    bytes apart, differ from the columns of the tile at w, in `blocks` blocks of STEPS codes, a
    code being twice a half byte."""

    @intrinsic
    def add(typing, x, stride, w, blocks, counts, tables):
        def emit(context, b, signature, arguments):
            _table_tile(context, b, rows, *arguments)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 6), emit

    return add


CODE_ROWS = 2
add_rows, add_row = _codes_of_rows(CODE_ROWS), _codes_of_rows(1)


def _codes(b: ir.IRBuilder, numbers):
    """A vector of bytes -> twice as many codes: each is twice a half byte, the lower one first."""
    of = lambda value: ir.Constant(numbers.type, [value] * numbers.type.count)  # noqa: E731
    low = b.shl(b.and_(numbers, of(15)), of(1))
    high = b.and_(b.lshr(numbers, of(3)), of(30))
    count = numbers.type.count
    places = [i // 2 + count * (i % 2) for i in range(2 * count)]
    return b.shuffle_vector(low, high, ir.Constant(ir.VectorType(INT, 2 * count), places))


@intrinsic
def joined_row(typing, x, w, blocks, counts):
    """counts (2, COLUMNS) uint16 = what a tile's columns find in a row's tables, lower and upper.

    x: the two tables of each half byte, as `join` makes them; w, blocks: see `add_rows`.
    """

    def emit(context, b, signature, arguments):
        _joined_tile(context, b, *arguments)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), emit


@intrinsic
def join(typing, codes, stride, tables, joined):
    """Add up the tables of a half byte of TOGETHER planes, weighed 1, 2, 4, 8.

    codes: the address of the first plane's code, `stride` bytes before the next.
    """

    def emit(context, b, signature, arguments):
        codes, stride, tables, joined = arguments
        total = zeros(_HALF_TABLE)
        for plane in reversed(range(TOGETHER)):
            code = b.zext(load(b, b.add(codes, b.mul(stride, constant(plane))), BYTE), LONG)
            table = load(b, b.add(tables, b.mul(code, constant(8))), _HALF_TABLE)
            total = b.add(b.add(total, total), table)
        store(b, total, joined)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), emit


@intrinsic
def subtract(typing, counts, parts, bits, sums):
    """COLUMNS int32 at `sums` -= 2 (counts[0] + 2^bits counts[1] + 4^bits counts[2] + ...).

    A part's counts are COLUMNS uint16; the next part's follow.
    """
    vector, lanes = ir.VectorType(INT, 32), 32

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
def move(typing, out, sums, to):
    """COLUMNS int32 at an address -> as many numbers of the type of `out`, int32 or float32, at
    another."""
    before = ir.VectorType(INT, 32)
    after = ir.VectorType({types.int32: INT, types.float32: ir.FloatType()}[out.dtype], 32)

    def emit(context, b, signature, arguments):
        _, sums, to = arguments
        for offset in range(0, 4 * COLUMNS, 4 * before.count):
            numbers = load(b, sums, before, offset, 4)
            store(b, numbers if after == before else b.sitofp(numbers, after), to, offset)
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
            word = _codes(b, b.bitcast(word, ir.VectorType(BYTE, 8)))
        store(b, word, row)
        return context.get_dummy_value()

    return types.void(weights, types.uint64, types.intp), emit
