"""Binary products on the CPU: rows of signs, or of planes, with tiles of 128 columns of signs.

`xnor_rows` says what rows are, `xnor_tiles` what tiles are; it has the innermost loops, too. Here
is what surrounds them.
"""

import numpy as np
from numba import njit

from bnnlib.kernels.cpu.thread_pool import begin, finish, next_task
from bnnlib.kernels.cpu.word_counts import WORDS_ACROSS
from bnnlib.kernels.cpu.xnor_rows import (
    block_start,
    inner,
    joins,
    length_of,
    longest_block,
    parts_of,
    prepare,
    room,
    row_shape,
)
from bnnlib.kernels.cpu.xnor_tables import (
    CODE_ROWS,
    COLUMNS,
    PLANES_JOINED,
    STEPS,
    add_row,
    add_rows,
    joined_row,
)
from bnnlib.kernels.cpu.xnor_tiles import (
    WORD_ROWS,
    at_least,
    move,
    subtract,
    subtract_planes,
    subtract_row,
    subtract_rows,
)

BLOCKS_PER_PASS = 15  # of STEPS half bytes: a byte counts up to 4 * 4 * 15 < 256
WORDS_PER_PASS = 64
BITS_UNTIL_OVERFLOW = 65472  # of a row that a uint16 counts: whole words, below 2^16
JOINED_WEIGHT = 15  # of four planes
NEVER = 2**31 - 1  # a threshold that no sum of columns that are not there reaches

# Entry [x, w]: in how many bits two half bytes differ
DIFFERENCES = np.array([[(x ^ w).bit_count() for w in range(16)] for x in range(16)], np.uint8)


@inner
def subtract_words(weights, number, rows, planes, sums):
    """Subtract twice the bits in which rows of words and a tile's columns differ from their sums.

    sums (R, COLUMNS) int32. A piece of a quarter of the tile stays in a first-level cache until all
    rows have passed.
    """
    length = weights.shape[2]
    for quarter in range(weights.shape[1]):
        w = weights.ctypes.data + number * weights.strides[0] + quarter * weights.strides[1]
        columns = 4 * WORDS_ACROSS * quarter
        for first in range(0, length, WORDS_PER_PASS):
            words = min(WORDS_PER_PASS, length - first)
            x = rows.ctypes.data + 8 * first
            piece = w + first * weights.strides[2]
            if planes > 1:
                subtract_planes_of(x, rows.strides[0], piece, words, planes, sums, columns)
            else:
                subtract_all_rows(x, rows.strides[0], piece, words, sums, columns)


@inner
def subtract_planes_of(x, stride, w, words, planes, sums, columns):
    """Do `subtract_words` for rows of planes at x and a piece of a tile at w, `words` words long.

    columns: bytes of a row of sums before the piece's.
    """
    target = sums.ctypes.data + columns
    for r in range(len(sums)):
        for low in range(0, planes, PLANES_JOINED):
            row = x + (r * planes + low) * stride
            subtract_planes(row, stride, w, words, low + 1, target + r * sums.strides[0])


@inner
def subtract_all_rows(x, stride, w, words, sums, columns):
    """Do `subtract_words` for rows of signs at x and a piece of a tile at w, as above."""
    target = sums.ctypes.data + columns
    whole = len(sums) // WORD_ROWS * WORD_ROWS
    for r in range(0, whole, WORD_ROWS):
        subtract_rows(x + r * stride, stride, w, words, target + r * sums.strides[0])
    for r in range(whole, len(sums)):
        subtract_row(x + r * stride, stride, w, words, target + r * sums.strides[0])


@inner
def count(weights, number, rows, tables, counts, start, end):
    """Count the bits in which rows of codes and a tile's columns differ.

    counts (R, COLUMNS) uint16 is overwritten; rows (R, .) as `prepare` makes them, of which the
    blocks start .. end - 1 count. A piece of the tile stays in a first-level cache until all rows
    have passed.
    """
    counts[:] = 0
    stride = rows.strides[0]
    whole = len(counts) // CODE_ROWS * CODE_ROWS
    for first in range(start, end, BLOCKS_PER_PASS):
        part = min(BLOCKS_PER_PASS, end - first)
        w = weights.ctypes.data + number * weights.strides[0] + first * STEPS * COLUMNS
        x = rows.ctypes.data + first * STEPS
        for r in range(0, whole, CODE_ROWS):
            at = counts.ctypes.data + r * counts.strides[0]
            add_rows(x + r * stride, stride, w, part, at, tables.ctypes.data)
        for r in range(whole, len(counts)):
            at = counts.ctypes.data + r * counts.strides[0]
            add_row(x + r * stride, stride, w, part, at, tables.ctypes.data)


@inner
def count_joined(weights, number, rows, counts, start, end):
    """Do what `count` does for rows of joined tables: counts (2 R, COLUMNS)."""
    w = weights.ctypes.data + number * weights.strides[0] + start * STEPS * COLUMNS
    for r in range(len(counts) // 2):
        x = rows.ctypes.data + r * rows.strides[0] + start * STEPS * 2 * 16
        joined_row(x, w, end - start, counts.ctypes.data + 2 * r * counts.strides[0])


@inner
def sum_up(weights, number, rows, planes, k, tables, counts, sums):
    """Set sums (R, COLUMNS) int32 to the products of R rows of `planes` planes each with a tile."""
    sums[:] = k * ((1 << planes) - 1)
    if weights.itemsize > 1:
        subtract_words(weights, number, rows, planes, sums)
        return
    parts, bits = parts_of(weights, planes)
    length = length_of(weights)
    span = BITS_UNTIL_OVERFLOW // (4 * STEPS * (JOINED_WEIGHT if joins(weights, planes) else 1))
    for start in range(0, length, span):
        used = counts[: len(sums) * parts]
        end = min(start + span, length)
        if joins(weights, planes):
            count_joined(weights, number, rows, used, start, end)
        else:
            count(weights, number, rows, tables, used, start, end)
        for r in range(len(sums)):
            counted = used.ctypes.data + r * parts * used.strides[0]
            subtract(counted, parts, bits, sums.ctypes.data + r * sums.strides[0])


@inner
def write(sums, number, thresholds, out, bits):
    """Write a tile of sums to its columns of out (R, N), int32 or float32, or to thresholds' bits.

    thresholds: int32, whole tiles of them, or none; bits (R, words) int64.
    """
    low = number * COLUMNS
    if not len(thresholds):
        whole = low + COLUMNS <= out.shape[1] and out.strides[1] == out.itemsize
        for r in range(len(sums)):
            if whole:
                target = out.ctypes.data + r * out.strides[0] + low * out.itemsize
                move(out, sums.ctypes.data + r * sums.strides[0], target)
                continue
            for j in range(min(COLUMNS, out.shape[1] - low)):
                out[r, low + j] = sums[r, j]
        return
    bounds = thresholds.ctypes.data + 4 * low
    for r in range(len(sums)):
        for i in range(min(COLUMNS // 64, bits.shape[1] - low // 64)):
            word = sums.ctypes.data + 4 * (COLUMNS * r + 64 * i)
            bits[r, low // 64 + i] = at_least(word, bounds + 4 * 64 * i)


@njit(nogil=True, cache=True)
def matmul(x, weights, k, tables, thresholds, out, bits, blocks, across, tasks):
    """Do tasks of a product: one of `blocks` of the rows by one of `across` parts of the columns.

    x (M, planes, words) uint64; out (M, N) int32 and bits (M, words) int64, of which one is
    written: see `write`.
    """
    begin(tasks)
    planes = x.shape[1]
    tiles = weights.shape[0]
    rows, codes, counts, sums = room(weights, planes, longest_block(len(x), blocks))
    stacked = row_shape(weights, planes)[0]
    prepared = -1
    task = next_task(tasks)
    while task >= 0:
        block = task // across
        part = task % across
        low = block_start(len(x), blocks, block)
        high = block_start(len(x), blocks, block + 1)
        if prepared != low:
            for r in range(high - low):
                prepare(weights, x[low + r].T, tables, codes, rows, r)
            prepared = low
        for tile in range(tiles * part // across, tiles * (part + 1) // across):
            for r in range(low, high, len(sums)):
                end = min(r + len(sums), high)
                some = sums[: end - r]
                sum_up(weights, tile, rows[(r - low) * stacked :], planes, k, tables, counts, some)
                write(some, tile, thresholds, out[r:end], bits[r:end])
        finish(tasks)
        task = next_task(tasks)
