"""The networks that can run on bits: the order of their layers, and the sizes between them."""

import math

from torch import nn

from bnnlib.layers import (
    BinaryActivation,
    BinaryConv2d,
    BinaryLinear,
    Dropout,
    MaxPool2x2,
    ScaleInput,
)
from bnnlib.normalization import (
    BatchNorm,
    OrdinaryBatchNorm,
    PrintedShiftBatchNorm,
    Scale,
    ShiftBatchNorm,
)

BINARY = (BinaryLinear, BinaryConv2d)
PASSING = (nn.Flatten, nn.Identity, Dropout, nn.Dropout)  # evaluation computes nothing in them
NORMALIZATIONS = (
    BatchNorm,
    OrdinaryBatchNorm,
    PrintedShiftBatchNorm,
    ShiftBatchNorm,
    Scale,
    nn.Identity,
)
ORDER = (
    "a packed network begins with ScaleInput; then each binary layer is followed by MaxPool2x2 or "
    "not, a normalization of bnnlib and, but for the last, BinaryActivation"
)


def require_order(network: nn.Module) -> None:
    """Raise ValueError, naming the place, unless a network's layers are of these kinds in turn.

    ScaleInput; then for each binary layer itself, perhaps MaxPool2x2 behind a convolution, a
    normalization, and, but for the last, BinaryActivation; Flatten and dropout may stand before any
    binary layer. There are two of them or more, and the last one is dense.
    """
    if not isinstance(network, nn.Sequential):
        raise ValueError(f"{ORDER}, all in one nn.Sequential, not a {type(network).__name__}")
    allowed = (ScaleInput,)
    for name, part in network.named_children():
        if not isinstance(part, allowed):
            raise ValueError(f"layer {name} is a {type(part).__name__}: {ORDER}")
        allowed = _followers(part, allowed)
    binary = [part for part in network if isinstance(part, BINARY)]
    if allowed != (BinaryActivation,) or not isinstance(binary[-1], BinaryLinear):
        raise ValueError(f"the last layers are no BinaryLinear with its normalization: {ORDER}")
    if len(binary) < 2:
        raise ValueError("a network of one binary layer has no bits inside that could be packed")


def _followers(part: nn.Module, allowed: tuple[type, ...]) -> tuple[type, ...]:
    """The types of layers that may stand behind a layer that was allowed itself."""
    if isinstance(part, BinaryConv2d):
        return (MaxPool2x2, *NORMALIZATIONS)
    if isinstance(part, BinaryLinear | MaxPool2x2):
        return NORMALIZATIONS
    if allowed[-len(NORMALIZATIONS) :] == NORMALIZATIONS:
        return (BinaryActivation,)
    return (*PASSING, *BINARY)  # behind the input, an activation, or what passes it on


def require_sizes(network: nn.Sequential, shape: tuple[int, ...]) -> None:
    """Raise ValueError, naming the layer, unless the network takes images of this shape.

    shape: (H, W) or (C, H, W). Heights and widths must be even where they are halved.
    """
    first = next(part for part in network if isinstance(part, BINARY))
    convolved = isinstance(first, BinaryConv2d) and len(shape) == 3
    channels, *sides = shape if convolved else (math.prod(shape), 1, 1)
    for name, part in network.named_children():
        if isinstance(part, MaxPool2x2):
            if any(side % 2 for side in sides):
                pixels = " x ".join(map(str, sides))
                raise ValueError(f"layer {name} can't halve images of {pixels} pixels")
            sides = [side // 2 for side in sides]
        if isinstance(part, BINARY):
            dense = isinstance(part, BinaryLinear)
            has = channels * math.prod(sides) if dense else channels
            takes = part.weight.shape[1]
            if has != takes:
                what = "numbers" if dense else "channels"
                raise ValueError(f"layer {name} reads {takes} {what}, but is given {has}")
            channels = len(part.weight)
            sides = [1, 1] if dense else sides
