"""The paper's two networks and their float twins, from plain arguments, at any size.

Both take uint8 images, by default those of MNIST and of CIFAR-10, and return real class scores (the
output of a last batch normalization). With `Binarization.NONE` a layer is an ordinary one: real
weights from Glorot's uniform distribution, ReLU activations. With both NONE this is the float twin.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Generator, nn

from bnnlib.binarize import Binarization
from bnnlib.functional import Values
from bnnlib.layers import (
    BinaryActivation,
    BinaryConv2d,
    BinaryLinear,
    Dropout,
    Initialization,
    MaxPool2x2,
    Normalization,
    ScaleInput,
    order_for_kernels,
)
from bnnlib.normalization import (
    BatchNorm,
    OrdinaryBatchNorm,
    PrintedShiftBatchNorm,
    Scale,
    ShiftBatchNorm,
)

CLASSES = 10
MLP_SIDE = 28
MLP_INPUTS = MLP_SIDE**2
CONVNET_CHANNELS = 3
CONVNET_SIDE = 32
LARGEST_SIDE = 256
MOST_CLASSES = 1000


@dataclass(frozen=True)
class Parts:
    """Makes a network's layers: which of them are binary, and where their random numbers come from.

    `init` draws initial weights on the CPU; `noise` draws during training on the network's device.
    """

    weights: Binarization
    activations: Binarization
    cancel: bool
    init: Generator
    noise: Generator
    batch_norm: Normalization = Normalization.EXACT
    initialization: Initialization = Initialization.UNIFORM

    def _binary(self) -> dict:
        """What all binary layers are made with."""
        noise = self.noise if self.weights is Binarization.STOCHASTIC else None
        return {"init": self.init, "noise": noise, "initialization": self.initialization}

    def linear(self, fan_in: int, fan_out: int) -> nn.Module:
        if self.weights is Binarization.NONE:
            return self._glorot(nn.utils.skip_init(nn.Linear, fan_in, fan_out))
        return order_for_kernels(BinaryLinear(fan_in, fan_out, **self._binary()))

    def conv(self, channels: int, filters: int) -> nn.Module:
        if self.weights is Binarization.NONE:
            layer = nn.utils.skip_init(nn.Conv2d, channels, filters, 3, padding=1)
            return self._glorot(layer).to(memory_format=torch.channels_last)
        return order_for_kernels(BinaryConv2d(channels, filters, **self._binary()))

    def normalization(self, features: int, fan_in: int, spatial: bool = False) -> nn.Module:
        """What normalizes `features` sums of `fan_in` terms each; spatial: of a convolution."""
        match self.batch_norm:
            case Normalization.SHIFT_PRINTED:
                return PrintedShiftBatchNorm(features)
            case Normalization.SHIFT_CODED:
                return ShiftBatchNorm(features, start=0.0 if spatial else 1.0)
            case Normalization.SCALE:
                return Scale(features, fan_in)
            case Normalization.NONE:
                return nn.Identity()
        learned = self.batch_norm is Normalization.EXACT
        return BatchNorm(features).requires_grad_(learned)  # else gamma stays 1 and beta 0

    def last_normalization(self, fan_in: int, classes: int = CLASSES) -> nn.Module:
        """That of the scores."""
        if self.batch_norm is Normalization.SHIFT_CODED:
            return OrdinaryBatchNorm(classes, self.init)
        return self.normalization(classes, fan_in)

    def activation(self) -> nn.Module:
        if self.activations is Binarization.NONE:
            return nn.ReLU()
        noise = self.noise if self.activations is Binarization.STOCHASTIC else None
        return BinaryActivation(noise, self.cancel)

    def values(self, dropout: float) -> Values:
        """What a hidden layer reads in training."""
        if self.activations is Binarization.NONE:
            return Values.REAL
        drawn = self.activations is Binarization.STOCHASTIC
        signs = Values.DRAWN if drawn else Values.SIGNS
        return {0.0: signs, 0.5: Values.DROPPED}.get(dropout, Values.REAL)

    def dropout(self, rate: float) -> nn.Module:
        return Dropout(rate, self.noise)

    def _glorot(self, layer: nn.Module) -> nn.Module:
        nn.init.xavier_uniform_(layer.weight, generator=self.init)
        nn.init.zeros_(layer.bias)
        return layer


def image_shape(network: str, side: int = 0, channels: int = 0) -> tuple[int, ...]:
    """What an "mlp" or a "convnet" reads; 0: as the paper's. (S, S) for an MLP of grey images,
    (1, S, S) for a ConvNet of such, (3, S, S) for RGB.
    """
    side = side or (CONVNET_SIDE if network == "convnet" else MLP_SIDE)
    channels = channels or (CONVNET_CHANNELS if network == "convnet" else 1)
    return (side, side) if network == "mlp" and channels == 1 else (channels, side, side)


def require_images(network: str, stages: int, shape: tuple[int, ...], classes: int) -> None:
    """Raise ValueError, saying what would work, for images or classes that no network here takes.

    stages: a ConvNet's, each of which halves the images; 0 for an MLP.
    """
    side, channels = shape[-1], shape[0] if len(shape) == 3 else 1
    if channels not in (1, 3):
        raise ValueError(f"images have 1 channel (grey) or 3 (RGB), not {channels}")
    if side % 2 or not 2 <= side <= LARGEST_SIDE:
        raise ValueError(f"images have an even side from 2 to {LARGEST_SIDE} pixels, not {side}")
    if not 2 <= classes <= MOST_CLASSES:
        raise ValueError(f"networks tell 2 to {MOST_CLASSES} classes apart, not {classes}")
    if network == "convnet" and side % 2**stages:
        most = (side & -side).bit_length() - 1  # halvings until the side is odd
        raise ValueError(
            f"each stage halves the images: a side of {side} pixels can be halved {most} times, "
            f"not {stages}; take at most {most} stages or a side that is a multiple of {2**stages}"
        )


def mlp(
    parts: Parts,
    hidden: tuple[int, ...],
    input_dropout: float = 0.0,
    hidden_dropout: float = 0.0,
    inputs: int = MLP_INPUTS,
    classes: int = CLASSES,
) -> nn.Sequential:
    """MNIST network (mnist.py:128-170): images (B, 28, 28) uint8 -> scores (B, 10).

    Each hidden layer is linear, batch norm, binarize, dropout; the last is linear, batch norm.
    Other images have `inputs` numbers each.
    """
    layers = [ScaleInput(), nn.Flatten(), parts.dropout(input_dropout)]
    for fan_in, fan_out in pairwise((inputs, *hidden)):
        layers += [parts.linear(fan_in, fan_out), parts.normalization(fan_out, fan_in)]
        layers += [parts.activation(), parts.dropout(hidden_dropout)]
    layers += [parts.linear(hidden[-1], classes), parts.last_normalization(hidden[-1], classes)]
    return nn.Sequential(*layers)


def convnet(
    parts: Parts,
    filters: tuple[int, ...],
    dense: int,
    channels: int = CONVNET_CHANNELS,
    side: int = CONVNET_SIDE,
    classes: int = CLASSES,
) -> nn.Sequential:
    """CIFAR-10 network (cifar10.py:117-297): images (B, 3, 32, 32) uint8 -> scores (B, 10).

    For each entry of `filters` two 3x3 convolutions, the second followed by 2x2 max pooling; then
    two dense layers of `dense` units, then the scores. The order is convolve, pool, normalize,
    binarize. Other images are (B, channels, side, side).
    """
    layers: list[nn.Module] = [ScaleInput()]
    for fan_in, width in pairwise((channels, *filters)):
        layers += [parts.conv(fan_in, width)]
        layers += [parts.normalization(width, 9 * fan_in, spatial=True), parts.activation()]
        layers += [parts.conv(width, width), MaxPool2x2()]
        layers += [parts.normalization(width, 9 * width, spatial=True), parts.activation()]
    layers.append(nn.Flatten())
    left = side >> len(filters)
    for fan_in, fan_out in pairwise((filters[-1] * left * left, dense, dense)):
        layers += [parts.linear(fan_in, fan_out), parts.normalization(fan_out, fan_in)]
        layers.append(parts.activation())
    layers += [parts.linear(dense, classes), parts.last_normalization(dense, classes)]
    return nn.Sequential(*layers)


def build(
    parts: Parts,
    network: str,
    hidden: tuple[int, ...],
    dense: int,
    input_dropout: float = 0.0,
    hidden_dropout: float = 0.0,
    side: int = 0,
    channels: int = 0,
    classes: int = CLASSES,
) -> nn.Sequential:
    """The network that a recipe's fields of these names describe; a side or channels of 0: those of
    the paper's network. Raises ValueError as `require_images` does.
    """
    shape = image_shape(network, side, channels)
    require_images(network, len(hidden) if network == "convnet" else 0, shape, classes)
    if network == "convnet":
        built = convnet(parts, hidden, dense, shape[0], shape[-1], classes)
    else:
        built = mlp(parts, hidden, input_dropout, hidden_dropout, math.prod(shape), classes)
    for layer in list(binary_layers(built).values())[1:]:  # the first one reads pixels
        layer.inputs = parts.values(hidden_dropout)
    return built


def binary_layers(network: nn.Module) -> dict[str, nn.Module]:
    """The layers with latent weights, by their name in the network, first to last."""
    return {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, BinaryLinear | BinaryConv2d)
    }
