"""The innermost loops of binary products on the CPU, as LLVM vectors, for `xnor_product`.

No C compiler is needed, and LLVM lowers the vectors to what the processor has. Lanes are output
columns, so that nothing is ever summed across a vector. Two ways to count the differing bits of a
row x and 128 columns w, told apart by the dtype of the packed weights:

    popcount  int64: pop(x ^ w) of whole words, where the processor counts the bits of a vector
              (AVX-512 VPOPCNTDQ)
    table     uint8: four bits at a time. The number of bits in which a half byte of x differs from
              one of w is an entry of a table of 16, and one byte shuffle (AVX2) looks up 32
              columns: half the instructions of counting bits by shuffles after an exclusive or

Planes (numbers p of 8 bits) are so many rows to the first. To the second they are tables: the
counts of four planes, weighed 1, 2, 4 and 8, are added up before anything is looked up, so that a
number takes two look-ups instead of eight.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

COLUMNS = 128  # of a tile
STEPS = 4  # half bytes of a block: what packed weights hold is whole blocks
UNROLLED = 2  # half bytes that a turn of the table's innermost loop takes
LANES = 8  # words of a 64 byte vector
VECTORS = 4  # of accumulators in a row of a tile
WORDS_ACROSS = LANES * VECTORS
TABLE_BYTES = 32  # of a vector of looked-up counts
TOGETHER = 4  # planes whose tables are added up
WIDE = 64  # columns of a tile of which the joined tables' counts stay in registers

_BYTE, _SHORT, _INT, _LONG = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_WORDS, _HALF_TABLE = ir.VectorType(_LONG, LANES), ir.VectorType(_BYTE, 16)
_COUNTS = ir.VectorType(_BYTE, TABLE_BYTES)


def _constant(value: int) -> ir.Constant:
    return ir.Constant(_LONG, value)


def _zeros(vector: ir.VectorType) -> ir.Constant:
    return ir.Constant(vector, [0] * vector.count)


def _load(b: ir.IRBuilder, address, kind: ir.Type, offset: int = 0, align: int = 1):
    pointer = b.inttoptr(b.add(address, _constant(offset)), kind.as_pointer())
    return b.load(pointer, align=align)


def _store(b: ir.IRBuilder, value, address, offset: int = 0) -> None:
    b.store(value, b.inttoptr(b.add(address, _constant(offset)), value.type.as_pointer()), align=2)


def _splat(b: ir.IRBuilder, value, count: int):
    undefined = ir.Constant(ir.VectorType(value.type, count), ir.Undefined)
    one = b.insert_element(undefined, value, ir.Constant(_INT, 0))
    return b.shuffle_vector(one, undefined, _zeros(ir.VectorType(_INT, count)))


def _call(b: ir.IRBuilder, name: str, result: ir.Type, *arguments):
    """Call an LLVM intrinsic function."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    function = b.module.globals.get(name) or ir.Function(b.module, kind, name)
    return b.call(function, arguments)


def _loop(b: ir.IRBuilder, count, start: list):
    """Open a loop over 0 .. count - 1, count >= 1, that carries values.

    Returns the index, the carried values, and what closes it, given their next values.
    """
    before, body, after = b.block, b.append_basic_block("loop"), b.append_basic_block("after")
    b.branch(body)
    b.position_at_end(body)
    index = b.phi(_LONG)
    index.add_incoming(_constant(0), before)
    carried = [b.phi(value.type) for value in start]
    for phi, value in zip(carried, start, strict=True):
        phi.add_incoming(value, before)

    def close(following: list) -> None:
        advanced, last = b.add(index, _constant(1)), b.block
        index.add_incoming(advanced, last)
        for phi, value in zip(carried, following, strict=True):
            phi.add_incoming(value, last)
        b.cbranch(b.icmp_signed("<", advanced, count), body, after)
        b.position_at_end(after)

    return index, carried, close


def _add_counts(b: ir.IRBuilder, counts, values: list) -> None:
    """counts (uint16, one vector after the other) += vectors of bytes."""
    for j, value in enumerate(values):
        kind = ir.VectorType(_SHORT, TABLE_BYTES)
        number, offset = b.zext(value, kind), 2 * j * TABLE_BYTES
        _store(b, b.add(_load(b, counts, kind, offset, 2), number), counts, offset)


def _count_words(b: ir.IRBuilder, rows: int, x, stride, w, words) -> list[list]:
    """Vectors of counts, by row and by column: the bits in which words of rows and of w differ."""
    index, sums, close = _loop(b, words, [_zeros(_WORDS)] * (rows * VECTORS))
    at = b.add(w, b.mul(index, _constant(8 * WORDS_ACROSS)))
    columns = [_load(b, at, _WORDS, 8 * LANES * j) for j in range(VECTORS)]
    following = []
    for i in range(rows):
        row = b.add(b.add(x, b.mul(stride, _constant(i))), b.mul(index, _constant(8)))
        word = _splat(b, _load(b, row, _LONG), LANES)
        for j, column in enumerate(columns):
            differing = _call(b, "llvm.ctpop.v8i64", _WORDS, b.xor(word, column))
            following.append(b.add(sums[i * VECTORS + j], differing))
    close(following)
    return [following[i * VECTORS : (i + 1) * VECTORS] for i in range(rows)]


def _subtract_counts(b: ir.IRBuilder, counts: list, bits, sums) -> None:
    """WORDS_ACROSS int32 at `sums` -= 2^bits counts."""
    vector = ir.VectorType(_INT, LANES)
    by = _splat(b, b.trunc(bits, _INT), LANES)
    for j, count in enumerate(counts):
        number = b.shl(b.trunc(count, vector), by)
        _store(b, b.sub(_load(b, sums, vector, 4 * LANES * j, 4), number), sums, 4 * LANES * j)


def _look_up(b: ir.IRBuilder, tables, code):
    """The table of a half byte of x, twice in a vector, from the address of its code."""
    place = b.add(tables, b.mul(b.zext(_load(b, code, _BYTE), _LONG), _constant(8)))
    return _twice(b, _load(b, place, _HALF_TABLE))


def _twice(b: ir.IRBuilder, half):
    places = ir.Constant(ir.VectorType(_INT, TABLE_BYTES), [*range(16), *range(16)])
    return b.shuffle_vector(half, half, places)


def _table_tile(b: ir.IRBuilder, rows: int, x, stride, w, blocks, counts, tables):
    """`rows` rows of codes, at most BLOCKS_AT_A_TIME blocks; see `_codes_of_rows`."""
    turns = b.mul(blocks, _constant(STEPS // UNROLLED))
    index, sums, close = _loop(b, turns, [_zeros(_COUNTS)] * (rows * VECTORS))
    x = b.add(x, b.mul(index, _constant(UNROLLED)))
    w = b.add(w, b.mul(index, _constant(UNROLLED * COLUMNS)))
    for step in range(UNROLLED):
        at = [COLUMNS * step + TABLE_BYTES * j for j in range(VECTORS)]
        columns = [_load(b, w, _COUNTS, offset) for offset in at]
        following = []
        for i in range(rows):
            code = b.add(x, b.add(b.mul(stride, _constant(i)), _constant(step)))
            table = _look_up(b, tables, code)
            for j, column in enumerate(columns):
                found = _call(b, "llvm.x86.avx2.pshuf.b", _COUNTS, table, column)
                following.append(b.add(sums[i * VECTORS + j], found))
        sums = following
    close(sums)
    for i in range(rows):
        row = b.add(counts, _constant(2 * COLUMNS * i))
        _add_counts(b, row, sums[i * VECTORS : (i + 1) * VECTORS])


def _joined_tile(b: ir.IRBuilder, x, w, blocks, counts):
    """See `joined_row`. Bytes add up STEPS look-ups, at most 60 each; words of 16 bits the rest:
    the even columns' counts in one vector, the odd ones' in another."""
    vectors, half = WIDE // TABLE_BYTES, ir.VectorType(_SHORT, TABLE_BYTES // 2)
    mask, eight = (ir.Constant(half, [number] * half.count) for number in (255, 8))
    order = [i // 2 + half.count * (i % 2) for i in range(TABLE_BYTES)]
    for low in range(0, COLUMNS, WIDE):
        index, sums, close = _loop(b, blocks, [_zeros(half)] * (4 * vectors))
        tables = b.add(x, b.mul(index, _constant(STEPS * 2 * 16)))
        columns = b.add(w, b.mul(index, _constant(STEPS * COLUMNS)))
        following = []
        for part in range(2):
            found = [None] * vectors
            for step in range(STEPS):
                table = _twice(b, _load(b, tables, _HALF_TABLE, 16 * (2 * step + part)))
                for j in range(vectors):
                    column = _load(b, columns, _COUNTS, COLUMNS * step + low + TABLE_BYTES * j)
                    one = _call(b, "llvm.x86.avx2.pshuf.b", _COUNTS, table, column)
                    found[j] = b.add(found[j], one) if step else one
            for j, bytes_found in enumerate(found):
                pairs, at = b.bitcast(bytes_found, half), 2 * (vectors * part + j)
                following.append(b.add(sums[at], b.and_(pairs, mask)))
                following.append(b.add(sums[at + 1], b.lshr(pairs, eight)))
        close(following)
        for i in range(2 * vectors):
            places = ir.Constant(ir.VectorType(_INT, TABLE_BYTES), order)
            numbers = b.shuffle_vector(following[2 * i], following[2 * i + 1], places)
            column = low + i % vectors * TABLE_BYTES
            _store(b, numbers, counts, 2 * (i // vectors * COLUMNS + column))


def _words(rows: int):
    """An intrinsic that subtracts from sums (rows, COLUMNS) int32 twice the bits in which rows at
    x, `stride` bytes apart, differ from WORDS_ACROSS columns at w, in `words` words."""

    @intrinsic
    def subtract(typing, x, stride, w, words, sums):
        def emit(context, b, signature, arguments):
            x, stride, w, words, sums = arguments
            for i, counts in enumerate(_count_words(b, rows, x, stride, w, words)):
                to = b.add(sums, _constant(4 * COLUMNS * i))
                _subtract_counts(b, counts, _constant(1), to)
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
        total, *others = reversed(_count_words(b, TOGETHER, x, stride, w, words))
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
            _table_tile(b, rows, *arguments)
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
    return b.shuffle_vector(low, high, ir.Constant(ir.VectorType(_INT, 2 * count), places))


@intrinsic
def joined_row(typing, x, w, blocks, counts):
    """counts (2, COLUMNS) uint16 = what a tile's columns find in a row's tables, lower and upper.

    x: the two tables of each half byte, as `join` makes them; w, blocks: see `add_rows`.
    """

    def emit(context, b, signature, arguments):
        _joined_tile(b, *arguments)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), emit


@intrinsic
def join(typing, codes, stride, tables, joined):
    """Add up the tables of a half byte of TOGETHER planes, weighed 1, 2, 4, 8.

    codes: the address of the first plane's code, `stride` bytes before the next.
    """

    def emit(context, b, signature, arguments):
        codes, stride, tables, joined = arguments
        total = _zeros(_HALF_TABLE)
        for plane in reversed(range(TOGETHER)):
            code = b.zext(_load(b, b.add(codes, b.mul(stride, _constant(plane))), _BYTE), _LONG)
            table = _load(b, b.add(tables, b.mul(code, _constant(8))), _HALF_TABLE)
            total = b.add(b.add(total, total), table)
        _store(b, total, joined)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), emit


@intrinsic
def subtract(typing, counts, parts, bits, sums):
    """COLUMNS int32 at `sums` -= 2 (counts[0] + 2^bits counts[1] + 4^bits counts[2] + ...).

    A part's counts are COLUMNS uint16; the next part's follow.
    """
    vector, lanes = ir.VectorType(_INT, 32), 32

    def emit(context, b, signature, arguments):
        counts, parts, bits, sums = arguments
        shift = _splat(b, b.trunc(bits, _INT), lanes)
        last = b.add(counts, b.mul(b.sub(parts, _constant(1)), _constant(2 * COLUMNS)))
        for low in range(0, COLUMNS, lanes):
            index, (total,), close = _loop(b, parts, [_zeros(vector)])
            at = b.sub(last, b.mul(index, _constant(2 * COLUMNS)))
            number = b.zext(_load(b, at, ir.VectorType(_SHORT, lanes), 2 * low, 2), vector)
            total = b.add(b.shl(total, shift), number)
            close([total])
            before = _load(b, sums, vector, 4 * low, 4)
            _store(b, b.sub(before, b.add(total, total)), sums, 4 * low)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), emit


@intrinsic
def move(typing, out, sums, to):
    """COLUMNS int32 at an address -> as many numbers of the type of `out`, int32 or float32, at
    another."""
    before = ir.VectorType(_INT, 32)
    after = ir.VectorType({types.int32: _INT, types.float32: ir.FloatType()}[out.dtype], 32)

    def emit(context, b, signature, arguments):
        _, sums, to = arguments
        for offset in range(0, 4 * COLUMNS, 4 * before.count):
            numbers = _load(b, sums, before, offset, 4)
            _store(b, numbers if after == before else b.sitofp(numbers, after), to, offset)
        return context.get_dummy_value()

    return types.void(out, types.intp, types.intp), emit


@intrinsic
def at_least(typing, sums, bounds):
    """The word of [sum >= bound] for 64 int32 at each of the two addresses."""
    vector = ir.VectorType(_INT, 64)

    def emit(context, b, signature, arguments):
        sums, bounds = (_load(b, address, vector, 0, 4) for address in arguments)
        return b.bitcast(b.icmp_signed(">=", sums, bounds), _LONG)

    return types.int64(types.intp, types.intp), emit


@intrinsic
def place(typing, weights, word, row):
    """Write a word at the address `row` as the tiles read it: as it is, or as 16 codes."""

    def emit(context, b, signature, arguments):
        _, word, row = arguments
        if weights.dtype == types.uint8:
            word = _codes(b, b.bitcast(word, ir.VectorType(_BYTE, 8)))
        _store(b, word, row)
        return context.get_dummy_value()

    return types.void(weights, types.uint64, types.intp), emit
