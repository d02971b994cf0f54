"""Binary codes packed for searching: tiles of 128 similar ones, each with its middle and radius.

`hamming_search` says what these are for.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numba import njit, types
from numba.extending import intrinsic
from torch import Tensor

from bnnlib.kernels import compiles, cpu
from bnnlib.kernels.cpu.xnor_tables import COLUMNS


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
def _ones(typing, word):
    """The number of bits of a word that are 1."""
    return types.int64(types.uint64), lambda context, b, signature, arguments: b.ctpop(*arguments)


@njit(nogil=True, cache=True)
def _distances(words, part, middle):
    """The distances of code `middle` from each code of `part`: places in words (N, .) uint64."""
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
    """Pack words (N, .) as `cpu.pack_weights` packs their signs (N, bits)."""
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
    if not compiles():  # `hamming_search.reference` wants the words alone
        none = torch.empty(0, dtype=torch.int32)
        return Codes(bits, words, torch.from_numpy(places), none, none, none)
    _arrange(array, places)
    parts = [places[low : low + COLUMNS] for low in range(0, len(places), COLUMNS)]
    middles = [part[len(part) // 2] for part in parts]
    pairs = zip(parts, middles, strict=True)
    radii = [int(_distances(array, part, middle).max()) for part, middle in pairs]
    order = torch.from_numpy(places)
    tiles = _tiles(words[order], bits)
    centres = _tiles(words[np.array(middles)], bits)
    return Codes(bits, words, order, tiles, centres, torch.tensor(radii, dtype=torch.int32))
