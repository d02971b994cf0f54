"""Repeated 3x3 filters: how many there are, what applying each once a map would save, and doing it.

A filter of nine signs is one of 512 kinds, and with its inverse one of 256. Counts have the keys of
`analysis.unique_filters`: over a whole layer (`pooled`) or among the filters that read one input
map, summed over the maps (`per_map`), an inverse being another filter or the same (`_merged`).
Only filters that read the same map can share their work.

An operation here is what one filter does at one position: XNOR of nine bits, and their count.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, expm1, log1p
from statistics import fmean

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numba import njit
from torch import Generator, Tensor, nn

from bnnlib.analysis import FILTER_BITS, filter_codes, filters_of
from bnnlib.kernels.threads import in_parts
from bnnlib.models import CONVNET_CHANNELS, CONVNET_SIDE
from bnnlib.timing import Side, compare
from bnnlib.xnor import pack_signs, pack_weights, xnor_conv2d

KINDS = 2**FILTER_BITS
WAYS = {
    "pooled": "whole layer",
    "pooled_merged": "whole layer, inverse merged",
    "per_map": "each input map",
    "per_map_merged": "each input map, inverse merged",
}
SHARING = ("per_map", "per_map_merged")  # of filters that read the same map
CLAIMED = "per_map_merged"  # how claims.toml counts
Counts = list[dict[str, float]]  # of each layer, first to last
TOGETHER = 8  # maps whose responses are added up in bytes: 8 x 9 fits one
BLOCK = 256  # positions that `distinct_conv2d` works on at a time
EVERY, DISTINCT, PACKED = "every filter, map by map", "distinct filters, map by map", "packed"


@dataclass(frozen=True)
class Convolution:
    """A layer of the ConvNet: 3x3, and as many positions as its input has."""

    filters: int
    maps: int
    side: int

    @property
    def operations(self) -> int:
        """For one image, when every filter is applied."""
        return self.filters * self.maps * self.side**2


def convolutions(hidden: Sequence[int]) -> list[Convolution]:
    """The convolutions of `models.convnet` with these widths: pairs, pooled after each pair."""
    layers = []
    for stage, (maps, width) in enumerate(pairwise((CONVNET_CHANNELS, *hidden))):
        side = CONVNET_SIDE >> stage
        layers += [Convolution(width, maps, side), Convolution(width, width, side)]
    return layers


def counts_of(network: nn.Module) -> Counts:
    return list(filters_of(network).values())


def best_counts(record: dict) -> Counts:
    """Of the network that a run keeps: that of its best epoch."""
    return list(record["history"][record["best_epoch"] - 1]["unique_filters"].values())


def random_counts(layer: Convolution) -> dict[str, float]:
    """What to expect where every sign is drawn on its own, +1 as often as -1."""
    return _counts(layer, _distinct)


def most_counts(layer: Convolution) -> dict[str, float]:
    """What no weights can exceed."""
    return _counts(layer, min)


def _counts(layer: Convolution, distinct: Callable[[int, int], float]) -> dict[str, float]:
    """distinct: (kinds, filters) -> how many different ones."""
    total, half = layer.filters * layer.maps, KINDS // 2
    return {
        "total": total,
        "pooled": distinct(KINDS, total),
        "pooled_merged": distinct(half, total),
        "per_map": layer.maps * distinct(KINDS, layer.filters),
        "per_map_merged": layer.maps * distinct(half, layer.filters),
    }


def _distinct(kinds: int, filters: int) -> float:
    """kinds (1 - (1 - 1 / kinds)^filters): a kind is missing if each filter is another one."""
    return -kinds * expm1(filters * log1p(-1 / kinds)) if kinds > 1 else float(filters > 0)


def share(count: dict[str, float], way: str) -> float:
    """Distinct filters of a layer in %."""
    return 100 * count[way] / count["total"]


def mean_share(counts: Counts, way: str) -> float:
    """In %, every layer counting the same: as the paper words it."""
    return fmean(share(count, way) for count in counts)


def weighted_share(counts: Counts, layers: Sequence[Convolution], way: str) -> float:
    """In %, each layer weighted by its operations: the share of all that are left."""
    weights = [layer.operations for layer in layers]
    return fmean((share(count, way) for count in counts), weights)


def by_layer(counts: Counts, layers: Sequence[Convolution]) -> pd.DataFrame:
    """Distinct filters in %, a row a layer, then averages: over layers, and, by the ways that can
    share work, over operations."""
    rows = {
        f"{place}: {layer.filters} × {layer.maps}, {layer.side}×{layer.side}": [
            f"{share(count, way):.1f}" for way in WAYS
        ]
        for place, (layer, count) in enumerate(zip(layers, counts, strict=True), start=1)
    }
    rows["mean of the layers"] = [f"{mean_share(counts, way):.1f}" for way in WAYS]
    left = [f"{weighted_share(counts, layers, way):.1f}" for way in SHARING]
    rows["weighted by operations"] = ["", "", *left]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=list(WAYS.values()))
    return frame.reset_index(names="layer: filters × maps, positions")


def overview(groups: dict[str, tuple[Counts, Sequence[Convolution]]]) -> pd.DataFrame:
    """Shares in %, a column a group of filters: means of the layers by all four ways, then what is
    left of the operations where work can be shared."""
    columns = {}
    for name, (counts, layers) in groups.items():
        column = {f"distinct, {WAYS[way]}": f"{mean_share(counts, way):.1f}" for way in WAYS}
        for way in SHARING:
            left = weighted_share(counts, layers, way)
            column[f"operations left, {WAYS[way]}"] = f"{left:.1f} (÷\u00a0{100 / left:.2f})"
        columns[name] = column
    return pd.DataFrame(columns).reset_index(names="in %")


def rest_share(mean: float, first: float, layers: int) -> float:
    """The share that the other layers have where the first one's and the mean are known, in %."""
    return (layers * mean - first) / (layers - 1)


def by_epoch(record: dict, before: Counts) -> pd.DataFrame:
    """Distinct filters in %: a row for each epoch, layer and way; epoch 0 is before training."""
    history = [before, *(list(entry["unique_filters"].values()) for entry in record["history"])]
    rows = [
        (epoch, layer, way, share(count, way))
        for epoch, counts in enumerate(history)
        for layer, count in enumerate(counts, start=1)
        for way in WAYS
    ]
    return pd.DataFrame(rows, columns=["epoch", "layer", "way", "share"])


def extrapolated_share(weight: Tensor, filters: int, added: int = 0) -> float:
    """In %: expected of so many filters on one map, drawn as often as each kind occurs in weight.

    weight: (N, C, 3, 3); inverses merged. Where it holds few filters, kinds are missing by chance,
    and the result is too small; `added` counts each kind so many times more, which evens them out.
    """
    codes = _merged(filter_codes(weight)).flatten()
    times = torch.bincount(codes, minlength=KINDS // 2).double() + added
    missing = (1 - times / times.sum()) ** filters
    return 100 * float((1 - missing).sum()) / filters


def extrapolation(
    weights: Sequence[Tensor], counts: Counts, wider: Sequence[Convolution]
) -> pd.DataFrame:
    """Shares in %, inverses merged: counted on each map; then `extrapolated_share`, as kinds occur
    and with each added once, for the layers' own widths and for those of `wider`."""
    columns = {"counted": [share(count, CLAIMED) for count in counts]}
    for width, numbers in (
        ("own width", [len(weight) for weight in weights]),
        ("the paper's width", [layer.filters for layer in wider]),
    ):
        pairs = list(zip(weights, numbers, strict=True))
        columns[width] = [extrapolated_share(*pair) for pair in pairs]
        columns[f"{width}, evened"] = [extrapolated_share(*pair, added=1) for pair in pairs]
    frame = pd.DataFrame(columns, index=range(1, len(weights) + 1))
    frame.loc["mean"] = frame.mean()
    return frame.round(1).reset_index(names="layer")


def _merged(codes: Tensor) -> Tensor:
    """The lower code of a filter and its inverse, below 256."""
    return torch.minimum(codes, KINDS - 1 - codes)


def signs_of(codes: Tensor) -> Tensor:
    """(...) codes below 512 -> (..., 3, 3) float32 in {-1, +1}: undoes `analysis.filter_codes`."""
    bits = codes.unsqueeze(-1) >> torch.arange(FILTER_BITS) & 1
    return (2.0 * bits - 1).unflatten(-1, (3, 3))


def draw_with_share(layer: Convolution, wanted: float, generator: Generator) -> Tensor:
    """Random filters (N, C, 3, 3) of so few kinds that about `wanted` % differ on each map.

    Inverses are merged; of 256 kinds, the most there are, if `wanted` is out of reach.
    """

    def miss(kinds: int) -> float:
        return abs(100 * _distinct(kinds, layer.filters) / layer.filters - wanted)

    kinds = min(range(1, KINDS // 2 + 1), key=miss)
    some = torch.randperm(KINDS // 2, generator=generator)[:kinds]
    shape = layer.filters, layer.maps
    codes = some[torch.randint(kinds, shape, generator=generator)]
    inverted = torch.randint(2, shape, generator=generator).bool()
    return signs_of(torch.where(inverted, KINDS - 1 - codes, codes))


def tiled(tiles: Tensor) -> np.ndarray:
    """Tiles (T, h, w, ...) of values from 0 to 1 in a square, each with grey lines around it."""
    columns = ceil(len(tiles) ** 0.5)
    rows = -(-len(tiles) // columns)
    height, width = tiles.shape[1] + 1, tiles.shape[2] + 1
    wall = np.full((rows * height + 1, columns * width + 1, *tiles.shape[3:]), 0.6)
    for place, tile in enumerate(tiles):
        top, left = place // columns * height + 1, place % columns * width + 1
        wall[top : top + height - 1, left : left + width - 1] = tile
    return wall


def reference_conv2d(x: Tensor, weight: Tensor, merged: bool = True) -> tuple[Tensor, int]:
    """Each distinct filter once a map, in plain torch -> (sums, applications of a filter to a map).

    x: (B, C, H, W) real; weight: (N, C, 3, 3); sums: (B, N, H, W) in x's type, as of
    conv2d(x, sign(weight), padding=1).
    """
    codes = filter_codes(weight)
    kinds = _merged(codes) if merged else codes
    inverted = torch.where(codes == kinds, 1, -1).to(x.dtype)
    sums, applied = x.new_zeros(len(x), len(weight), *x.shape[2:]), 0
    for channel in range(x.shape[1]):
        distinct, places = kinds[:, channel].unique(return_inverse=True)
        filters = signs_of(distinct)[:, None].to(x.dtype)
        responses = F.conv2d(x[:, channel : channel + 1], filters, padding=1)
        sums += inverted[:, channel, None, None] * responses[:, places]
        applied += len(distinct)
    return sums, applied


@dataclass(frozen=True, eq=False)
class Plan:
    """What to apply to each map, and where each sum finds its parts; maps in whole groups."""

    filters: np.ndarray  # (C, most of a map) codes
    counts: np.ndarray  # (C,) filters applied to a map; 0 for maps that only fill the last group
    places: np.ndarray  # (N, C): 2 i, or 2 i + 1 for the inverse, of a map's filter i
    maps: int


def plan(weight: Tensor, shared: bool = True) -> Plan:
    """For weight (N, C, 3, 3). shared: each distinct filter of a map once, inverses merged; else
    every filter, repeated or not."""
    codes = filter_codes(weight)
    kinds, (outputs, maps) = _merged(codes), codes.shape
    width = -(-maps // TOGETHER) * TOGETHER
    filters, places = np.zeros((width, outputs), np.int64), np.zeros((outputs, width), np.int64)
    counts = np.zeros(width, np.int64)
    for channel, column in enumerate(kinds.T):
        used, place = column, torch.arange(outputs)
        if shared:
            used, place = column.unique(return_inverse=True)
        counts[channel] = len(used)
        filters[channel, : len(used)] = used
        places[:, channel] = 2 * place + (codes[:, channel] != column)
    return Plan(np.ascontiguousarray(filters[:, : counts.max()]), counts, places, maps)


def distinct_conv2d(x: Tensor, plan: Plan) -> Tensor:
    """x (B, C, H, W) int8 in {-1, 0, +1} -> (B, N, H, W) int32: what `reference_conv2d` sums, fast.

    On all threads that torch may use. Raises ValueError for other numbers or another count of maps.
    """
    batch, maps, height, width = x.shape
    if x.dtype != torch.int8 or x.abs().amax() > 1:
        raise ValueError(f"x must be int8 with values -1, 0 and +1, but is {x.dtype}")
    if maps != plan.maps or maps > np.iinfo(np.int16).max // FILTER_BITS:
        raise ValueError(f"the filters are for {plan.maps} maps of at most 3640, but x has {maps}")
    padded = F.pad(x, (1, 1, 1, 1)).transpose(0, 1)
    shifted = [padded[..., i : i + height, j : j + width] for i in range(3) for j in range(3)]
    windows = torch.stack(shifted, 1).flatten(2)  # (C, 9, positions)
    positions = windows.shape[2]
    windows = F.pad(windows, (0, -positions % BLOCK)).unflatten(2, (-1, BLOCK))
    blocks = windows.movedim(2, 0).contiguous().numpy()
    sums = np.zeros((len(blocks), len(plan.places), BLOCK), np.int16)
    arrays = blocks, plan.filters, plan.counts, plan.places, sums
    in_parts(lambda first, last: _sum_blocks(*arrays, first, last), len(blocks))
    found = torch.from_numpy(sums).transpose(0, 1).flatten(1)[:, :positions]
    return found.unflatten(1, (batch, height, width)).transpose(0, 1).to(torch.int32)


@njit(nogil=True, cache=True)
def _respond(windows, filters, thirds, responses):
    """windows (9, block) of a map -> responses (2 filters, block): each filter's, then -1 times it.

    thirds: room for what the eight possible rows of a filter make of each row of a window.
    """
    for row in range(3):
        for code in range(8):
            a, b, c = windows[3 * row], windows[3 * row + 1], windows[3 * row + 2]
            at, bt, ct = 2 * (code & 1) - 1, (code & 2) - 1, (code >> 1 & 2) - 1
            third = thirds[row, code]
            for p in range(len(third)):
                third[p] = at * a[p] + bt * b[p] + ct * c[p]
    for i in range(len(filters)):
        top, middle, bottom = filters[i] & 7, filters[i] >> 3 & 7, filters[i] >> 6
        a, b, c = thirds[0, top], thirds[1, middle], thirds[2, bottom]
        own, inverse = responses[2 * i], responses[2 * i + 1]
        for p in range(len(own)):
            own[p] = a[p] + b[p] + c[p]
            inverse[p] = -a[p] - b[p] - c[p]


@njit(nogil=True, cache=True)
def _sum_blocks(windows, filters, counts, places, sums, first, last):
    """Blocks first .. last - 1 of sums (blocks, N, block) from windows (blocks, C, 9, block)."""
    block = windows.shape[3]
    thirds = np.empty((3, 8, block), np.int8)
    parts = np.zeros((TOGETHER, 2 * filters.shape[1], block), np.int8)
    for i in range(first, last):
        for start in range(0, len(counts), TOGETHER):
            for j in range(TOGETHER):
                used = filters[start + j, : counts[start + j]]
                if len(used):
                    _respond(windows[i, start + j], used, thirds, parts[j])
                else:
                    parts[j, 0] = 0
            for n in range(len(places)):
                at = places[n, start : start + TOGETHER]
                a, b, c, d = parts[0, at[0]], parts[1, at[1]], parts[2, at[2]], parts[3, at[3]]
                e, f, g, h = parts[4, at[4]], parts[5, at[5]], parts[6, at[6]], parts[7, at[7]]
                out = sums[i, n]
                for p in range(block):
                    out[p] += np.int8(a[p] + b[p] + c[p] + d[p] + e[p] + f[p] + g[p] + h[p])


def race(weight: Tensor, x: Tensor, seconds: float) -> dict:
    """The same sums three ways, timed in turn: packed, and map by map with every filter or with the
    distinct ones. Each begins with x (B, C, H, W) as it likes it best: words, or int8.

    Median ms by side (`PACKED`, `EVERY`, `DISTINCT`), the least number of blocks timed, and whether
    all were equal to torch's float64 convolution, and so was `reference_conv2d`.
    """
    signs = torch.where(weight >= 0, 1.0, -1.0).double()
    wanted = F.conv2d(x.double(), signs, padding=1).to(torch.int32)
    threads = torch.get_num_threads()
    bytes_of = x.to(torch.int8)
    words, packed = pack_signs(bytes_of.movedim(1, -1)), pack_weights(weight)
    every, distinct = plan(weight, shared=False), plan(weight)
    calls = {
        PACKED: lambda: xnor_conv2d(words, packed, padding=1).movedim(-1, 1),
        EVERY: lambda: distinct_conv2d(bytes_of, every),
        DISTINCT: lambda: distinct_conv2d(bytes_of, distinct),
    }
    for call in calls.values():
        call()  # compiles, which is not timed
    sides = [Side(name, "int32", call, threads) for name, call in calls.items()]
    rows = compare(sides, lambda _, sums: {"equal": torch.equal(sums, wanted)}, seconds, "cpu")
    plain, _ = reference_conv2d(x.float(), weight)
    equal = all(row["equal"] for row in rows) and torch.equal(plain.to(torch.int32), wanted)
    times = {row["implementation"]: row["ms"]["p50"] for row in rows}
    return {**times, "repeats": min(row["repeats"] for row in rows), "equal": equal}
