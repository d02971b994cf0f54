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
from bnnlib.functional import InputValues
from bnnlib.layers import (
    BinaryActivation,
    BinaryConv2d,
    BinaryLayer,
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
from bnnlib.variants import PolynomialActivation, ScaledBinaryLinear
from bnnlib.words import take_words

NETWORKS = ("mlp", "convnet")
CLASSES = 10
MLP_SIDE = 28
MLP_INPUTS = MLP_SIDE**2
CONVNET_CHANNELS = 3
CONVNET_SIDE = 32
LARGEST_SIDE = 256
MOST_CLASSES = 1000


@dataclass(frozen=True)
class LayerFactory:
    """A factory of a network's layers, binary or not, with the generators that they draw from.

    `init` draws initial weights on the CPU; `noise` draws during training on the network's device.
    Choices may be given by their words; raises ValueError for an unknown one.
    """

    weights: Binarization
    activations: Binarization
    cancel: bool
    init: Generator
    noise: Generator
    batch_norm: Normalization = Normalization.EXACT
    initialization: Initialization = Initialization.UNIFORM
    filter_scale: bool = False  # XNOR-Net's, of dense binary layers
    polynomial_gradient: bool = False  # Bi-Real Net's, of binary activations

    def __post_init__(self):
        take_words(self)

    def _options(self, inputs: InputValues) -> dict:
        """Keyword arguments of a binary layer that reads such inputs."""
        return {
            "init": self.init,
            "noise": self.noise if self.weights is Binarization.STOCHASTIC else None,
            "initialization": self.initialization,
            "inputs": inputs,
        }

    def linear(self, fan_in: int, fan_out: int, inputs: InputValues) -> nn.Module:
        """A dense layer; inputs: what it reads in training."""
        if self.weights is Binarization.NONE:
            return self._glorot(nn.utils.skip_init(nn.Linear, fan_in, fan_out))
        kind = ScaledBinaryLinear if self.filter_scale else BinaryLinear
        return order_for_kernels(kind(fan_in, fan_out, **self._options(inputs)))

    def conv(self, channels: int, filters: int, inputs: InputValues) -> nn.Module:
        """A 3x3 convolution; inputs: what it reads in training."""
        if self.weights is Binarization.NONE:
            layer = nn.utils.skip_init(nn.Conv2d, channels, filters, 3, padding=1)
            return self._glorot(layer).to(memory_format=torch.channels_last)
        return order_for_kernels(BinaryConv2d(channels, filters, **self._options(inputs)))

    def normalization(self, features: int, fan_in: int, spatial: bool = False) -> nn.Module:
        """Normalize `features` sums of `fan_in` terms each; spatial: those of a convolution."""
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
        """The normalization of the scores."""
        if self.batch_norm is Normalization.SHIFT_CODED:
            return OrdinaryBatchNorm(classes, self.init)
        return self.normalization(classes, fan_in)

    def activation(self) -> nn.Module:
        if self.activations is Binarization.NONE:
            return nn.ReLU()
        if self.polynomial_gradient:
            return PolynomialActivation()
        noise = self.noise if self.activations is Binarization.STOCHASTIC else None
        return BinaryActivation(noise, self.cancel)

    def hidden_inputs(self, dropout: float = 0.0) -> InputValues:
        """The numbers that a layer reads behind an activation and this dropout, in training."""
        if self.activations is Binarization.NONE:
            return InputValues.REAL
        drawn = self.activations is Binarization.STOCHASTIC
        signs = InputValues.DRAWN if drawn else InputValues.SIGNS
        return {0.0: signs, 0.5: InputValues.DROPPED}.get(dropout, InputValues.REAL)

    def dropout(self, rate: float) -> nn.Module:
        return Dropout(rate, self.noise)

    def _glorot(self, layer: nn.Module) -> nn.Module:
        nn.init.xavier_uniform_(layer.weight, generator=self.init)
        nn.init.zeros_(layer.bias)
        return layer


def image_shape(network: str, side: int = 0, channels: int = 0) -> tuple[int, ...]:
    """Shape an "mlp" or a "convnet" reads; 0: as the paper's. (S, S) for an MLP of grey images,
    (1, S, S) for a ConvNet of such, (3, S, S) for RGB. Raises ValueError for another network.
    """
    if network not in NETWORKS:
        raise ValueError(f"network {network!r} is neither mlp nor convnet")
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
    factory: LayerFactory,
    hidden: tuple[int, ...],
    input_dropout: float = 0.0,
    hidden_dropout: float = 0.0,
    inputs: int = MLP_INPUTS,
    classes: int = CLASSES,
) -> nn.Sequential:
    """MNIST network (mnist.py:128-170): images (B, 28, 28) uint8 -> scores (B, 10).

    Each hidden layer is linear, batch norm, binarize, dropout; the last is linear, batch norm.
    Without hidden layers the last one reads the pixels. Other images have `inputs` numbers each.
    """
    layers = [ScaleInput(), nn.Flatten(), factory.dropout(input_dropout)]
    values = InputValues.REAL  # pixels
    widths = (inputs, *hidden)
    for fan_in, fan_out in pairwise(widths):
        layers.append(factory.linear(fan_in, fan_out, values))
        layers.append(factory.normalization(fan_out, fan_in))
        layers.append(factory.activation())
        layers.append(factory.dropout(hidden_dropout))
        values = factory.hidden_inputs(hidden_dropout)
    layers.append(factory.linear(widths[-1], classes, values))
    layers.append(factory.last_normalization(widths[-1], classes))
    return nn.Sequential(*layers)


def convnet(
    factory: LayerFactory,
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
    inputs = InputValues.REAL  # pixels
    signs = factory.hidden_inputs()
    for fan_in, width in pairwise((channels, *filters)):
        layers.append(factory.conv(fan_in, width, inputs))
        layers.append(factory.normalization(width, 9 * fan_in, spatial=True))
        layers.append(factory.activation())
        layers += [factory.conv(width, width, signs), MaxPool2x2()]
        layers.append(factory.normalization(width, 9 * width, spatial=True))
        layers.append(factory.activation())
        inputs = signs
    layers.append(nn.Flatten())
    left = side >> len(filters)
    for fan_in, fan_out in pairwise((filters[-1] * left * left, dense, dense)):
        layers.append(factory.linear(fan_in, fan_out, signs))
        layers.append(factory.normalization(fan_out, fan_in))
        layers.append(factory.activation())
    layers.append(factory.linear(dense, classes, signs))
    layers.append(factory.last_normalization(dense, classes))
    return nn.Sequential(*layers)


def build(
    factory: LayerFactory,
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
    the paper's network. Raises ValueError as `image_shape` and `require_images` do.
    """
    shape = image_shape(network, side, channels)
    require_images(network, len(hidden) if network == "convnet" else 0, shape, classes)
    if network == "convnet":
        return convnet(factory, hidden, dense, shape[0], shape[-1], classes)
    inputs = math.prod(shape)
    return mlp(factory, hidden, input_dropout, hidden_dropout, inputs, classes)


def binary_layers(network: nn.Module) -> dict[str, BinaryLayer]:
    """The layers with latent weights, by their name in the network, first to last."""
    return {
        name: layer for name, layer in network.named_modules() if isinstance(layer, BinaryLayer)
    }
