"""Repeated 3x3 filters: how many there are, and what applying each once a map would save.

A filter of nine signs is one of 512 kinds, and with its inverse one of 256. Counts have the keys of
`analysis.unique_filters`: over a whole layer (`pooled`) or among the filters that read one input
map, summed over the maps (`per_map`), an inverse being another filter or the same (`_merged`).
Only filters that read the same map can share their work; `shared_filters` does that.

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
from torch import Generator, Tensor, nn

from bnnlib.models import CONVNET_CHANNELS, CONVNET_SIDE
from study.train.analysis import FILTER_BITS, filter_codes, filters_of, merge_inverses

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


@dataclass(frozen=True)
class Convolution:
    """A layer of the ConvNet: 3x3, and as many positions as its input has."""

    filters: int
    maps: int
    side: int

    @property
    def operations(self) -> int:
        """Multiply-adds for one image, when every filter is applied."""
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
    """Counts of the network that a run keeps: that of its best epoch."""
    return list(record["history"][record["best_epoch"] - 1]["unique_filters"].values())


def random_counts(layer: Convolution) -> dict[str, float]:
    """Expected counts where every sign is drawn on its own, +1 as often as -1."""
    return _counts(layer, _distinct)


def most_counts(layer: Convolution) -> dict[str, float]:
    """Counts that no weights can exceed."""
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
    """Mean share in %, every layer counting the same, as the paper words it."""
    return fmean(share(count, way) for count in counts)


def weighted_share(counts: Counts, layers: Sequence[Convolution], way: str) -> float:
    """Share of all operations that are left, in %: layers weighted by their operations."""
    weights = [layer.operations for layer in layers]
    return fmean((share(count, way) for count in counts), weights)


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
    """Expected share, in %, of `filters` filters on a map, drawn as often as kinds are in weight.

    weight: (N, C, 3, 3); inverses merged. Where it holds few filters, kinds are missing by chance,
    and the result is too small; `added` counts each kind so many times more, which evens them out.
    """
    codes = merge_inverses(filter_codes(weight)).flatten()
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
