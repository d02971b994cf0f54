"""Counts of differing bits by table look-up, as LLVM vectors: the inner loops for `xnor_product`.

Four bits at a time: the number of bits in which a half byte of x differs from one of w is an entry
of a table of 16, and one byte shuffle looks up a vector of columns. Planes are tables of their own:
the counts of four planes, weighed 1, 2, 4 and 8, are added up before anything is looked up.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from bnnlib.kernels.cpu.llvm import BYTE, INT, LONG, SHORT, constant, load, loop, store, zeros
from bnnlib.kernels.cpu.processor import pick

COLUMNS = 128  # of a tile
STEPS = 4  # half bytes of a block: what packed weights hold is whole blocks
STEPS_UNROLLED = 2  # half bytes that a turn of the table's innermost loop takes
COUNT_VECTORS = 4  # in a row of a tile
VECTOR_BYTES = 32  # of a vector of looked-up counts
PLANES_JOINED = 4  # whose tables are added up
COLUMNS_IN_REGISTERS = 64  # of a tile: the joined tables' counts of so many stay there
CODE_ROWS = 2  # that pass a tile together

_HALF_TABLE = ir.VectorType(BYTE, 16)
_COUNTS = ir.VectorType(BYTE, VECTOR_BYTES)


def _add_counts(b: ir.IRBuilder, counts, values: list) -> None:
    """Add vectors of bytes to counts (uint16, one vector after the other)."""
    for j, value in enumerate(values):
        kind = ir.VectorType(SHORT, VECTOR_BYTES)
        number = b.zext(value, kind)
        offset = 2 * j * VECTOR_BYTES
        store(b, b.add(load(b, counts, kind, offset, 2), number), counts, offset)


def _look_up(b: ir.IRBuilder, tables, code):
    """The table of a half byte of x, twice in a vector, from the address of its code."""
    place = b.add(tables, b.mul(b.zext(load(b, code, BYTE), LONG), constant(8)))
    return _twice(b, load(b, place, _HALF_TABLE))


def _twice(b: ir.IRBuilder, half):
    places = ir.Constant(ir.VectorType(INT, VECTOR_BYTES), [*range(16), *range(16)])
    return b.shuffle_vector(half, half, places)


def _table_tile(context, b: ir.IRBuilder, rows: int, x, stride, w, blocks, counts, tables):
    """Count `rows` rows of codes, at most `xnor_product`'s BLOCKS_PER_PASS blocks of them.

    See `_codes_of_rows`.
    """
    turns = b.mul(blocks, constant(STEPS // STEPS_UNROLLED))
    index, sums, close = loop(b, turns, [zeros(_COUNTS)] * (rows * COUNT_VECTORS))
    x = b.add(x, b.mul(index, constant(STEPS_UNROLLED)))
    w = b.add(w, b.mul(index, constant(STEPS_UNROLLED * COLUMNS)))
    for step in range(STEPS_UNROLLED):
        at = [COLUMNS * step + VECTOR_BYTES * j for j in range(COUNT_VECTORS)]
        columns = [load(b, w, _COUNTS, offset) for offset in at]
        following = []
        for i in range(rows):
            code = b.add(x, b.add(b.mul(stride, constant(i)), constant(step)))
            table = _look_up(b, tables, code)
            for j, column in enumerate(columns):
                found = pick(context, b, table, column)
                following.append(b.add(sums[i * COUNT_VECTORS + j], found))
        sums = following
    close(sums)
    for i in range(rows):
        row = b.add(counts, constant(2 * COLUMNS * i))
        _add_counts(b, row, sums[i * COUNT_VECTORS : (i + 1) * COUNT_VECTORS])


def _codes_of_rows(rows: int):
    """An intrinsic that counts the bits in which rows of codes and a tile's columns differ.

    It adds them to counts (rows, COLUMNS) uint16: rows at x, `stride` bytes apart, columns at w, in
    `blocks` blocks of STEPS codes; a code is twice a half byte.
    """

    @intrinsic
    def add(typing, x, stride, w, blocks, counts, tables):
        def emit(context, b, signature, arguments):
            _table_tile(context, b, rows, *arguments)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 6), emit

    return add


add_rows = _codes_of_rows(CODE_ROWS)
add_row = _codes_of_rows(1)


def codes_of(b: ir.IRBuilder, numbers):
    """A vector of bytes -> twice as many codes: each is twice a half byte, the lower one first."""
    count = numbers.type.count
    one, three, mask, high_mask = (
        ir.Constant(numbers.type, [value] * count) for value in (1, 3, 15, 30)
    )
    low = b.shl(b.and_(numbers, mask), one)
    high = b.and_(b.lshr(numbers, three), high_mask)
    places = [i // 2 + count * (i % 2) for i in range(2 * count)]
    return b.shuffle_vector(low, high, ir.Constant(ir.VectorType(INT, 2 * count), places))


def _joined_block(context, b: ir.IRBuilder, tables, columns, sums: list) -> list:
    """The sums after one more block of STEPS half bytes, whose tables and columns are given.

    Bytes add up STEPS look-ups, at most 60 each; words of 16 bits the rest: the even columns'
    counts in one vector, the odd ones' in another.
    """
    vectors = COLUMNS_IN_REGISTERS // VECTOR_BYTES
    half = ir.VectorType(SHORT, VECTOR_BYTES // 2)
    mask, eight = (ir.Constant(half, [number] * half.count) for number in (255, 8))
    following = []
    for part in range(2):
        found = [None] * vectors
        for step in range(STEPS):
            table = _twice(b, load(b, tables, _HALF_TABLE, 16 * (2 * step + part)))
            for j in range(vectors):
                column = load(b, columns, _COUNTS, COLUMNS * step + VECTOR_BYTES * j)
                one = pick(context, b, table, column)
                found[j] = b.add(found[j], one) if step else one
        for j, bytes_found in enumerate(found):
            pairs = b.bitcast(bytes_found, half)
            at = 2 * (vectors * part + j)
            following.append(b.add(sums[at], b.and_(pairs, mask)))
            following.append(b.add(sums[at + 1], b.lshr(pairs, eight)))
    return following


def _joined_tile(context, b: ir.IRBuilder, x, w, blocks, counts):
    """Count a row of joined tables: see `joined_row`."""
    vectors = COLUMNS_IN_REGISTERS // VECTOR_BYTES
    half = ir.VectorType(SHORT, VECTOR_BYTES // 2)
    order = [i // 2 + half.count * (i % 2) for i in range(VECTOR_BYTES)]
    for low in range(0, COLUMNS, COLUMNS_IN_REGISTERS):
        index, sums, close = loop(b, blocks, [zeros(half)] * (4 * vectors))
        tables = b.add(x, b.mul(index, constant(STEPS * 2 * 16)))
        columns = b.add(w, b.add(b.mul(index, constant(STEPS * COLUMNS)), constant(low)))
        following = _joined_block(context, b, tables, columns, sums)
        close(following)
        for i in range(2 * vectors):
            places = ir.Constant(ir.VectorType(INT, VECTOR_BYTES), order)
            numbers = b.shuffle_vector(following[2 * i], following[2 * i + 1], places)
            column = low + i % vectors * VECTOR_BYTES
            store(b, numbers, counts, 2 * (i // vectors * COLUMNS + column))


@intrinsic
def joined_row(typing, x, w, blocks, counts):
    """Set counts (2, COLUMNS) uint16 to what a tile's columns find in a row's tables.

    The lower four planes' come first.

    x: the two tables of each half byte, as `join` makes them; w, blocks: see `add_rows`.
    """

    def emit(context, b, signature, arguments):
        _joined_tile(context, b, *arguments)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), emit


@intrinsic
def join(typing, codes, stride, tables, joined):
    """Add up the tables of a half byte of PLANES_JOINED planes, weighed 1, 2, 4, 8.

    codes: the address of the first plane's code, `stride` bytes before the next.
    """

    def emit(context, b, signature, arguments):
        codes, stride, tables, joined = arguments
        total = zeros(_HALF_TABLE)
        for plane in reversed(range(PLANES_JOINED)):
            code = b.zext(load(b, b.add(codes, b.mul(stride, constant(plane))), BYTE), LONG)
            table = load(b, b.add(tables, b.mul(code, constant(8))), _HALF_TABLE)
            total = b.add(b.add(total, total), table)
        store(b, total, joined)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), emit
