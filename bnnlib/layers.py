"""Layers of a binarized network. Latent weights are real; what multiplies is their sign.

Each layer draws from generators that it is given, never from torch's global one, so that a run is a
function of its seed. Noise (stochastic binarization, dropout) acts in training only.
"""

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from bnnlib.binarize import binarize


def glorot_multiplier(fan_in: int, fan_out: int) -> float:
    r"""$\gamma_k = 1/\sqrt{1.5/(fan_{in} + fan_{out})}$, the factor on a layer's weight updates.

    Paper, Algorithm 1, where it multiplies the weights' learning rate and is called after Glorot;
    authors' code, binary_net.py:96-98 (dense) and :138-142 (convolution, fans include the kernel
    area).
    """
    return 1 / math.sqrt(1.5 / (fan_in + fan_out))


class BinaryLinear(nn.Module):
    """x (B, in) -> (B, out): x sign(W)^T + b, W latent in [-1, 1], drawn from U(-1, 1), b = 0.

    `noise`: a generator makes the weights stochastic in training; evaluation always uses the sign.
    """

    def __init__(self, fan_in: int, fan_out: int, init: Generator, noise: Generator | None = None):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(fan_out, fan_in).uniform_(-1, 1, generator=init))
        self.bias = nn.Parameter(torch.zeros(fan_out))
        self.noise = noise
        self.update_scale = glorot_multiplier(fan_in, fan_out)

    def binary_weight(self) -> Tensor:
        """The weights as this pass uses them: (out, in, ...) in {-1, +1}."""
        return binarize(self.weight, self.noise if self.training else None, cancel=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.binary_weight(), self.bias)


class BinaryConv2d(nn.Module):
    """x (B, C, H, W) -> (B, out, H, W): 3x3 convolution with sign(W), stride 1, zero padding 1.

    `noise` as in BinaryLinear. Zeros at the border stay zeros: the authors train this way
    (cifar10.py:117-297), so a border sum has fewer than 9 C terms.
    """

    def __init__(
        self, channels: int, filters: int, init: Generator, noise: Generator | None = None
    ):
        super().__init__()
        shape = (filters, channels, 3, 3)
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-1, 1, generator=init))
        self.bias = nn.Parameter(torch.zeros(filters))
        self.noise = noise
        self.update_scale = glorot_multiplier(9 * channels, 9 * filters)

    binary_weight = BinaryLinear.binary_weight

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.binary_weight(), self.bias, padding=1)


class BinaryActivation(nn.Module):
    """x -> {-1, +1}, same shape, straight-through gradient; `noise`: stochastic in training."""

    def __init__(self, noise: Generator | None = None, cancel: bool = True):
        super().__init__()
        self.noise = noise
        self.cancel = cancel

    def forward(self, x: Tensor) -> Tensor:
        return binarize(x, self.noise if self.training else None, self.cancel)


class BatchNorm(nn.Module):
    """Batch normalization over all axes but 1, x (B, C) or (B, C, H, W), as Lasagne has it.

    Lasagne averages the mean and the *inverse standard deviation* of the biased variance
    (normalization.py:234-305); torch averages the unbiased variance. alpha 0.1 and eps 1e-4 are the
    authors' (mnist.py:36-38, cifar10.py:36-38).
    """

    EPS = 1e-4
    ALPHA = 0.1

    def __init__(self, features: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(features))
        self.beta = nn.Parameter(torch.zeros(features))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("inv_std", torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            scale = self.gamma * self.inv_std  # (C,)
            shape = (-1,) + (1,) * (x.dim() - 2)
            return (x - self.mean.view(shape)) * scale.view(shape) + self.beta.view(shape)
        y, mean, inv_std = torch.native_batch_norm(
            x, self.gamma, self.beta, None, None, True, 0.0, self.EPS
        )
        self.mean.lerp_(mean.detach(), self.ALPHA)
        self.inv_std.lerp_(inv_std.detach(), self.ALPHA)
        return y


class Dropout(nn.Module):
    """x -> x with each entry zeroed with probability `rate`, the rest divided by 1 - rate.

    Behind a binarization this gives {0, +-1/(1 - rate)}, as in the authors' code
    (mnist.py:130-156).
    """

    def __init__(self, rate: float, generator: Generator):
        super().__init__()
        self.rate = rate
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = torch.rand(x.shape, generator=self.generator, device=x.device) >= self.rate
        return x * keep / (1 - self.rate)


class ScaleInput(nn.Module):
    """uint8 pixels -> float: x * scale + offset; by default 2 x / 255 - 1 in [-1, 1]
    (cifar10.py:87).

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
