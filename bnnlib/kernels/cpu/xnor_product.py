"""Binary products on the CPU: rows of signs, or of planes, with tiles of 128 columns of signs.

`xnor_tiles` says what rows and tiles are and has the innermost loops; here is what surrounds them.
"""

import numpy as np
from numba import njit

from bnnlib.kernels.cpu.thread_pool import begin, draw, finish
from bnnlib.kernels.cpu.word_counts import WORDS_ACROSS
from bnnlib.kernels.cpu.xnor_tiles import (
    CODE_ROWS,
    COLUMNS,
    STEPS,
    TOGETHER,
    WORD_ROWS,
    add_row,
    add_rows,
    at_least,
    join,
    joined_row,
    move,
    place,
    subtract,
    subtract_planes,
    subtract_row,
    subtract_rows,
)

ROWS = 24  # of x at a time: their counts stay in a first-level cache, too
PREPARED = 128 * 1024  # bytes of rows that pass a tile one after the other: in a second-level cache
BLOCKS_AT_A_TIME = 15  # of STEPS half bytes: a byte counts up to 4 * 4 * 15 < 256
WORDS_AT_A_TIME = 64
UNTIL_OVERFLOW = 65472  # bits of a row that a uint16 counts: whole words, below 2^16
WEIGHTS = 15  # of four planes together
NEVER = 2**31 - 1  # a threshold that no sum of columns that are not there reaches

# Functions that allocate nothing need not count references to arrays: that would take a sixth of
# the time of a convolution with few channels.
inner = njit(nogil=True, _nrt=False)

# Entry [x, w]: in how many bits two half bytes differ
DIFFERENCES = np.array([[(x ^ w).bit_count() for w in range(16)] for x in range(16)], np.uint8)


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
    return (planes // TOGETHER, TOGETHER) if joins(weights, planes) else (planes, 1)


@inner
def row_shape(weights, planes):
    """(rows for the tiles, bytes of each, in whole cache lines) that `prepare` makes of a row."""
    size = length_of(weights) * (STEPS if weights.itemsize == 1 else 8)
    count = planes
    if joins(weights, planes):
        count, size = 1, size * 2 * 16
    return count, (size + 63) // 64 * 64


@inner
def prepare(weights, words, tables, codes, rows, number):
    """words (., planes) uint64 -> row `number` as the tiles read it, in `rows`: see `row_shape`.

    codes (planes, bytes) uint8: room for them, where planes are joined.
    """
    planes, size = words.shape[1], 16 if weights.itemsize == 1 else 8
    joined, stride = joins(weights, planes), rows.strides[0]
    to = rows.ctypes.data + number * planes * stride
    if joined:
        to, stride = codes.ctypes.data, codes.strides[0]
    for plane in range(planes):
        for i in range(words.shape[0]):
            place(weights, words[i, plane], to + plane * stride + i * size)
    if joined:
        row = rows.ctypes.data + number * rows.strides[0]
        upper = codes.ctypes.data + TOGETHER * codes.strides[0]
        for i in range(weights.shape[1]):
            join(codes.ctypes.data + i, codes.strides[0], tables.ctypes.data, row + 32 * i)
            join(upper + i, codes.strides[0], tables.ctypes.data, row + 32 * i + 16)


@inner
def subtract_words(weights, number, rows, planes, sums):
    """sums (R, COLUMNS) int32 -= twice the bits in which rows of words and a tile's columns differ.

    A piece of a quarter of the tile stays in a first-level cache until all rows have passed.
    """
    stride, length, whole = rows.strides[0], weights.shape[2], len(sums) // WORD_ROWS * WORD_ROWS
    for quarter in range(weights.shape[1]):
        w = weights.ctypes.data + number * weights.strides[0] + quarter * weights.strides[1]
        to = sums.ctypes.data + 4 * WORDS_ACROSS * quarter
        for first in range(0, length, WORDS_AT_A_TIME):
            part, x = min(WORDS_AT_A_TIME, length - first), rows.ctypes.data + 8 * first
            here = w + first * weights.strides[2]
            if planes > 1:
                for r in range(len(sums)):
                    for low in range(0, planes, TOGETHER):
                        row, target = x + (r * planes + low) * stride, to + r * sums.strides[0]
                        subtract_planes(row, stride, here, part, low + 1, target)
                continue
            for r in range(0, whole, WORD_ROWS):
                subtract_rows(x + r * stride, stride, here, part, to + r * sums.strides[0])
            for r in range(whole, len(sums)):
                subtract_row(x + r * stride, stride, here, part, to + r * sums.strides[0])


@inner
def count(weights, number, rows, tables, counts, start, end):
    """counts (R, COLUMNS) uint16 = the bits in which rows of codes and a tile's columns differ.

    rows (R, .) as `prepare` makes them, of which the blocks start .. end - 1 count. A piece of the
    tile stays in a first-level cache until all rows have passed.
    """
    counts[:] = 0
    stride, whole = rows.strides[0], len(counts) // CODE_ROWS * CODE_ROWS
    for first in range(start, end, BLOCKS_AT_A_TIME):
        part = min(BLOCKS_AT_A_TIME, end - first)
        w = weights.ctypes.data + number * weights.strides[0] + first * STEPS * COLUMNS
        x, to = rows.ctypes.data + first * STEPS, counts.ctypes.data
        for r in range(0, whole, CODE_ROWS):
            at = to + r * counts.strides[0]
            add_rows(x + r * stride, stride, w, part, at, tables.ctypes.data)
        for r in range(whole, len(counts)):
            at = to + r * counts.strides[0]
            add_row(x + r * stride, stride, w, part, at, tables.ctypes.data)


@inner
def count_joined(weights, number, rows, counts, start, end):
    """As `count`, for rows of joined tables: counts (2 R, COLUMNS)."""
    w = weights.ctypes.data + number * weights.strides[0] + start * STEPS * COLUMNS
    for r in range(len(counts) // 2):
        x = rows.ctypes.data + r * rows.strides[0] + start * STEPS * 2 * 16
        joined_row(x, w, end - start, counts.ctypes.data + 2 * r * counts.strides[0])


@inner
def sum_up(weights, number, rows, planes, k, tables, counts, sums):
    """sums (R, COLUMNS) int32 = the products of R rows, of `planes` planes each, with a tile."""
    sums[:] = k * ((1 << planes) - 1)
    if weights.itemsize > 1:
        subtract_words(weights, number, rows, planes, sums)
        return
    parts, bits = parts_of(weights, planes)
    length = length_of(weights)
    span = UNTIL_OVERFLOW // (4 * STEPS * (WEIGHTS if joins(weights, planes) else 1))
    for start in range(0, length, span):
        used, end = counts[: len(sums) * parts], min(start + span, length)
        if joins(weights, planes):
            count_joined(weights, number, rows, used, start, end)
        else:
            count(weights, number, rows, tables, used, start, end)
        for r in range(len(sums)):
            of = used.ctypes.data + r * parts * used.strides[0]
            subtract(of, parts, bits, sums.ctypes.data + r * sums.strides[0])


@inner
def write(sums, number, thresholds, out, bits):
    """A tile of sums to its columns of out (R, N), int32 or float32; with thresholds, to words.

    thresholds: int32, whole tiles of them, or none; bits (R, words) int64.
    """
    low = number * COLUMNS
    if not len(thresholds):
        whole = low + COLUMNS <= out.shape[1] and out.strides[1] == out.itemsize
        for r in range(len(sums)):
            if whole:
                to = out.ctypes.data + r * out.strides[0] + low * out.itemsize
                move(out, sums.ctypes.data + r * sums.strides[0], to)
                continue
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
    """How many rows are prepared at a time, at most."""
    count, size = row_shape(weights, planes)
    return max(1, PREPARED // (count * size) // ROWS) * ROWS


@inner
def start(rows, blocks, number):
    """The row that begins a block: they have as many rows as each other, but for WORD_ROWS."""
    return min((rows + WORD_ROWS - 1) // WORD_ROWS * number // blocks * WORD_ROWS, rows)


@inner
def longest(rows, blocks):
    """Rows of the longest block, at most."""
    return min(((rows + WORD_ROWS - 1) // WORD_ROWS + blocks - 1) // blocks * WORD_ROWS, rows)


@njit(nogil=True)
def room(weights, planes, together):
    """Room for so many prepared rows, for codes, and for the counts and sums of those at a tile."""
    count, size = row_shape(weights, planes)
    parts, _ = parts_of(weights, planes)
    rows = np.empty((together * count, size), np.uint8)
    codes = np.empty((planes, size), np.uint8)
    sums = np.empty((max(1, ROWS // parts), COLUMNS), np.int32)
    return rows, codes, np.empty((len(sums) * parts, COLUMNS), np.uint16), sums


@njit(nogil=True, cache=True)
def matmul(x, weights, k, tables, thresholds, out, bits, blocks, across, pieces):
    """Pieces of a product: one of `blocks` of the rows and one of `across` parts of the columns.

    x (M, planes, words) uint64; out (M, N) int32 and bits (M, words) int64, of which one is
    written: see `write`.
    """
    begin(pieces)
    planes, tiles = x.shape[1], weights.shape[0]
    rows, codes, counts, sums = room(weights, planes, longest(len(x), blocks))
    stacked, prepared = row_shape(weights, planes)[0], -1
    piece = draw(pieces)
    while piece >= 0:
        block, part = piece // across, piece % across
        low, high = start(len(x), blocks, block), start(len(x), blocks, block + 1)
        if prepared != low:
            for r in range(high - low):
                prepare(weights, x[low + r].T, tables, codes, rows, r)
            prepared = low
        for tile in range(tiles * part // across, tiles * (part + 1) // across):
            for r in range(low, high, len(sums)):
                end = min(r + len(sums), high)
                here, of = sums[: end - r], rows[(r - low) * stacked :]
                sum_up(weights, tile, of, planes, k, tables, counts, here)
                write(here, tile, thresholds, out[r:end], bits[r:end])
        finish(pieces)
        piece = draw(pieces)
