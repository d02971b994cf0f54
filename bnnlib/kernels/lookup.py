"""Products with a matrix of signs on the CPU, by table lookup. Numba with LLVM vectors.

A row of signs times a real matrix is a sum of rows with signs. Four rows have only 16 signed sums;
they are made once, in a table, and every output then adds one table entry where a multiplication
would take four multiply-adds (the "method of the Four Russians"). Nothing is rounded to fewer bits:
float32 sums stay float32 sums, in another order, and int16 sums are exact.

Two products cover forward and backward of dense layers and convolutions:

    shifted   out[k, p] = sum over t, r of S[t, r, k] X[r, p + shift[t]]   lanes are positions p
    gathered  out[t, k, n] = sum over p of S[p + shift[t], k] G[p, n]      lanes are outputs n

Every output is summed by one thread in one order: results don't depend on the number of threads.
"""

from itertools import product

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

VECTOR_BYTES = 32  # LLVM cuts or joins vectors to the width of the processor
VECTORS = 4
ENTRY_BYTES = VECTORS * VECTOR_BYTES  # a tile of table entries: 32 float32 or 64 int16 lanes
SIGNS = list(product((-1, 1), repeat=4))  # code -> digits; the first row's digit is the slowest
TRITS = list(product((-1, 0, 1), repeat=3))
TABLE_BYTES = 20 * 1024  # of tables at a time: they stay in a first-level cache
LONE_TABLE_BYTES = 56 * 1024  # without taps: fewer steps share a pass over the sums, so more tables
ROWS = 1024  # of sums at a time: they stay in a second-level cache
TILES_TOGETHER = 4  # finished before they are written, in `gathered`

_BYTE, _INT, _LONG = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_VECTOR_OF = {
    types.float32: ir.VectorType(ir.FloatType(), VECTOR_BYTES // 4),
    types.int16: ir.VectorType(ir.IntType(16), VECTOR_BYTES // 2),
}


def _constant(value: int) -> ir.Constant:
    return ir.Constant(_LONG, value)


def _at(b: ir.IRBuilder, address, kind: ir.Type, offset: int = 0):
    """The address (an integer) plus bytes, as a pointer to `kind`."""
    return b.inttoptr(b.add(address, _constant(offset)), kind.as_pointer())


def _adder(b: ir.IRBuilder, vector: ir.VectorType):
    return b.fadd if isinstance(vector.element, ir.FloatType) else b.add


def _loop(b: ir.IRBuilder, count):
    """Open a loop over 0 .. count - 1, count >= 1. Returns its index, and what closes it."""
    before, body, after = b.block, b.append_basic_block("loop"), b.append_basic_block("after")
    b.branch(body)
    b.position_at_end(body)
    index = b.phi(_LONG)
    index.add_incoming(_constant(0), before)

    def close() -> None:
        following = b.add(index, _constant(1))
        index.add_incoming(following, body)
        b.cbranch(b.icmp_signed("<", following, count), body, after)
        b.position_at_end(after)

    return index, close


def _signed_sums(b: ir.IRBuilder, rows: list, digits: list[tuple], zero) -> list:
    """Vectors, and tuples of as many digits in {-1, 0, 1} -> the sum of digit * row for each."""
    add = _adder(b, zero.type)
    if len(rows) == 1:
        minus = b.fsub if add == b.fadd else b.sub
        signed = {-1: minus(zero, rows[0]), 0: zero, 1: rows[0]}
        return [signed[digit] for (digit,) in digits]
    half, sums = len(rows) // 2, []
    for cut in (slice(0, half), slice(half, None)):
        parts = sorted({some[cut] for some in digits})
        sums.append(dict(zip(parts, _signed_sums(b, rows[cut], parts, zero), strict=True)))
    return [add(sums[0][some[:half]], sums[1][some[half:]]) for some in digits]


def _table_builder(digits: list[tuple]):
    """An intrinsic that makes one group's table, of which `like` gives the number type.

    rows: address of the group's first row, `stride` bytes before the next. Entry e goes to
    table + e * entry, `vectors` vectors long.
    """

    @intrinsic
    def build(typing, like, rows, stride, table, entry, vectors):
        vector = _VECTOR_OF[like.dtype]

        def emit(context, b, signature, arguments):
            _, rows, stride, table, entry, vectors = arguments
            index, close = _loop(b, vectors)
            offset = b.mul(index, _constant(VECTOR_BYTES))
            rows, table = b.add(rows, offset), b.add(table, offset)
            loaded = []
            for _ in digits[0]:
                loaded.append(b.load(_at(b, rows, vector), align=2))
                rows = b.add(rows, stride)
            zero = ir.Constant(vector, [0] * vector.count)
            for value in _signed_sums(b, loaded, digits, zero):
                b.store(value, _at(b, table, vector), align=2)
                table = b.add(table, entry)
            close()
            return context.get_dummy_value()

        return types.void(like, *[types.intp] * 5), emit

    return build


build_signs, build_trits = _table_builder(SIGNS), _table_builder(TRITS)


@intrinsic
def add_entries(typing, like, table, entry, offsets, codes, step, row, sums, steps):
    """Add to two rows of sums, ENTRY_BYTES each, one table entry for every step.

    Step s of row r takes the entry at table + offsets[s] + entry * codes[s * step + r * row];
    addresses, strides and offsets are in bytes.
    """
    vector = _VECTOR_OF[like.dtype]
    places = [(r, VECTOR_BYTES * j) for r in range(2) for j in range(VECTORS)]

    def emit(context, b, signature, arguments):
        _, table, entry, offsets, codes, step, row, sums, steps = arguments
        targets = [_at(b, sums, vector, r * ENTRY_BYTES + j) for r, j in places]
        start, before = [b.load(target, align=2) for target in targets], b.block
        index, close = _loop(b, steps)
        body, running = b.block, [b.phi(vector) for _ in places]
        skipped = b.load(_at(b, b.add(offsets, b.mul(index, _constant(4))), _INT), align=4)
        base = b.add(table, b.zext(skipped, _LONG))
        code = b.add(codes, b.mul(index, step))
        entries = []
        for _ in range(2):
            number = b.zext(b.load(_at(b, code, _BYTE), align=1), _LONG)
            entries.append(b.add(base, b.mul(number, entry)))
            code = b.add(code, row)
        sums_now = []
        for phi, first, (r, j) in zip(running, start, places, strict=True):
            value = _adder(b, vector)(phi, b.load(_at(b, entries[r], vector, j), align=2))
            phi.add_incoming(first, before)
            phi.add_incoming(value, body)
            sums_now.append(value)
        close()
        for target, value in zip(targets, sums_now, strict=True):
            b.store(value, target, align=2)
        return context.get_dummy_value()

    return types.void(like, *[types.intp] * 8), emit


@intrinsic
def stream(typing, like, source, target):
    """Write ENTRY_BYTES to a target aligned to vectors, past the caches: nothing reads it soon."""
    vector = _VECTOR_OF[like.dtype]

    def emit(context, b, signature, arguments):
        _, source, target = arguments
        hint = b.module.add_metadata([ir.Constant(_INT, 1)])
        for j in range(VECTORS):
            value = b.load(_at(b, source, vector, j * VECTOR_BYTES), align=2)
            store = b.store(value, _at(b, target, vector, j * VECTOR_BYTES), align=VECTOR_BYTES)
            store.set_metadata("nontemporal", hint)
        return context.get_dummy_value()

    return types.void(like, types.intp, types.intp), emit


@njit(nogil=True)
def aligned(table):
    """The first address in it that starts a cache line.

    Called where the table is used, and not before: Numba frees an array after its last use.
    """
    return (table.ctypes.data + 63) // 64 * 64


@njit(nogil=True, cache=True)
def block_of_groups(groups, taps, lanes, reach, size):
    """(groups whose tables are kept at a time, lanes of an entry) in `shifted`."""
    quarter = ENTRY_BYTES // size // VECTORS
    width = (lanes + reach + quarter - 1) // quarter * quarter
    room = TABLE_BYTES if taps > 1 else LONE_TABLE_BYTES
    return max(1, min(groups, room // (16 * width * size))), width


@njit(nogil=True, cache=True)
def shifted(planes, start, shifts, codes, step, row, out, first, last):
    """Pieces first .. last - 1 of out (K, P) = the shifted product; K even, P in whole tiles.

    planes (R, .) float32 or int16, R a multiple of 4: position p of plane r is
    planes[r, start + p], and shifted positions lie inside too. codes: the byte of output k in step
    s is codes[s * step + k * row]. Steps run over blocks of groups of four planes, in a block over
    shifts, in a shift over the block's groups: `block_of_groups` says how large a block is.
    A piece is one tile of ROWS outputs; first the first tile's pieces, then the next one's.
    """
    size = planes.itemsize
    lanes, taps, groups = ENTRY_BYTES // size, len(shifts), planes.shape[0] // 4
    left, pieces = -shifts.min(), shifted_pieces(out.shape[0])
    block, width = block_of_groups(groups, taps, lanes, left + shifts.max(), size)
    entry, stride = width * size, planes.strides[0]
    table = np.empty(block * 16 * entry + 64, np.uint8)
    offsets = np.empty(block * taps, np.int32)
    sums = np.empty((min(ROWS, out.shape[0]), lanes), planes.dtype)
    for piece in range(first, last):
        t, low = piece // pieces, piece % pieces * ROWS
        high, base = min(low + ROWS, out.shape[0]), aligned(table)
        sums[: high - low] = 0
        window = planes.ctypes.data + (start + t * lanes - left) * size
        for g in range(0, groups, block):
            count = min(block, groups - g)
            for i in range(count):
                rows = window + (g + i) * 4 * stride
                to = base + i * 16 * entry
                build_signs(planes, rows, stride, to, entry, entry // VECTOR_BYTES)
            for s in range(taps):
                for i in range(count):
                    offsets[s * count + i] = i * 16 * entry + (shifts[s] + left) * size
            here, steps = codes.ctypes.data + g * taps * step, taps * count
            for k in range(low, high, 2):
                to = sums.ctypes.data + (k - low) * ENTRY_BYTES
                add_entries(
                    planes, base, entry, offsets.ctypes.data, here + k * row, step, row, to, steps
                )
        out[low:high, t * lanes : (t + 1) * lanes] = sums[: high - low]


@njit(nogil=True, cache=True)
def shifted_pieces(outputs):
    """Into how many pieces `shifted` cuts a tile of so many outputs."""
    return (outputs + ROWS - 1) // ROWS


@njit(nogil=True, cache=True)
def gathered(grads, codes, start, shifts, group, out, first, last):
    """Tiles of 32 columns first .. last - 1 of out (T, K even, N), the gathered product.

    grads (P, N) float32, N in whole tiles, P a multiple of `group`: 4 for signs, 3 for signs and
    zeros. codes (., K) uint8: for signs, row start + p holds the codes of rows p to p + 3, whatever
    p; for signs and zeros, row start + g those of group g. Several tiles are finished before they
    are written, because memory is slow where short pieces lie far apart.
    """
    rows, lanes = len(shifts) * out.shape[1], ENTRY_BYTES // 4
    sums = np.empty((TILES_TOGETHER, min(rows, ROWS), lanes), np.float32)
    for t in range(first, last, TILES_TOGETHER):
        tiles = min(TILES_TOGETHER, last - t)
        for low in range(0, rows, ROWS):
            high = min(low + ROWS, rows)
            for i in range(tiles):
                part = sums[i, : high - low]
                gather_tile(grads, codes, start, shifts, group, out.shape[1], t + i, low, part)
            for k in range(high - low):
                to = out.ctypes.data + (low + k) * out.strides[1] + t * ENTRY_BYTES
                for i in range(tiles):
                    stream(grads, sums[i, k:].ctypes.data, to + i * ENTRY_BYTES)


@njit(nogil=True, cache=True)
def gather_tile(grads, codes, start, shifts, group, width, tile, low, sums):
    """Rows low, low + 1, ... of one tile of `gathered`, as many as `sums` (., 32) holds."""
    signs = group == 4
    entries, advance = (16, 4) if signs else (27, 1)
    table_bytes, stride, step = entries * ENTRY_BYTES, grads.strides[0], advance * codes.strides[0]
    groups = grads.shape[0] // group
    block = min(groups, LONE_TABLE_BYTES // table_bytes)
    table = np.empty(block * table_bytes + 64, np.uint8)
    offsets = (np.arange(block) * table_bytes).astype(np.int32)
    sums[:] = 0
    for g in range(0, groups, block):
        count, base = min(block, groups - g), aligned(table)
        for i in range(count):
            rows = grads.ctypes.data + (g + i) * group * stride + tile * ENTRY_BYTES
            to = base + i * table_bytes
            if signs:
                build_signs(grads, rows, stride, to, ENTRY_BYTES, VECTORS)
            else:
                build_trits(grads, rows, stride, to, ENTRY_BYTES, VECTORS)
        for k in range(0, len(sums), 2):
            tap, channel = (low + k) // width, (low + k) % width
            here = codes.ctypes.data + (start + g * advance + shifts[tap]) * codes.strides[0]
            to = sums.ctypes.data + k * ENTRY_BYTES
            at = offsets.ctypes.data
            add_entries(grads, base, ENTRY_BYTES, at, here + channel, step, 1, to, count)
