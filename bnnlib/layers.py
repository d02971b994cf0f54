"""Layers of a binarized network. Latent weights are real; what multiplies is their sign.

The study's networks give each layer the generators that it draws from, so that a run is a function
of its seed; without one, a layer draws from torch's own, as torch's layers do. Noise (stochastic
binarization, dropout) acts in training only.
"""

import math
from enum import StrEnum

import torch
from torch import Generator, Tensor, nn

from bnnlib import draws, parallel
from bnnlib.binarize import binarize
from bnnlib.functional import InputValues, conv2d, empty_latent_weight, linear
from bnnlib.pooling import max_pool


class Normalization(StrEnum):
    """The kinds of normalization between a layer's sums and its activation."""

    EXACT = "exact"
    SHIFT_PRINTED = "shift-printed"
    SHIFT_CODED = "shift-coded"  # the last layer's is an ordinary one, as in the authors' code
    STATISTICS = "statistics"  # mean 0, variance 1, nothing learned
    SCALE = "scale"  # a learned factor and shift, no statistics
    NONE = "none"


class Initialization(StrEnum):
    """The distributions from which a binary layer's latent weights and biases start."""

    UNIFORM = "uniform"  # weights U(-1, 1), biases 0: binary_net.py:103, 148
    TORCH7 = "torch7"  # as `_initial_values` says: dense weights U(-1, 1), others narrower


def glorot_multiplier(fan_in: int, fan_out: int) -> float:
    r"""$\gamma_k = 1/\sqrt{1.5/(fan_{in} + fan_{out})}$, the factor on a layer's weight updates.

    Paper, Algorithm 1, where it multiplies the weights' learning rate and is called after Glorot;
    authors' code, binary_net.py:96-98 (dense) and :138-142 (convolution, fans include the kernel
    area).
    """
    return 1 / math.sqrt(1.5 / (fan_in + fan_out))


def _require_flag(bias: bool) -> None:
    """Raise TypeError for a generator in its place, which would not be drawn from."""
    if not isinstance(bias, bool):
        raise TypeError(f"bias must be True or False, not {bias}; init and noise go by name")


class BinaryLayer(nn.Module):
    """The common part of `BinaryLinear` and `BinaryConv2d`: latent weights, bias, and their signs.

    shape: of the weights, (out, in) or (out, in, 3, 3). `update_scale` is Glorot's multiplier.
    Raises ValueError for an unknown initialization or unknown inputs.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        bias: bool,
        init: Generator | None,
        noise: Generator | None,
        initialization: Initialization,
        inputs: InputValues,
    ):
        super().__init__()
        _require_flag(bias)
        weight, start = _initial_values(shape, init, Initialization(initialization))
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(start) if bias else None
        self.noise = noise
        self.inputs = InputValues(inputs)
        area = math.prod(shape[2:])
        self.update_scale = glorot_multiplier(area * shape[1], area * shape[0])

    def binary_weight(self) -> Tensor:
        """The weights as this pass uses them: (out, in, ...) in {-1, +1}."""
        return binarize(self.weight, self.noise if self.training else None, cancel=False)

    def signed_weight(self) -> Tensor:
        """A tensor with the signs of this pass: drawn, or the latent weights themselves."""
        drawn = self.training and self.noise is not None
        return self.binary_weight() if drawn else self.weight

    def values(self) -> InputValues:
        """The kind of numbers that the input holds in this pass: drawn ones in training only."""
        drawn = self.inputs == InputValues.DRAWN
        return InputValues.SIGNS if drawn and not self.training else self.inputs


def _initial_values(
    shape: tuple[int, ...], init: Generator | None, kind: Initialization
) -> tuple[Tensor, Tensor]:
    """The weight (shape) and bias (shape[0],) of a binary layer before its first step.

    The authors' Torch7 code on a GPU, file:line: BinaryLinear.lua:29, 39-40; its convolution
    (cudnnBinarySpatialConvolution.lua) keeps torch's own start, weights and biases
    U(+-1 / sqrt(9 C)).
    """
    weight = empty_latent_weight(shape)
    bias = torch.zeros(shape[0])
    bound = 1 / math.sqrt(weight[0].numel())
    small = kind is Initialization.TORCH7 and len(shape) == 4
    weight.uniform_(-bound if small else -1, bound if small else 1, generator=init)
    if kind is Initialization.TORCH7:
        bias.uniform_(-bound, bound, generator=init)
    return weight.contiguous(), bias


def order_for_kernels(layer: BinaryLayer) -> BinaryLayer:
    """The layer, its latent weights laid out in memory as kernels on a CPU read them fastest.

    As with torch.channels_last, no value and no shape changes, but the weights are no longer
    contiguous, as some of torch's optimizers and safetensors want them to be.
    """
    layer.weight.data = empty_latent_weight(layer.weight.shape).copy_(layer.weight.data)
    return layer


class BinaryLinear(BinaryLayer):
    """x (B, in) -> (B, out): x sign(W)^T + b, W (out, in) latent in [-1, 1].

    `bias`: whether there is a b. `init`: the generator of the initial weights, torch's own by
    default. `noise`: a generator makes the weights stochastic in training; evaluation always uses
    the sign. `inputs`: what x holds in training. Say so where that is signs: they multiply faster.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        init: Generator | None = None,
        noise: Generator | None = None,
        initialization: Initialization = Initialization.UNIFORM,
        inputs: InputValues = InputValues.REAL,
    ):
        super().__init__((out_features, in_features), bias, init, noise, initialization, inputs)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.signed_weight(), self.bias, self.values())


class BinaryConv2d(BinaryLayer):
    """x (B, C, H, W) -> (B, out, H, W): 3x3 convolution with sign(W), stride 1, zero padding 1.

    Arguments are those of torch.nn.Conv2d, then those of BinaryLinear. Zeros at the border stay
    zeros: the authors train this way (cifar10.py:117-297), so a border sum has fewer than 9 C
    terms. Raises ValueError for another kernel, stride or padding.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int] = 3,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 1,
        bias: bool = True,
        *,
        init: Generator | None = None,
        noise: Generator | None = None,
        initialization: Initialization = Initialization.UNIFORM,
        inputs: InputValues = InputValues.REAL,
    ):
        asked = kernel_size, stride, padding
        if any(size not in (one, (one, one)) for size, one in zip(asked, (3, 1, 1), strict=True)):
            raise ValueError(
                "a binary convolution has kernel_size 3, stride 1 and padding 1, not "
                f"{kernel_size}, {stride} and {padding}"
            )
        shape = (out_channels, in_channels, 3, 3)
        super().__init__(shape, bias, init, noise, initialization, inputs)

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(x, self.signed_weight(), self.bias, self.values())


class BinaryActivation(nn.Module):
    """x -> {-1, +1}, same shape, straight-through gradient; `noise`: stochastic in training."""

    def __init__(self, noise: Generator | None = None, cancel: bool = True):
        super().__init__()
        self.noise = noise
        self.cancel = cancel

    def forward(self, x: Tensor) -> Tensor:
        return binarize(x, self.noise if self.training else None, self.cancel, batch=True)


class MaxPool2x2(nn.Module):
    """x (B, C, H, W), H and W even -> (B, C, H / 2, W / 2); the gradient goes to the largest."""

    def forward(self, x: Tensor) -> Tensor:
        return max_pool(x)


class Dropout(nn.Module):
    """x -> x with each entry zeroed with probability `rate`, the rest divided by 1 - rate.

    Behind a binarization this gives {0, +-1/(1 - rate)}, as in the authors' code
    (mnist.py:130-156). `noise`: what it draws from, torch's own generator by default. Raises
    ValueError for a rate outside [0, 1).
    """

    def __init__(self, rate: float, noise: Generator | None = None):
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"a dropout's rate lies in [0, 1), which {rate} doesn't")
        self.rate = rate
        self.noise = noise

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        if draws.fits(x, self.noise) and x.is_contiguous():
            return draws.Drop.apply(x, self.rate, self.noise)
        keep = parallel.uniform(x, self.noise) >= self.rate
        return x * keep / (1 - self.rate)


class ScaleInput(nn.Module):
    """uint8 pixels -> float: x * scale + offset, by default 2 x / 255 - 1 (cifar10.py:87).

    x: (B, H, W) or (B, C, H, W). Images with channels leave in channels-last order, which the
    convolutions keep; it changes where values lie in memory, not which they are.
    """

    def __init__(self, scale: float = 2 / 255, offset: float = -1.0):
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("offset", torch.tensor(offset))

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.scale.dtype) * self.scale + self.offset
        return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
