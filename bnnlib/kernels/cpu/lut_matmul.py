"""Products with a matrix of signs on the CPU, by table lookup. Numba with LLVM vectors.

A row of signs times a real matrix is a sum of rows with signs. Four rows have only 16 signed sums;
they are made once, in a table, and every output then adds one table entry where a multiplication
would take four multiply-adds (the "method of the Four Russians"). Nothing is rounded to fewer bits:
float32 sums stay float32 sums, in another order, and int16 sums are exact.

Two products cover forward and backward of dense layers and convolutions:

    shifted   out[p, k] = sum over t, r of S[t, r, k] X[p - shift[t], r]   lanes are positions p
    gathered  out[t, k, n] = sum over p of S[p + shift[t], k] G[p, n]      lanes are outputs n

Both walk over steps, a table each, as many at a time as stay in a first-level cache. An entry is a
cache line, and what a tap shifts is read in making the table: looked up, nothing is out of line.
Every output is summed by one thread in one order: results don't depend on the number of threads.
"""

from itertools import product

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from bnnlib.kernels.cpu.llvm import BYTE, INT, LONG, SHORT, constant, load, loop, store, zeros
from bnnlib.kernels.cpu.transpose import transpose

VECTOR_BYTES = 32  # LLVM cuts or joins vectors to the width of the processor
VECTORS = 2
ENTRY_BYTES = VECTORS * VECTOR_BYTES  # of a table: a tile of 16 float32 or 32 int16 lanes
TOGETHER = 4  # outputs that take a step at a time
SCALE = 8  # codes are kept times this, which a processor's addressing undoes
SIGNS = list(product((-1, 1), repeat=4))  # code -> digits; the first row's digit is the slowest
TRITS = list(product((-1, 0, 1), repeat=3))
SIGN_TABLE, TRIT_TABLE = len(SIGNS) * ENTRY_BYTES, len(TRITS) * ENTRY_BYTES
TABLE_BYTES = 24 * 1024  # of tables at a time: they stay in a first-level cache
ROWS = 1152  # of sums at a time: they stay in a second-level cache
TILES_TOGETHER = 4  # finished before they are written, in `gathered`

_VECTOR_OF = {
    types.float32: ir.VectorType(ir.FloatType(), VECTOR_BYTES // 4),
    types.int16: ir.VectorType(SHORT, VECTOR_BYTES // 2),
}


def _adder(b: ir.IRBuilder, vector: ir.VectorType):
    return b.fadd if isinstance(vector.element, ir.FloatType) else b.add


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
    """An intrinsic that makes one vector of each entry of a table; `like` gives the number type.

    rows: address of the group's first row, `stride` bytes before the next.
    """

    @intrinsic
    def build(typing, like, rows, stride, table):
        vector = _VECTOR_OF[like.dtype]

        def emit(context, b, signature, arguments):
            _, rows, stride, table = arguments
            loaded = []
            for _ in digits[0]:
                loaded.append(load(b, rows, vector))
                rows = b.add(rows, stride)
            for e, value in enumerate(_signed_sums(b, loaded, digits, zeros(vector))):
                store(b, value, table, e * ENTRY_BYTES)
            return context.get_dummy_value()

        return types.void(like, *[types.intp] * 3), emit

    return build


build_signs, build_trits = _table_builder(SIGNS), _table_builder(TRITS)


@intrinsic
def add_entries(typing, like, table, advance, codes, step, sums, steps):
    """Add to TOGETHER rows of sums, ENTRY_BYTES each, one table entry for every step.

    Step s has its table at table + s * advance, and a byte for each row from codes + s * step on;
    addresses and strides are in bytes.
    """
    vector = _VECTOR_OF[like.dtype]
    places = [(r, VECTOR_BYTES * j) for r in range(TOGETHER) for j in range(VECTORS)]

    def emit(context, b, signature, arguments):
        _, table, advance, codes, step, sums, steps = arguments
        start = [load(b, sums, vector, r * ENTRY_BYTES + j) for r, j in places]
        index, running, close = loop(b, steps, start)
        base, code = b.add(table, b.mul(index, advance)), b.add(codes, b.mul(index, step))
        word = load(b, code, INT, align=4)  # loads are scarce, cutting a word is not
        entries = []
        for _ in range(TOGETHER):
            number = b.zext(b.trunc(word, BYTE), LONG)
            entries.append(b.add(base, b.mul(number, constant(ENTRY_BYTES // SCALE))))
            word = b.lshr(word, ir.Constant(INT, 8))
        found = [load(b, entries[r], vector, j) for r, j in places]
        following = [_adder(b, vector)(*pair) for pair in zip(running, found, strict=True)]
        close(following)
        for value, (r, j) in zip(following, places, strict=True):
            store(b, value, sums, r * ENTRY_BYTES + j)
        return context.get_dummy_value()

    return types.void(like, *[types.intp] * 6), emit


@intrinsic
def stream(typing, like, source, target):
    """Write ENTRY_BYTES to a target aligned to vectors, past the caches: nothing reads it soon."""
    vector = _VECTOR_OF[like.dtype]

    def emit(context, b, signature, arguments):
        _, source, target = arguments
        hint = b.module.add_metadata([ir.Constant(INT, 1)])
        for j in range(VECTORS):
            value = load(b, source, vector, j * VECTOR_BYTES)
            written = store(b, value, target, j * VECTOR_BYTES, VECTOR_BYTES)
            written.set_metadata("nontemporal", hint)
        return context.get_dummy_value()

    return types.void(like, types.intp, types.intp), emit


@njit(nogil=True)
def aligned(memory):
    """The first address in it that starts a cache line.

    Called where the memory is used, and not before: Numba frees an array after its last use.
    """
    return (memory.ctypes.data + 63) // 64 * 64


@njit(nogil=True)
def lines(rows, like):
    """Uninitialized (rows, lanes of an entry), each row a cache line, of the type of `like`."""
    lanes = ENTRY_BYTES // like.itemsize
    memory = np.empty((rows + 1) * lanes, like.dtype)
    skip = (64 - memory.ctypes.data % 64) % 64 // like.itemsize
    return memory[skip : skip + rows * lanes].reshape(rows, lanes)


@njit(nogil=True, cache=True)
def shifted(images, vectors, side, codes, out, first, last):
    """Pieces first .. last - 1 of out (B, H, W, K) float32 = the shifted product, side x side taps.

    images (B, H, W, R) float32 or int16; vectors (2 * strips, 3): of each vector of a strip the
    image, the column, and how many of its lanes count; codes (T * ceil(R / 4), K in fours).

    A piece is a strip, from the last row of its images to the first, and as many outputs as there
    are sums for `side` rows: a table serves the outputs above, beside and below it.
    """
    height, outputs, reach = images.shape[1], out.shape[3], side // 2
    groups, lanes = (images.shape[3] + 3) // 4, VECTOR_BYTES // images.itemsize
    pieces, units = shifted_pieces(outputs, side), codes.shape[1] // TOGETHER
    most = (units + pieces - 1) // pieces * TOGETHER
    sums, table = lines(side * most, images), np.empty(TABLE_BYTES + 64, np.uint8)
    pixels = np.empty((4 * groups, VECTORS, lanes + 2 * reach), images.dtype)
    for piece in range(first, last):
        strip, part = vectors[piece // pieces * VECTORS :][:VECTORS], piece % pieces
        low, high = units * part // pieces * TOGETHER, units * (part + 1) // pieces * TOGETHER
        sums[:], pixels[:] = 0, 0
        for y in range(height - 1, -reach - 1, -1):
            if y >= 0:
                lay_out(images, strip, y, pixels)
                own = sums.reshape(side, most, -1)[:, : high - low]
                add_row(pixels, codes[:, low:high], y, height, table, own)
            if y + reach < height:
                done = sums[(y + reach) % side * most :][: min(high, outputs) - low]
                write(done, strip, y + reach, out[:, :, :, low:high])
                done[:] = 0


@njit(nogil=True, cache=True)
def lay_out(images, vectors, y, pixels):
    """What a strip's vectors read in row y -> pixels (R or more, VECTORS, lanes between borders).

    Pixels of a channel lie beside each other. Where there is none, nothing is written.
    """
    channels, reach = images.shape[3], (pixels.shape[2] - VECTOR_BYTES // images.itemsize) // 2
    for j in range(VECTORS):
        image, column, _ = vectors[j]
        low, high = max(0, reach - column), min(pixels.shape[2], images.shape[2] - column + reach)
        source = images[image, y, column - reach + low : column - reach + high]
        transpose(source, pixels[:channels, j, low:high])


@njit(nogil=True, cache=True)
def add_row(pixels, codes, y, height, table, sums):
    """Add what row y of a strip gives to sums (side, K, lanes of an entry): row r in r % side.

    table: memory of the caller, who holds it.
    """
    side, groups, step = len(sums), len(pixels) // 4, codes.strides[0]
    steps, block, base = side * groups, TABLE_BYTES // SIGN_TABLE, aligned(table)
    for s in range(0, steps, block):
        count = min(block, steps - s)
        for i in range(count):
            shift, group = side - 1 - (s + i) // groups, (s + i) % groups
            for j in range(VECTORS):
                rows, to = pixels[4 * group :, j, shift:], base + i * SIGN_TABLE + j * VECTOR_BYTES
                build_signs(pixels, rows.ctypes.data, pixels.strides[0], to)
        for t in range(side):
            row = y - side // 2 + t
            if 0 <= row < height:
                here, to = codes[t * steps + s :].ctypes.data, sums[row % side].ctypes.data
                for k in range(0, codes.shape[1], TOGETHER):
                    at = to + k * ENTRY_BYTES
                    add_entries(pixels, base, SIGN_TABLE, here + k, step, at, count)


@njit(nogil=True, cache=True)
def write(sums, vectors, y, out):
    """The lanes of sums (K, lanes of an entry) that count, to row y of out (B, H, W, K)."""
    lanes = sums.shape[1] // VECTORS
    for j in range(VECTORS):
        image, column, count = vectors[j]
        source = sums[:, j * lanes : j * lanes + count]
        transpose(source, out[image, y, column : column + count])


@njit(nogil=True, cache=True)
def shifted_pieces(outputs, side):
    """Into how many pieces `shifted` cuts a strip of so many outputs."""
    return (side * outputs + ROWS - 1) // ROWS


@njit(nogil=True, cache=True)
def gathered(grads, codes, start, group, out, first, last):
    """Tiles of 16 columns first .. last - 1 of out (T, K in fours, N) = start (T, N) + the product.

    grads (groups * group, N) float32, group 4 for signs, 3 for signs and zeros; codes
    (groups, T * K) uint8. Several tiles are finished before they are written, because memory
    is slow where short pieces lie far apart.
    """
    rows, lanes = out.shape[0] * out.shape[1], ENTRY_BYTES // 4
    pieces = (rows + ROWS - 1) // ROWS
    chunk = (rows // TOGETHER + pieces - 1) // pieces * TOGETHER
    sums = lines(TILES_TOGETHER * chunk, grads)
    for t in range(first, last, TILES_TOGETHER):
        tiles = min(TILES_TOGETHER, last - t)
        for low in range(0, rows, chunk):
            high = min(low + chunk, rows)
            for i in range(tiles):
                part = sums[i * chunk :][: high - low]
                for k in range(high - low):
                    for lane in range(lanes):
                        part[k, lane] = start[(low + k) // out.shape[1], (t + i) * lanes + lane]
                tile = grads[:, (t + i) * lanes : (t + i + 1) * lanes]
                gather_tile(tile, codes[:, low:high], group, part)
            for k in range(high - low):
                to = out.ctypes.data + (low + k) * out.strides[1] + t * ENTRY_BYTES
                for i in range(tiles):
                    source = sums.ctypes.data + (i * chunk + k) * ENTRY_BYTES
                    stream(grads, source, to + i * ENTRY_BYTES)


@njit(nogil=True, cache=True)
def gather_tile(grads, codes, group, sums):
    """Add to sums (K, 16) the product of a tile's grads (groups * group, 16): codes (groups, K)."""
    advance, step = SIGN_TABLE if group == 4 else TRIT_TABLE, codes.strides[0]
    block, table = TABLE_BYTES // advance, np.empty(TABLE_BYTES + 64, np.uint8)
    for g in range(0, len(codes), block):
        count, base = min(block, len(codes) - g), aligned(table)
        for i in range(count):
            for skip in range(0, ENTRY_BYTES, VECTOR_BYTES):
                rows = grads.ctypes.data + (g + i) * group * grads.strides[0] + skip
                to = base + i * advance + skip
                if group == 4:
                    build_signs(grads, rows, grads.strides[0], to)
                else:
                    build_trits(grads, rows, grads.strides[0], to)
        here, to = codes.ctypes.data + g * step, sums.ctypes.data
        for k in range(0, len(sums), TOGETHER):
            add_entries(grads, base, advance, here + k, step, to + k * ENTRY_BYTES, count)
