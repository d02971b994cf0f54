"""Analysis of a network's binary weights and of how they move: sign flips, distinct filters."""

import torch
from torch import Tensor, nn

from bnnlib.layers import BinaryConv2d
from bnnlib.models import binary_layers

FILTER_BITS = 9  # a 3x3 filter of signs is a number below 512


def filter_codes(weight: Tensor) -> Tensor:
    """(out, in, 3, 3) real or binary -> (out, in) int64 in [0, 512): the nine signs as bits."""
    bits = (weight >= 0).flatten(2).long()  # (out, in, 9)
    return (bits << torch.arange(FILTER_BITS, device=weight.device)).sum(2)


def merge_inverses(codes: Tensor) -> Tensor:
    """Codes below 512, any shape -> the lower one of each filter and its inverse, below 256."""
    return torch.minimum(codes, 2**FILTER_BITS - 1 - codes)


def unique_filters(weight: Tensor) -> dict[str, int]:
    """Distinct 3x3 sign filters of a convolution, counted four ways; weight: (out, in, 3, 3).

    `pooled`: over the whole layer; `per_map`: among the filters that read one input map, summed
    over the maps (only these share work: paper, section 3). `_merged`: a filter and its inverse
    are one. `total` is out * in, what the counts are fractions of.
    """
    codes = filter_codes(weight)
    merged = merge_inverses(codes)
    return {
        "total": codes.numel(),
        "pooled": codes.unique().numel(),
        "pooled_merged": merged.unique().numel(),
        "per_map": _distinct_per_column(codes),
        "per_map_merged": _distinct_per_column(merged),
    }


def _distinct_per_column(codes: Tensor) -> int:
    """(out, in) codes -> the number of distinct codes in each column, summed over the columns."""
    seen = torch.zeros(2**FILTER_BITS, codes.shape[1], dtype=torch.bool, device=codes.device)
    return int(seen.scatter_(0, codes, True).sum())


def filters_of(network: nn.Module) -> dict[str, dict[str, int]]:
    """Layer name -> `unique_filters`, for the binary convolutions."""
    return {
        name: unique_filters(layer.weight.detach())
        for name, layer in binary_layers(network).items()
        if isinstance(layer, BinaryConv2d)
    }


def latent_signs(network: nn.Module) -> dict[str, Tensor]:
    """Layer name -> signs of its latent weights, bool."""
    return {name: layer.weight.detach() >= 0 for name, layer in binary_layers(network).items()}


def sign_flips(before: dict[str, Tensor], after: dict[str, Tensor]) -> dict[str, float]:
    """Layer name -> fraction of binary weights whose sign differs."""
    return {name: (before[name] != after[name]).float().mean().item() for name in after}
