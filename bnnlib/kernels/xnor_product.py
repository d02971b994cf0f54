"""Binary products on the CPU: LLVM vector code for the innermost loops, Numba around them.

No C compiler is needed, and LLVM lowers the vectors to what the processor has. Lanes are output
columns, so that nothing is ever summed across a vector. Two ways to count the differing bits of a
row x and 128 columns w, told apart by the dtype of the packed weights:

    popcount  int64: pop(x ^ w) of whole words, where the processor counts the bits of a vector
              (AVX-512 VPOPCNTDQ)
    table     uint8: four bits at a time. The number of bits in which a half byte of x differs from
              one of w is an entry of a table of 16, and one byte shuffle (AVX2) looks up 32
              columns: half the instructions of counting bits by shuffles after an exclusive or
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

COLUMNS = 128  # of a tile
STEPS = 2  # half bytes that a turn of the table's innermost loop takes
LANES = 8  # words of a 64 byte vector
VECTORS = 4  # of accumulators in a row of a tile
WORDS_ACROSS = LANES * VECTORS
TABLE_BYTES = 32  # of a vector of looked-up counts
ROWS = 24  # of x at a time: their counts stay in a first-level cache, too
PREPARED = 128 * 1024  # bytes of rows that pass a tile one after the other: in a second-level cache
BLOCKS_AT_A_TIME = 31  # of STEPS half bytes: a byte counts up to 4 * 2 * 31 < 256
WORDS_AT_A_TIME = 64
UNTIL_OVERFLOW = 65472  # bits of a row that a uint16 counts: whole words, below 2^16
NEVER = 2**31 - 1  # a threshold that no sum of columns that are not there reaches

# Entry [x, w]: in how many bits two half bytes differ
DIFFERENCES = np.array([[(x ^ w).bit_count() for w in range(16)] for x in range(16)], np.uint8)

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
    """counts (uint16, one vector after the other) += values, of whichever width."""
    for j, value in enumerate(values):
        kind = ir.VectorType(_SHORT, value.type.count)
        number = b.trunc(value, kind) if value.type.element == _LONG else b.zext(value, kind)
        offset = 2 * j * kind.count
        _store(b, b.add(_load(b, counts, kind, offset, 2), number), counts, offset)


def _popcount_tile(b: ir.IRBuilder, rows: int, x, stride, w, words, tile_words, counts):
    """`rows` rows of words; see `tile_rows`. A tile lies in quarters of 32 columns."""
    part, _, close_parts = _loop(b, _constant(COLUMNS // WORDS_ACROSS), [])
    quarter = b.add(w, b.mul(part, b.mul(tile_words, _constant(8 * WORDS_ACROSS))))
    index, sums, close = _loop(b, words, [_zeros(_WORDS)] * (rows * VECTORS))
    at = b.add(quarter, b.mul(index, _constant(8 * WORDS_ACROSS)))
    columns = [_load(b, at, _WORDS, 8 * LANES * j) for j in range(VECTORS)]
    following = []
    for i in range(rows):
        row = b.add(b.add(x, b.mul(stride, _constant(i))), b.mul(index, _constant(8)))
        word = _splat(b, _load(b, row, _LONG), LANES)
        for j, column in enumerate(columns):
            differing = _call(b, "llvm.ctpop.v8i64", _WORDS, b.xor(word, column))
            following.append(b.add(sums[i * VECTORS + j], differing))
    close(following)
    here = b.add(counts, b.mul(part, _constant(2 * WORDS_ACROSS)))
    for i in range(rows):
        row = b.add(here, _constant(2 * COLUMNS * i))
        _add_counts(b, row, following[i * VECTORS : (i + 1) * VECTORS])
    close_parts([])


def _look_up(b: ir.IRBuilder, tables, code):
    """The table of a half byte of x, twice in a vector, from the address of its code."""
    place = b.add(tables, b.mul(b.zext(_load(b, code, _BYTE), _LONG), _constant(8)))
    half = _load(b, place, _HALF_TABLE)
    twice = ir.Constant(ir.VectorType(_INT, TABLE_BYTES), [*range(16), *range(16)])
    return b.shuffle_vector(half, half, twice)


def _table_tile(b: ir.IRBuilder, rows: int, x, stride, w, blocks, counts, tables):
    """`rows` rows of codes, at most BLOCKS_AT_A_TIME blocks of STEPS codes; see `tile_rows`."""
    index, sums, close = _loop(b, blocks, [_zeros(_COUNTS)] * (rows * VECTORS))
    x = b.add(x, b.mul(index, _constant(STEPS)))
    w = b.add(w, b.mul(index, _constant(STEPS * COLUMNS)))
    for step in range(STEPS):
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


def _tile(rows_of: dict):
    """An intrinsic for as many rows as the weights' dtype has in `rows_of`."""

    @intrinsic
    def tile(typing, weights, x, stride, w, length, tile_length, counts, tables):
        rows = rows_of[weights.dtype]

        def emit(context, b, signature, arguments):
            _, x, stride, w, length, tile_length, counts, tables = arguments
            if weights.dtype == types.uint8:
                _table_tile(b, rows, x, stride, w, length, counts, tables)
            else:
                _popcount_tile(b, rows, x, stride, w, length, tile_length, counts)
            return context.get_dummy_value()

        return types.void(weights, *[types.intp] * 7), emit

    return tile


# counts (rows, COLUMNS) uint16 += the bits in which the rows at x, `stride` bytes apart, differ
# from the columns of the tile at w. x is `length` words (popcount; the whole tile has
# `tile_length`), or `length` blocks of STEPS codes, a code being twice a half byte (table).
ROWS_TOGETHER = {types.uint8: 2, types.int64: 6}
tile_rows = _tile(ROWS_TOGETHER)
tile_row = _tile({types.uint8: 1, types.int64: 1})


def _codes(b: ir.IRBuilder, numbers):
    """A vector of bytes -> twice as many codes: each is twice a half byte, the lower one first."""
    of = lambda value: ir.Constant(numbers.type, [value] * numbers.type.count)  # noqa: E731
    low = b.shl(b.and_(numbers, of(15)), of(1))
    high = b.and_(b.lshr(numbers, of(3)), of(30))
    count = numbers.type.count
    places = [i // 2 + count * (i % 2) for i in range(2 * count)]
    return b.shuffle_vector(low, high, ir.Constant(ir.VectorType(_INT, 2 * count), places))


@intrinsic
def copy(typing, to, source, size):
    """Copy bytes from one address to another."""

    def emit(context, b, signature, arguments):
        to, source, size = arguments
        pointers = [b.inttoptr(address, _BYTE.as_pointer()) for address in (to, source)]
        cgutils.raw_memcpy(b, *pointers, size, 1)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), emit


@intrinsic
def rows_together(typing, weights):
    """How many rows `tile_rows` takes."""

    def emit(context, b, signature, arguments):
        return _constant(ROWS_TOGETHER[weights.dtype])

    return types.intp(weights), emit


@intrinsic
def subtract(typing, counts, planes, sums):
    """COLUMNS int32 at `sums` -= 2 (counts[0] + 2 counts[1] + 4 counts[2] + ...), for all planes.

    A plane's counts are COLUMNS uint16; the next plane's follow.
    """
    vector, lanes = ir.VectorType(_INT, 32), 32

    def emit(context, b, signature, arguments):
        counts, planes, sums = arguments
        last = b.add(counts, b.mul(b.sub(planes, _constant(1)), _constant(2 * COLUMNS)))
        for low in range(0, COLUMNS, lanes):
            index, (total,), close = _loop(b, planes, [_zeros(vector)])
            at = b.sub(last, b.mul(index, _constant(2 * COLUMNS)))
            number = b.zext(_load(b, at, ir.VectorType(_SHORT, lanes), 2 * low, 2), vector)
            total = b.add(b.add(total, total), number)
            close([total])
            before = _load(b, sums, vector, 4 * low, 4)
            _store(b, b.sub(before, b.add(total, total)), sums, 4 * low)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), emit


@intrinsic
def at_least(typing, sums, bounds):
    """The word of [sum >= bound] for 64 int32 at each of the two addresses."""
    vector = ir.VectorType(_INT, 64)

    def emit(context, b, signature, arguments):
        sums, bounds = (_load(b, address, vector, 0, 4) for address in arguments)
        return b.bitcast(b.icmp_signed(">=", sums, bounds), _LONG)

    return types.int64(types.intp, types.intp), emit


@njit(nogil=True)
def length_of(weights):
    """Blocks of STEPS half bytes, or words, in a row."""
    return weights.shape[1] // STEPS if weights.itemsize == 1 else weights.shape[2]


@njit(nogil=True)
def row_bytes(weights):
    """Bytes of a row as `prepare` makes it, in whole cache lines."""
    size = length_of(weights) * (STEPS if weights.itemsize == 1 else 8)
    return (size + 63) // 64 * 64


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


@njit(nogil=True)
def prepare(weights, words, rows, first):
    """words (., planes) uint64 -> rows first, first + 1, ... of rows, as many as planes."""
    size = 16 if weights.itemsize == 1 else 8
    for plane in range(words.shape[1]):
        row = rows.ctypes.data + (first + plane) * rows.strides[0]
        for i in range(words.shape[0]):
            place(weights, words[i, plane], row + i * size)


@njit(nogil=True)
def count(weights, number, rows, tables, counts, start, end):
    """counts (R, COLUMNS) uint16 = the bits in which rows and a tile's columns differ.

    rows (R, .) as `prepare` makes them, of which the blocks (or words) start .. end - 1 count. A
    piece of the tile stays in a first-level cache until all rows have passed.
    """
    counts[:] = 0
    table, length, together = weights.itemsize == 1, length_of(weights), rows_together(weights)
    piece = BLOCKS_AT_A_TIME if table else WORDS_AT_A_TIME
    step, across = (STEPS, STEPS * COLUMNS) if table else (8, 8 * WORDS_ACROSS)
    stride, whole = rows.strides[0], len(counts) // together * together
    for first in range(start, end, piece):
        part = min(piece, end - first)
        w = weights.ctypes.data + number * weights.strides[0] + first * across
        low = rows.ctypes.data + first * step
        for r in range(0, whole, together):
            x, to = low + r * stride, counts.ctypes.data + r * counts.strides[0]
            tile_rows(weights, x, stride, w, part, length, to, tables.ctypes.data)
        for r in range(whole, len(counts)):
            x, to = low + r * stride, counts.ctypes.data + r * counts.strides[0]
            tile_row(weights, x, stride, w, part, length, to, tables.ctypes.data)


@njit(nogil=True)
def sum_up(weights, number, rows, planes, k, tables, counts, sums):
    """sums (R, COLUMNS) int32 = the products of R rows, of `planes` planes each, with a tile."""
    sums[:] = k * ((1 << planes) - 1)
    length = length_of(weights)
    span = UNTIL_OVERFLOW // (4 * STEPS) if weights.itemsize == 1 else UNTIL_OVERFLOW // 64
    for start in range(0, length, span):
        used = counts[: len(sums) * planes]
        count(weights, number, rows, tables, used, start, min(start + span, length))
        for r in range(len(sums)):
            of = used.ctypes.data + r * planes * used.strides[0]
            subtract(of, planes, sums.ctypes.data + r * sums.strides[0])


@njit(nogil=True)
def write(sums, number, thresholds, out, bits):
    """A tile of sums to its columns of out (R, N) int32; or, if there are thresholds, to words.

    thresholds: int32, whole tiles of them, or none; bits (R, words) int64.
    """
    low = number * COLUMNS
    if not len(thresholds):
        for r in range(len(sums)):
            for j in range(min(COLUMNS, out.shape[1] - low)):
                out[r, low + j] = sums[r, j]
        return
    bounds = thresholds.ctypes.data + 4 * low
    for r in range(len(sums)):
        for i in range(min(COLUMNS // 64, bits.shape[1] - low // 64)):
            here = sums.ctypes.data + 4 * (COLUMNS * r + 64 * i)
            bits[r, low // 64 + i] = at_least(here, bounds + 4 * 64 * i)


@njit(nogil=True, cache=True)
def rows_at_a_time(weights, planes):
    """How many rows are prepared at a time."""
    return max(1, PREPARED // (planes * row_bytes(weights)) // ROWS) * ROWS


@njit(nogil=True, cache=True)
def matmul(x, weights, k, tables, thresholds, out, bits, across, first, last):
    """Pieces first .. last - 1 of a product: `rows_at_a_time` rows and one of `across` parts of
    the columns.

    x (M, planes, words) uint64; out (M, N) int32 and bits (M, words) int64, of which one is
    written: see `write`.
    """
    planes, tiles, together = x.shape[1], weights.shape[0], rows_at_a_time(weights, x.shape[1])
    together = min(together, len(x))
    rows = np.empty((together * planes, row_bytes(weights)), np.uint8)
    sums = np.empty((max(1, ROWS // planes), COLUMNS), np.int32)
    counts = np.empty((len(sums) * planes, COLUMNS), np.uint16)
    prepared = -1
    for piece in range(first, last):
        low, part = piece // across * together, piece % across
        high = min(low + together, len(x))
        if prepared != low:
            for r in range(high - low):
                prepare(weights, x[low + r].T, rows, r * planes)
            prepared = low
        for tile in range(tiles * part // across, tiles * (part + 1) // across):
            for r in range(low, high, len(sums)):
                end = min(r + len(sums), high)
                here = sums[: end - r]
                sum_up(weights, tile, rows[(r - low) * planes :], planes, k, tables, counts, here)
                write(here, tile, thresholds, out[r:end], bits[r:end])


@njit(nogil=True, cache=True)
def lines(x, channels, padding, out, first, last):
    """Images first .. last - 1 of x (B, H, W, planes, words) uint64 -> lines of bits.

    out (B, H + 2 padding, words of a line, planes) uint64, of zeros: pixels follow each other
    without a gap, `padding` of them on each side of the image.
    """
    whole, pixel = channels & 63 == 0 and x.shape[3] == 1, 8 * x.shape[4]
    for b in range(first, last):
        for y in range(x.shape[1]):
            if whole:
                line = out.ctypes.data + b * out.strides[0] + (y + padding) * out.strides[1]
                of = x.ctypes.data + b * x.strides[0] + y * x.strides[1]
                copy(line + padding * pixel, of, x.shape[2] * pixel)
                continue
            for z in range(x.shape[2]):
                at = (z + padding) * channels
                copy_bits(x[b, y, z].T, 0, out[b, y + padding], at, channels)


@njit(nogil=True)
def copy_bits(words, start, out, to, bits):
    """OR bits start .. start + bits - 1 of words (., planes) into those of `out` from `to` on."""
    for done in range(0, bits, 64):
        at, shift, left = start + done >> 6, np.uint64(start + done & 63), min(64, bits - done)
        place, up = to + done >> 6, np.uint64(to + done & 63)
        mask = ~np.uint64(0) >> np.uint64(64 - left)
        reaches, enters = shift + np.uint64(left) > 64, up + np.uint64(left) > 64
        for plane in range(words.shape[1]):
            word = words[at, plane] >> shift
            if reaches:
                word |= words[at + 1, plane] << (np.uint64(64) - shift)
            word &= mask
            out[place, plane] |= word << up
            if enters:
                out[place + 1, plane] |= word >> (np.uint64(64) - up)


@njit(nogil=True)
def gather(x, geometry, pixel, words, outside):
    """The signs under the kernel at an output pixel, as words (., planes), 0 off the image.

    x: `lines`. geometry: (channels, kh, kw, stride, padding, H, W, Ho, Wo). Signs follow each other
    without a gap: channel fastest, then kx, then ky.
    outside: set to the taps off the image. Returns how many they are.
    """
    channels, height, width, stride, padding, in_height, in_width, out_height, out_width = geometry
    image, left = divmod(pixel, out_height * out_width)
    top, side = left // out_width * stride, left % out_width * stride
    run = width * channels
    if channels & 63:
        words[:] = 0
        for y in range(height):
            copy_bits(x[image, top + y], side * channels, words, y * run, run)
    else:
        at = x.ctypes.data + image * x.strides[0] + (side * channels >> 6) * x.strides[2]
        size = (run >> 6) * x.strides[2]
        for y in range(height):
            copy(words.ctypes.data + y * size, at + (top + y) * x.strides[1], size)
    missing, top, side = 0, top - padding, side - padding
    if min(top, side) >= 0 and top + height <= in_height and side + width <= in_width:
        return 0
    for tap in range(height * width):
        y, z = top + tap // width, side + tap % width
        if y < 0 or z < 0 or y >= in_height or z >= in_width:
            outside[missing] = tap
            missing += 1
    return missing


@njit(nogil=True, cache=True)
def conv2d(x, weights, tap_sums, geometry, tables, thresholds, out, bits, across, first, last):
    """As `matmul`, for the output pixels of images x, as `lines`, for rows.

    tap_sums (taps, N in whole tiles) int32: a tap off the image was counted as if -1 (or, of
    planes, -255) stood there, so its sum is added back.
    """
    planes, tiles, taps = x.shape[3], weights.shape[0], tap_sums.shape[0]
    k, together = taps * geometry[0], rows_at_a_time(weights, planes)
    pixels = x.shape[0] * geometry[7] * geometry[8]
    together, scale = min(together, pixels), (1 << planes) - 1
    words = np.empty(((k + 63) // 64, planes), np.uint64)
    rows = np.empty((together * planes, row_bytes(weights)), np.uint8)
    sums = np.empty((max(1, ROWS // planes), COLUMNS), np.int32)
    counts = np.empty((len(sums) * planes, COLUMNS), np.uint16)
    outside, missing = np.empty((together, taps), np.int32), np.empty(together, np.int32)
    prepared = -1
    for piece in range(first, last):
        low, part = piece // across * together, piece % across
        high = min(low + together, pixels)
        if prepared != low:
            for r in range(high - low):
                missing[r] = gather(x, geometry, low + r, words, outside[r])
                prepare(weights, words, rows, r * planes)
            prepared = low
        for tile in range(tiles * part // across, tiles * (part + 1) // across):
            for r in range(low, high, len(sums)):
                end = min(r + len(sums), high)
                here = sums[: end - r]
                sum_up(weights, tile, rows[(r - low) * planes :], planes, k, tables, counts, here)
                for i in range(len(here)):
                    for j in range(missing[r - low + i]):
                        lost = tap_sums[outside[r - low + i, j], tile * COLUMNS :]
                        for n in range(COLUMNS):
                            here[i, n] += scale * lost[n]
                write(here, tile, thresholds, out[r:end], bits[r:end])
