"""The nearest binary codes by Hamming distance, exactly, on a CPU; and the same in plain torch.

Codes lie in tiles of 128, multiplied as `xnor_product` does it; similar ones lie in the same tile.
The product of two codes of K bits is K less twice their distance: near codes have large ones.
Each tile has a middle, one of its codes, and a radius, the largest distance from it: by the
triangle inequality no code of the tile is nearer to a query than the middle is, less the radius.
If that is farther than the best k so far, the tile is skipped; products with all others are
compared with the k-th best while they are in a first-level cache; they are never stored.
"""

from typing import NamedTuple

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from torch import Tensor

from bnnlib.kernels import compiles
from bnnlib.kernels.cpu.hamming_codes import Codes
from bnnlib.kernels.cpu.llvm import splat
from bnnlib.kernels.cpu.parallel_for import in_parts
from bnnlib.kernels.cpu.xnor_product import DIFFERENCES, sum_up
from bnnlib.kernels.cpu.xnor_rows import prepare, row_shape
from bnnlib.kernels.cpu.xnor_tables import COLUMNS
from bnnlib.kernels.reference import unpack_signs

QUERIES_PER_TILE = 24  # at a time: their products stay in a first-level cache
QUERIES_PER_PASS = 240  # over the codes, so that a tile is read once for them
NO_KEY = 2**62  # above every key


class _Index(NamedTuple):
    """Codes for the kernels: the arrays of `Codes`, and the table of differing bits."""

    tiles: np.ndarray
    middles: np.ndarray
    radii: np.ndarray
    places: np.ndarray
    bits: int
    tables: np.ndarray


@intrinsic
def _at_least(typing, sums, least):
    """The word of [sum >= least] for 64 int32 at an address."""
    vector = ir.VectorType(ir.IntType(32), 64)

    def emit(context, b, signature, arguments):
        address, least = arguments
        found = b.load(b.inttoptr(address, vector.as_pointer()), align=4)
        return b.bitcast(b.icmp_signed(">=", found, splat(b, least, 64)), ir.IntType(64))

    return types.uint64(types.intp, types.int32), emit


@intrinsic
def _lowest(typing, word):
    """The place of the lowest bit that is 1; the word is not 0."""

    def emit(context, b, signature, arguments):
        return b.cttz(arguments[0], ir.IntType(1)(1))

    return types.int64(types.uint64), emit


# The k best of a query so far are keys, distance * 2^32 + place: a heap, the largest on top. What
# comes to lie below the top is better, and of equal distances that is the lower place.


@njit(nogil=True)
def _replace_top(heap, r, key):
    """Replace the largest key of heap r by a smaller one."""
    at = 0
    end = heap.shape[1]
    while 2 * at + 1 < end:
        child = 2 * at + 1
        if child + 1 < end and heap[r, child + 1] > heap[r, child]:
            child += 1
        if heap[r, child] <= key:
            break
        heap[r, at] = heap[r, child]
        at = child
    heap[r, at] = key


@njit(nogil=True)
def _take(sums, row, bits, places, first, heap, r):
    """Put the near codes among the products (., COLUMNS) of a query and a tile into its heap.

    first: the tile's first place; row, r: the query's row of sums, and its heap.
    """
    for half in range(0, min(COLUMNS, len(places) - first), 64):
        least = np.int32(bits - 2 * min(heap[r, 0] >> 32, bits))
        near = _at_least(sums.ctypes.data + 4 * (row * COLUMNS + half), least)
        while near:
            column = half + _lowest(near)
            near &= near - np.uint64(1)
            if first + column < len(places):  # else it pads the last tile
                distance = np.int64(bits - sums[row, column]) >> 1
                key = distance << 32 | np.int64(places[first + column])
                if key < heap[r, 0]:
                    _replace_top(heap, r, key)


@njit(nogil=True)
def _from_middles(index, rows, counts, sums):
    """The distances of rows (R, .) from the middle of each tile, (R, tiles or more) int32."""
    middles = index.middles
    bits = index.bits
    near = np.empty((len(rows), len(middles) * COLUMNS), np.int32)
    for tile in range(len(middles)):
        for low in range(0, len(rows), QUERIES_PER_TILE):
            some = rows[low : low + QUERIES_PER_TILE]
            sum_up(middles, tile, some, 1, bits, index.tables, counts, sums[: len(some)])
            for r in range(len(some)):
                for j in range(COLUMNS):
                    near[low + r, tile * COLUMNS + j] = (bits - sums[r, j]) >> 1
    return near


@njit(nogil=True)
def _take_tile(index, tile, rows, counts, sums, heap, chosen):
    """Multiply rows (R, .) with a tile and put its near codes into the heaps chosen[:R]."""
    sum_up(index.tiles, tile, rows, 1, index.bits, index.tables, counts, sums[: len(rows)])
    for i in range(len(rows)):
        _take(sums, i, index.bits, index.places, tile * COLUMNS, heap, chosen[i])


@njit(nogil=True)
def _seed(index, rows, near, counts, sums, heap):
    """Fill the heaps from the tile whose middle is nearest; return that tile for each row (R,)."""
    nearest = np.empty(len(rows), np.int64)
    chosen = np.empty(1, np.int64)
    for r in range(len(rows)):
        nearest[r] = np.argmin(near[r, : len(index.radii)])
        chosen[0] = r
        _take_tile(index, nearest[r], rows[r : r + 1], counts, sums, heap, chosen)
    return nearest


@njit(nogil=True)
def _scan(index, rows, some, near, nearest, counts, sums, heap):
    """Search all tiles that may hold nearer codes, but for those that `_seed` searched.

    some (QUERIES_PER_TILE, .): memory for the rows that wait for a tile.
    """
    chosen = np.empty(len(some), np.int64)
    for tile in range(len(index.tiles)):
        waiting = 0
        for r in range(len(rows)):
            if near[r, tile] - index.radii[tile] <= heap[r, 0] >> 32 and tile != nearest[r]:
                chosen[waiting] = r
                some[waiting] = rows[r]
                waiting += 1
            if waiting == len(some) or (waiting and r == len(rows) - 1):
                _take_tile(index, tile, some[:waiting], counts, sums, heap, chosen)
                waiting = 0


@njit(nogil=True)
def _write(heap, distances, places):
    """Write the keys of each heap, sorted, as distances and places (R, k)."""
    for r in range(len(heap)):
        keys = np.sort(heap[r])
        for i in range(len(keys)):
            distances[r, i] = keys[i] >> 32
            places[r, i] = keys[i] & 0xFFFFFFFF


@njit(nogil=True, cache=True)
def _search(index, queries, k, distances, places, first, last):
    """Search queries first .. last - 1 of (Q, words, 1) uint64 among all codes."""
    number = last - first
    _, size = row_shape(index.tiles, 1)
    rows = np.empty((number, size), np.uint8)
    some = np.empty((QUERIES_PER_TILE, size), np.uint8)
    for r in range(number):
        prepare(index.tiles, queries[first + r], index.tables, some, rows, r)
    counts = np.empty((QUERIES_PER_TILE, COLUMNS), np.uint16)
    sums = np.empty((QUERIES_PER_TILE, COLUMNS), np.int32)
    heap = np.full((number, k), NO_KEY)
    near = _from_middles(index, rows, counts, sums)
    nearest = _seed(index, rows, near, counts, sums, heap)
    _scan(index, rows, some, near, nearest, counts, sums, heap)
    _write(heap, distances[first:last], places[first:last])


def search(queries: Tensor, codes: Codes, k: int) -> tuple[Tensor, Tensor]:
    """queries (Q, words of bits) int64 -> distances (Q, k) int32 and places (Q, k) int64.

    They are those of the k nearest codes, nearest first, and of equals the lowest place first.
    """
    if not compiles():
        return reference(queries, codes, k)
    distances = torch.empty((len(queries), k), dtype=torch.int32)
    found = torch.empty((len(queries), k), dtype=torch.int64)
    index = _Index(
        codes.tiles.numpy(),
        codes.middles.numpy(),
        codes.radii.numpy(),
        codes.places.numpy(),
        codes.bits,
        DIFFERENCES,
    )
    words = queries.contiguous().numpy().view(np.uint64)[..., None]
    out = distances.numpy(), found.numpy()

    def part(first: int, last: int) -> None:
        for low in range(first, last, QUERIES_PER_PASS):
            _search(index, words, k, *out, low, min(low + QUERIES_PER_PASS, last))

    if len(queries):
        in_parts(part, len(queries))
    return distances, found


def reference(queries: Tensor, codes: Codes, k: int) -> tuple[Tensor, Tensor]:
    """`search` in plain torch: all distances, sorted."""
    left, right = (unpack_signs(words, codes.bits).double() for words in (queries, codes.words))
    distances = ((codes.bits - left @ right.t()) / 2).to(torch.int32)
    ordered, places = distances.sort(dim=1, stable=True)
    return ordered[:, :k], places[:, :k]
