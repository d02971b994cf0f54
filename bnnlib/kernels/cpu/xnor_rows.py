"""Rows of signs, or of planes, as the tiles of `xnor_product` read them: their room and blocks.

A row of words stays as it is for tiles of words; for tiles of tables it becomes codes, and several
planes are joined in tables. Rows are cut into blocks, and threads share the blocks.
"""

import numpy as np
from numba import njit

from bnnlib.kernels.cpu.xnor_tables import COLUMNS, PLANES_JOINED, STEPS, join
from bnnlib.kernels.cpu.xnor_tiles import WORD_ROWS, place

ROWS_PER_PASS = 24  # of x that pass a tile: their counts stay in a first-level cache, too
PREPARED_BYTES = 128 * 1024  # of rows that pass a tile in turn: they stay in a second-level cache
TABLE_BYTES = 16  # of a half byte: one for each value that it may differ from

# Functions that allocate nothing need not count references to arrays: that would take a sixth of
# the time of a convolution with few channels.
inner = njit(nogil=True, _nrt=False)


@inner
def length_of(weights):
    """Blocks of STEPS half bytes, or words, in a row."""
    return weights.shape[1] // STEPS if weights.itemsize == 1 else weights.shape[2]


@inner
def joins(weights, planes):
    """Whether the planes of a row are joined in tables."""
    return weights.itemsize == 1 and planes > 1


@inner
def parts_of(weights, planes):
    """(parts in which a row is counted, by how many bits each weighs more than the one before)."""
    return (planes // PLANES_JOINED, PLANES_JOINED) if joins(weights, planes) else (planes, 1)


@inner
def row_shape(weights, planes):
    """(rows for the tiles, bytes of each, in whole cache lines) that `prepare` makes of a row."""
    size = length_of(weights) * (STEPS if weights.itemsize == 1 else 8)
    count = planes
    if joins(weights, planes):
        count = 1
        size *= 2 * TABLE_BYTES
    return count, (size + 63) // 64 * 64


@inner
def prepare(weights, words, tables, codes, rows, number):
    """Write words (., planes) uint64 as row `number` of `rows`, as tiles read it: see `row_shape`.

    codes (planes, bytes) uint8: room for them, where planes are joined.
    """
    planes = words.shape[1]
    size = 16 if weights.itemsize == 1 else 8
    joined = joins(weights, planes)
    stride = codes.strides[0] if joined else rows.strides[0]
    target = codes.ctypes.data if joined else rows.ctypes.data + number * planes * stride
    for plane in range(planes):
        for i in range(words.shape[0]):
            place(weights, words[i, plane], target + plane * stride + i * size)
    if joined:
        row = rows.ctypes.data + number * rows.strides[0]
        upper = codes.ctypes.data + PLANES_JOINED * codes.strides[0]
        for i in range(weights.shape[1]):
            join(codes.ctypes.data + i, codes.strides[0], tables.ctypes.data, row + 32 * i)
            join(upper + i, codes.strides[0], tables.ctypes.data, row + 32 * i + 16)


@njit(nogil=True, cache=True)
def rows_at_a_time(weights, planes):
    """The largest number of rows that are prepared at a time."""
    count, size = row_shape(weights, planes)
    return max(1, PREPARED_BYTES // (count * size) // ROWS_PER_PASS) * ROWS_PER_PASS


@inner
def block_start(rows, blocks, number):
    """The row that begins a block: they have as many rows as each other, but for WORD_ROWS."""
    return min((rows + WORD_ROWS - 1) // WORD_ROWS * number // blocks * WORD_ROWS, rows)


@inner
def longest_block(rows, blocks):
    """The largest number of rows that a block may have."""
    return min(((rows + WORD_ROWS - 1) // WORD_ROWS + blocks - 1) // blocks * WORD_ROWS, rows)


@njit(nogil=True)
def room(weights, planes, most):
    """Room for `most` prepared rows, for codes, and for the counts and sums of those at a tile."""
    count, size = row_shape(weights, planes)
    parts, _ = parts_of(weights, planes)
    rows = np.empty((most * count, size), np.uint8)
    codes = np.empty((planes, size), np.uint8)
    sums = np.empty((max(1, ROWS_PER_PASS // parts), COLUMNS), np.int32)
    counts = np.empty((len(sums) * parts, COLUMNS), np.uint16)
    return rows, codes, counts, sums
