"""The nearest binary codes by Hamming distance, exactly, on a CPU; and the same in plain torch.

Codes lie in tiles of 128, multiplied as `xnor_product` does it; similar ones lie in the same tile.
The product of two codes of K bits is K less twice their distance: near codes have large ones.
Of each tile one code, its middle, and the largest distance from it, the radius, are known: by the
triangle inequality no code of the tile is nearer to a query than the middle is, less the radius.
Where that is farther than the best k so far, the tile is skipped; products with all others are
compared with the k-th best while they are in a first-level cache; they are never stored.
"""

from dataclasses import dataclass

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from torch import Tensor

from bnnlib.kernels import compiles, cpu
from bnnlib.kernels.cpu.llvm import splat
from bnnlib.kernels.cpu.parallel_for import in_parts
from bnnlib.kernels.cpu.xnor_product import COLUMNS, DIFFERENCES, prepare, row_shape, sum_up
from bnnlib.kernels.reference import unpack_signs

ROWS = 24  # queries whose products stay in a first-level cache
TOGETHER = 240  # queries that pass over the codes together, so that a tile is read once for them
NONE = 2**62  # above every key


@dataclass(frozen=True, eq=False)
class Codes:
    """Binary codes to search in, made by `pack`."""

    bits: int  # of a code
    words: Tensor  # (N, words of bits) int64, in the order that they were given in
    places: Tensor  # (N,) int32: which of these is the n-th of the tiles
    tiles: Tensor  # the codes as this processor's product wants weights (N, bits)
    middles: Tensor  # likewise one code of every tile
    radii: Tensor  # (tiles,) int32, the largest distance from it


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
def _ones(typing, word):
    """How many bits of a word are 1."""
    return types.int64(types.uint64), lambda context, b, signature, arguments: b.ctpop(*arguments)


@intrinsic
def _lowest(typing, word):
    """The place of the lowest bit that is 1; the word is not 0."""

    def emit(context, b, signature, arguments):
        return b.cttz(arguments[0], ir.IntType(1)(1))

    return types.int64(types.uint64), emit


@njit(nogil=True, cache=True)
def _distances(words, part, middle):
    """From code `middle` to each code of `part`, both places in words (N, .) uint64."""
    distances = np.zeros(len(part), np.int32)
    for i in range(len(part)):
        for j in range(words.shape[1]):
            distances[i] += _ones(words[part[i], j] ^ words[middle, j])
    return distances


def _arrange(words: np.ndarray, part: np.ndarray) -> None:
    """Put similar codes side by side: `part`, places in words, is reordered in place.

    Cut in two by which of two distant codes is nearer, again and again, down to a tile.
    """
    if len(part) <= COLUMNS:
        return
    one = part[_distances(words, part, part[0]).argmax()]
    from_one = _distances(words, part, one)
    from_other = _distances(words, part, part[from_one.argmax()])
    part[:] = part[(from_one - from_other).argsort(kind="stable")]
    half = (len(part) // COLUMNS + 1) // 2 * COLUMNS
    _arrange(words, part[:half])
    _arrange(words, part[half:])


def _tiles(words: Tensor, bits: int) -> Tensor:
    """words (N, .) -> what `cpu.pack_weights` makes of their signs (N, bits)."""
    ((shape, dtype),) = cpu.layout((len(words), bits))
    padded = torch.nn.functional.pad(words, (0, 0, 0, -len(words) % COLUMNS))
    if dtype == torch.int64:
        return padded.view(shape[0], shape[1], shape[3], -1).transpose(2, 3).contiguous()
    halves = padded.view(torch.uint8).unsqueeze(-1) >> torch.tensor([0, 4], dtype=torch.uint8)
    columns = (halves & 15).view(shape[0], COLUMNS, -1).transpose(1, 2)
    return columns[:, : shape[1]].contiguous()


def pack(words: Tensor, bits: int) -> Codes:
    """words (N, words of bits) int64, padded with 0, N >= 1 -> the codes, packed for searching."""
    array = words.contiguous().numpy().view(np.uint64)
    places = np.arange(len(words), dtype=np.int32)
    if not compiles():  # `reference` searches, and wants the words alone
        none = torch.empty(0, dtype=torch.int32)
        return Codes(bits, words, torch.from_numpy(places), none, none, none)
    _arrange(array, places)
    parts = [places[low : low + COLUMNS] for low in range(0, len(places), COLUMNS)]
    middles = [part[len(part) // 2] for part in parts]
    pairs = zip(parts, middles, strict=True)
    radii = [int(_distances(array, part, middle).max()) for part, middle in pairs]
    order = torch.from_numpy(places)
    tiles, centres = _tiles(words[order], bits), _tiles(words[np.array(middles)], bits)
    return Codes(bits, words, order, tiles, centres, torch.tensor(radii, dtype=torch.int32))


# The k best of a query so far are keys, distance * 2^32 + place: a heap, the largest on top. What
# comes to lie below the top is better, and of equal distances that is the lower place.


@njit(nogil=True)
def _replace_top(heap, r, key):
    """The largest key of heap r gives way to a smaller one."""
    at, end = 0, heap.shape[1]
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
    """What is good enough among the products (., COLUMNS) of a query and the tile at `first`."""
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
def _from_middles(middles, rows, bits, tables, counts, sums, near):
    """near (R, tiles or more) = the distances of rows (R, .) from the middle of each tile."""
    for tile in range(len(middles)):
        for low in range(0, len(rows), ROWS):
            some = rows[low : low + ROWS]
            sum_up(middles, tile, some, 1, bits, tables, counts, sums[: len(some)])
            for r in range(len(some)):
                for j in range(COLUMNS):
                    near[low + r, tile * COLUMNS + j] = (bits - sums[r, j]) >> 1


@njit(nogil=True, cache=True)
def _search(tiles, middles, radii, places, bits, queries, k, tables, distances, found, first, last):
    """Queries first .. last - 1 of (Q, words, 1) uint64 against all codes."""
    number, (_, size) = last - first, row_shape(tiles, 1)
    rows, some = np.empty((number, size), np.uint8), np.empty((ROWS, size), np.uint8)
    for r in range(number):
        prepare(tiles, queries[first + r], tables, some, rows, r)
    counts, sums = np.empty((ROWS, COLUMNS), np.uint16), np.empty((ROWS, COLUMNS), np.int32)
    chosen = np.empty(ROWS, np.int64)
    near = np.empty((number, len(middles) * COLUMNS), np.int32)
    _from_middles(middles, rows, bits, tables, counts, sums, near)
    heap = np.full((number, k), NONE)
    nearest = np.empty(number, np.int64)
    for r in range(number):
        nearest[r] = np.argmin(near[r, : len(radii)])
        sum_up(tiles, nearest[r], rows[r : r + 1], 1, bits, tables, counts, sums[:1])
        _take(sums, 0, bits, places, nearest[r] * COLUMNS, heap, r)
    for tile in range(len(tiles)):
        waiting = 0
        for r in range(number):
            if near[r, tile] - radii[tile] <= heap[r, 0] >> 32 and tile != nearest[r]:
                chosen[waiting] = r
                some[waiting] = rows[r]
                waiting += 1
            if waiting == ROWS or (waiting and r == number - 1):
                sum_up(tiles, tile, some[:waiting], 1, bits, tables, counts, sums[:waiting])
                for i in range(waiting):
                    _take(sums, i, bits, places, tile * COLUMNS, heap, chosen[i])
                waiting = 0
    for r in range(number):
        keys = np.sort(heap[r])
        for i in range(k):
            distances[first + r, i], found[first + r, i] = keys[i] >> 32, keys[i] & 0xFFFFFFFF


def search(queries: Tensor, codes: Codes, k: int) -> tuple[Tensor, Tensor]:
    """queries (Q, words of bits) int64 -> of the k nearest codes the distances (Q, k) int32 and
    places (Q, k) int64, nearest first and of equals the lowest place first.
    """
    if not compiles():
        return reference(queries, codes, k)
    distances = torch.empty((len(queries), k), dtype=torch.int32)
    found = torch.empty((len(queries), k), dtype=torch.int64)
    parts = codes.tiles, codes.middles, codes.radii, codes.places
    words = queries.contiguous().numpy().view(np.uint64)[..., None]
    arrays = *(part.numpy() for part in parts), codes.bits, words
    arrays = *arrays, k, DIFFERENCES, distances.numpy(), found.numpy()

    def part(first: int, last: int) -> None:
        for low in range(first, last, TOGETHER):
            _search(*arrays, low, min(low + TOGETHER, last))

    if len(queries):
        in_parts(part, len(queries))
    return distances, found


def reference(queries: Tensor, codes: Codes, k: int) -> tuple[Tensor, Tensor]:
    """As `search`, in plain torch: all distances, sorted."""
    left, right = (unpack_signs(words, codes.bits).double() for words in (queries, codes.words))
    distances = ((codes.bits - left @ right.t()) / 2).to(torch.int32)
    ordered, places = distances.sort(dim=1, stable=True)
    return ordered[:, :k], places[:, :k]
