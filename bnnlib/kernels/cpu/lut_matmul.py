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

import numpy as np
from numba import njit

from bnnlib.kernels.cpu.lut_tables import (
    ENTRY_BYTES,
    OUTPUTS_PER_STEP,
    SIGN_TABLE_BYTES,
    TRIT_TABLE_BYTES,
    VECTOR_BYTES,
    VECTORS_PER_ENTRY,
    add_entries,
    build_signs,
    build_trits,
    stream,
)
from bnnlib.kernels.cpu.transpose import transpose

TABLES_BYTES = 24 * 1024  # of tables at a time: they stay in a first-level cache
SUMS_PER_PIECE = 1152  # rows of sums at a time: they stay in a second-level cache
TILES_PER_WRITE = 4  # finished before they are written, in `gathered`


@njit(nogil=True)
def aligned(memory):
    """The first address in the memory that starts a cache line.

    Call it where the memory is used, and not before: Numba frees an array after its last use.
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
    """Do pieces first .. last - 1 of out (B, H, W, K) float32, the shifted product of side^2 taps.

    images (B, H, W, R) float32 or int16; vectors (2 * strips, 3): of each vector of a strip the
    image, the column, and how many of its lanes count; codes (T * ceil(R / 4), K in whole steps).

    A piece is a strip, from the last row of its images to the first, and as many outputs as there
    are sums for `side` rows: a table serves the outputs above, beside and below it. The sums of
    these rows lie in a ring: row y in place y % side, until it is written and begins anew.
    """
    height = images.shape[1]
    outputs = out.shape[3]
    reach = side // 2
    groups = (images.shape[3] + 3) // 4
    lanes = VECTOR_BYTES // images.itemsize
    pieces = shifted_pieces(outputs, side)
    units = codes.shape[1] // OUTPUTS_PER_STEP
    most = (units + pieces - 1) // pieces * OUTPUTS_PER_STEP
    sums = lines(side * most, images)
    ring = sums.reshape(side, most, -1)
    table = np.empty(TABLES_BYTES + 64, np.uint8)
    pixels = np.empty((4 * groups, VECTORS_PER_ENTRY, lanes + 2 * reach), images.dtype)
    for piece in range(first, last):
        strip = vectors[piece // pieces * VECTORS_PER_ENTRY :][:VECTORS_PER_ENTRY]
        part = piece % pieces
        low = units * part // pieces * OUTPUTS_PER_STEP
        high = units * (part + 1) // pieces * OUTPUTS_PER_STEP
        sums[:] = 0
        pixels[:] = 0
        for y in range(height - 1, -reach - 1, -1):
            if y >= 0:
                lay_out(images, strip, y, pixels)
                add_row(pixels, codes[:, low:high], y, height, table, ring[:, : high - low])
            if y + reach < height:
                done = sums[(y + reach) % side * most :][: min(high, outputs) - low]
                write(done, strip, y + reach, out[:, :, :, low:high])
                done[:] = 0


@njit(nogil=True, cache=True)
def lay_out(images, vectors, y, pixels):
    """Copy what a strip's vectors read in row y to pixels (R or more, VECTORS_PER_ENTRY, lanes).

    The lanes lie between borders. Pixels of a channel lie beside each other; nothing is written for
    those outside the image.
    """
    channels = images.shape[3]
    reach = (pixels.shape[2] - VECTOR_BYTES // images.itemsize) // 2
    for j in range(VECTORS_PER_ENTRY):
        image, column, _ = vectors[j]
        low = max(0, reach - column)
        high = min(pixels.shape[2], images.shape[2] - column + reach)
        source = images[image, y, column - reach + low : column - reach + high]
        transpose(source, pixels[:channels, j, low:high])


@njit(nogil=True, cache=True)
def add_row(pixels, codes, y, height, table, sums):
    """Add what row y of a strip gives to sums (side, K, lanes of an entry): row r in r % side.

    table: memory of the caller, who holds it.
    """
    side = len(sums)
    groups = len(pixels) // 4
    steps = side * groups
    block = TABLES_BYTES // SIGN_TABLE_BYTES
    base = aligned(table)
    step = codes.strides[0]
    for s in range(0, steps, block):
        count = min(block, steps - s)
        for i in range(count):
            shift = side - 1 - (s + i) // groups
            group = (s + i) % groups
            for j in range(VECTORS_PER_ENTRY):
                rows = pixels[4 * group :, j, shift:].ctypes.data
                entry = base + i * SIGN_TABLE_BYTES + j * VECTOR_BYTES
                build_signs(pixels, rows, pixels.strides[0], entry)
        for t in range(side):
            row = y - side // 2 + t
            if 0 <= row < height:
                code = codes[t * steps + s :].ctypes.data
                target = sums[row % side].ctypes.data
                for k in range(0, codes.shape[1], OUTPUTS_PER_STEP):
                    at = target + k * ENTRY_BYTES
                    add_entries(pixels, base, SIGN_TABLE_BYTES, code + k, step, at, count)


@njit(nogil=True, cache=True)
def write(sums, vectors, y, out):
    """Write the lanes of sums (K, lanes of an entry) that count to row y of out (B, H, W, K)."""
    lanes = sums.shape[1] // VECTORS_PER_ENTRY
    for j in range(VECTORS_PER_ENTRY):
        image, column, count = vectors[j]
        source = sums[:, j * lanes : j * lanes + count]
        transpose(source, out[image, y, column : column + count])


@njit(nogil=True, cache=True)
def shifted_pieces(outputs, side):
    """The number of pieces into which `shifted` cuts a strip of `outputs` outputs."""
    return (side * outputs + SUMS_PER_PIECE - 1) // SUMS_PER_PIECE


@njit(nogil=True, cache=True)
def gathered(grads, codes, start, group, out, first, last):
    """Do tiles of 16 columns first .. last - 1 of out (T, K, N): start (T, N) + the product.

    K is whole steps of outputs; grads (groups * group, N) float32, group 4 for signs, 3 for signs
    and zeros; codes (groups, T * K) uint8. Several tiles are finished before they are written,
    because memory is slow where short pieces lie far apart.
    """
    rows = out.shape[0] * out.shape[1]
    lanes = ENTRY_BYTES // 4
    pieces = (rows + SUMS_PER_PIECE - 1) // SUMS_PER_PIECE
    chunk = (rows // OUTPUTS_PER_STEP + pieces - 1) // pieces * OUTPUTS_PER_STEP
    sums = lines(TILES_PER_WRITE * chunk, grads)
    for t in range(first, last, TILES_PER_WRITE):
        tiles = min(TILES_PER_WRITE, last - t)
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
                target = out.ctypes.data + (low + k) * out.strides[1] + t * ENTRY_BYTES
                for i in range(tiles):
                    source = sums.ctypes.data + (i * chunk + k) * ENTRY_BYTES
                    stream(grads, source, target + i * ENTRY_BYTES)


@njit(nogil=True, cache=True)
def gather_tile(grads, codes, group, sums):
    """Add to sums (K, 16) the product of a tile's grads (groups * group, 16): codes (groups, K)."""
    advance = SIGN_TABLE_BYTES if group == 4 else TRIT_TABLE_BYTES
    block = TABLES_BYTES // advance
    table = np.empty(TABLES_BYTES + 64, np.uint8)
    for g in range(0, len(codes), block):
        count = min(block, len(codes) - g)
        base = aligned(table)
        for i in range(count):
            for skip in range(0, ENTRY_BYTES, VECTOR_BYTES):
                rows = grads.ctypes.data + (g + i) * group * grads.strides[0] + skip
                entry = base + i * advance + skip
                if group == 4:
                    build_signs(grads, rows, grads.strides[0], entry)
                else:
                    build_trits(grads, rows, grads.strides[0], entry)
        step = codes.strides[0]
        code = codes.ctypes.data + g * step
        for k in range(0, len(sums), OUTPUTS_PER_STEP):
            target = sums.ctypes.data + k * ENTRY_BYTES
            add_entries(grads, base, advance, code + k, step, target, count)
