"""Products of binarized layers: fast on a CPU, where signs are worth it, and plain torch elsewhere.

Latent weights lie in memory as (taps, inputs, outputs), whatever their torch shape, so that kernels
and optimizer walk through them in a line: `latent` makes them.
"""

from enum import StrEnum

import torch
import torch.nn.functional as F
from torch import Tensor

from bnnlib import fused, numerics
from bnnlib.binarize import binarize
from bnnlib.one_pass import signs_of

FEWEST_PRODUCTS = 100_000_000  # multiply-adds of layer and batch: below, torch's own are as fast
FEWEST_CHANNELS = 64  # in and out: a table serves all of them, and making it must pay
LARGEST_SUM = 32767  # of an int16


class Values(StrEnum):
    """What the input of a layer holds."""

    REAL = "real"
    SIGNS = "signs"  # -1 and +1
    DROPPED = "dropped"  # -2, 0 and +2: signs behind a dropout of one half


def arithmetic(device: str) -> str:
    """How products are formed on a device, for run records."""
    if device == "cuda":
        return numerics.described()
    fast = device == "cpu" and fused.AVAILABLE
    return "exact forward on bits, float32 backward by look-up" if fast else "float32"


def latent(shape: tuple[int, ...]) -> Tensor:
    """An uninitialized weight (out, in) or (out, in, 3, 3) whose memory is (3, 3, in, out)."""
    memory = torch.empty(*shape[2:], shape[1], shape[0])
    return memory.movedim((-1, -2), (0, 1))


def laid_out(weight: Tensor) -> Tensor:
    """A latent weight in the order of memory in which its device multiplies it; the same values.

    cuDNN reads 3x3 filters channels last, (out, 3, 3, in). From (3, 3, in, out) it would copy the
    weights and their gradients at every step. A dense weight is read as it lies on either device.
    """
    if weight.device.type == "cpu" or weight.dim() != 4:
        return weight
    return weight.contiguous(memory_format=torch.channels_last)


def linear(x: Tensor, weight: Tensor, bias: Tensor, values: Values) -> Tensor:
    """x (B, in), weight (out, in), bias (out,) -> x sign(weight)^T + bias, (B, out).

    weight: latent, or drawn signs. The gradient of the weight is that of its signs, unchanged.
    """
    if _pays(x, weight, values, len(x)):
        return _look_up(x, weight, values).add_(bias)
    if _on_tensor_cores(x, values):
        return TensorCoreProduct.apply(x, weight, signs_of(weight)) + bias
    return F.linear(x, binarize(weight, cancel=False), bias)


def conv2d(x: Tensor, weight: Tensor, bias: Tensor, values: Values) -> Tensor:
    """x (B, C, H, W), weight (out, C, 3, 3) -> 3x3 convolution with its signs, zero padding 1."""
    if _pays(x, weight, values, x[:, 0].numel()):
        return _look_up(x, weight, values).add_(bias[:, None, None])
    if _on_tensor_cores(x, values):
        return TensorCoreProduct.apply(x, weight, signs_of(weight)) + bias[:, None, None]
    return F.conv2d(x, binarize(weight, cancel=False), bias, padding=1)


def _on_tensor_cores(x: Tensor, values: Values) -> bool:
    """Whether a GPU's tensor cores sum this layer without loss: what it reads is signs."""
    return x.device.type == "cuda" and values is not Values.REAL


class TensorCoreProduct(torch.autograd.Function):
    """A product or 3x3 convolution of signs in TF32, forward and backward: see `numerics`.

    x (B, in), signs (out, in) -> (B, out); x (B, C, H, W), signs (out, C, 3, 3) -> (B, out, H, W).
    signs: those of weight, which gets their gradient.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, signs: Tensor) -> Tensor:
        ctx.save_for_backward(x, signs)
        return sums(x, signs)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, signs = ctx.saved_tensors
        with numerics.tensor_cores():
            if signs.dim() == 2:
                return grad @ signs, grad.t() @ x, None
            ones, wanted = [1, 1], [True, True, False]
            grads = torch.ops.aten.convolution_backward(
                grad, x, signs, None, ones, ones, ones, False, [0, 0], 1, wanted
            )
        return grads[0], grads[1], None


def sums(x: Tensor, signs: Tensor) -> Tensor:
    """The forward product of `TensorCoreProduct` alone, without a gradient."""
    with numerics.tensor_cores():
        return F.linear(x, signs) if signs.dim() == 2 else F.conv2d(x, signs, padding=1)


def _look_up(x: Tensor, weight: Tensor, values: Values) -> Tensor:
    from bnnlib.kernels.sign_product import SignProduct

    return SignProduct.apply(x, weight, values is Values.DROPPED)


def _pays(x: Tensor, weight: Tensor, values: Values, positions: int) -> bool:
    """Whether the look-up products apply, and are worth their overhead."""
    largest = weight[0].numel() * (2 if values is Values.DROPPED else 1)
    return (
        fused.AVAILABLE
        and values is not Values.REAL
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and largest <= LARGEST_SUM
        and min(weight.shape[:2]) >= FEWEST_CHANNELS
        and positions * weight.numel() >= FEWEST_PRODUCTS
    )
