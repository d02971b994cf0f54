"""Products of binarized layers: fast on a CPU, where signs are worth it, and plain torch elsewhere.

Latent weights lie in memory as (taps, inputs, outputs), whatever their torch shape, so that kernels
and optimizer walk through them in a line: `empty_latent_weight` makes them.
"""

from enum import StrEnum

import torch
import torch.nn.functional as F
from torch import Tensor

from bnnlib import numerics
from bnnlib.binarize import binarize
from bnnlib.kernels import dispatch
from bnnlib.one_pass import signs_of
from bnnlib.sign_product import Place, SignProduct

FEWEST_PRODUCTS = 100_000_000  # multiply-adds of layer and batch: below, torch's own are as fast
FEWEST_CHANNELS = 64  # in and out: a table serves all of them, and making it must pay
LARGEST_SUM = 32767  # of an int16
EXACT_DTYPES = (torch.float32, torch.float64)  # their sums of signs are not rounded


class InputValues(StrEnum):
    """The kind of numbers that a layer's input holds."""

    REAL = "real"
    SIGNS = "signs"  # -1 and +1
    DRAWN = "drawn"  # the same, drawn
    DROPPED = "dropped"  # -2, 0 and +2: signs behind a dropout of one half; signs while it is off


def arithmetic(device: str) -> str:
    """The arithmetic of products on a device, for run records."""
    if device == "cuda":
        return numerics.described()
    fast = device == "cpu" and dispatch.AVAILABLE
    return "exact forward on bits, float32 backward by look-up" if fast else "float32"


def empty_latent_weight(shape: tuple[int, ...]) -> Tensor:
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


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, values: InputValues) -> Tensor:
    """x (B, in), weight (out, in), bias (out,) -> x sign(weight)^T + bias, (B, out).

    weight: latent, or drawn signs, float32 or float64. The sums are of its dtype, under
    torch.autocast, too, which would round them. The gradient of the weight is that of its signs,
    unchanged. A NaN goes on to the sums. Raises ValueError for a weight of fewer bits, and for
    unknown values.
    """
    _require_exact(weight)
    values = InputValues(values)
    if _is_cast(x):
        with torch.autocast(x.device.type, enabled=False):
            return linear(x.to(weight.dtype), weight, bias, values)
    if _pays(x, weight, values, len(x)):
        sums = _look_up(x, weight, values)
        return sums if bias is None else sums.add_(bias)
    if _on_tensor_cores(x, weight, values):
        sums = TensorCoreProduct.apply(x, weight, signs_of(weight))
        return sums if bias is None else sums + bias
    return F.linear(x, binarize(weight, cancel=False), bias)


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, values: InputValues) -> Tensor:
    """x (B, C, H, W), weight (out, C, 3, 3) -> 3x3 convolution with its signs, zero padding 1.

    All else is as in `linear`. torch's convolution gets drawn signs in the order in which torch
    would have drawn them: the layout of its input decides in which order it sums a gradient.
    """
    _require_exact(weight)
    values = InputValues(values)
    if _is_cast(x):
        with torch.autocast(x.device.type, enabled=False):
            return conv2d(x.to(weight.dtype), weight, bias, values)
    if _pays(x, weight, values, x[:, 0].numel()):
        sums = _look_up(x, weight, values)
        return sums if bias is None else sums.add_(bias[:, None, None])
    if _on_tensor_cores(x, weight, values):
        sums = TensorCoreProduct.apply(x, weight, signs_of(weight))
        return sums if bias is None else sums + bias[:, None, None]
    x = x.contiguous() if values is InputValues.DRAWN else x
    return F.conv2d(x, binarize(weight, cancel=False), bias, padding=1)


def _is_cast(x: Tensor) -> bool:
    """Whether torch.autocast would round what is computed from x."""
    device = x.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def _require_exact(weight: Tensor) -> None:
    """Raise ValueError for a dtype whose mantissa is too short for sums of signs."""
    if weight.dtype not in EXACT_DTYPES:
        raise ValueError(
            f"sums of signs would be rounded in {weight.dtype}: keep binary layers in float32; "
            "under torch.autocast they stay exact by themselves"
        )


def _on_tensor_cores(x: Tensor, weight: Tensor, values: InputValues) -> bool:
    """Whether a GPU's tensor cores sum this layer without loss: what it reads is signs."""
    reads_signs = values is not InputValues.REAL
    return x.device.type == "cuda" and reads_signs and x.dim() == weight.dim()


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
            ones = [1, 1]
            wanted = [True, True, False]
            grads = torch.ops.aten.convolution_backward(
                grad, x, signs, None, ones, ones, ones, False, [0, 0], 1, wanted
            )
        return grads[0], grads[1], None


def sums(x: Tensor, signs: Tensor) -> Tensor:
    """The forward product of `TensorCoreProduct` alone, without a gradient."""
    with numerics.tensor_cores():
        return F.linear(x, signs) if signs.dim() == 2 else F.conv2d(x, signs, padding=1)


def _pays(x: Tensor, weight: Tensor, values: InputValues, positions: int) -> bool:
    """Whether the look-up products apply, and are worth their overhead."""
    largest = weight[0].numel() * (2 if values is InputValues.DROPPED else 1)
    return (
        dispatch.AVAILABLE
        and values is not InputValues.REAL
        and x.device.type == "cpu"
        and x.dim() == weight.dim()
        and (values is not InputValues.DROPPED or x.dim() == 2)
        and x.dtype == weight.dtype == torch.float32
        and largest <= LARGEST_SUM
        and min(weight.shape[:2]) >= FEWEST_CHANNELS
        and positions * weight.numel() >= FEWEST_PRODUCTS
    )


def _look_up(x: Tensor, weight: Tensor, values: InputValues) -> Tensor:
    """The sums by look-up; their gradients have gradients, too, where autograd may ask for them."""
    again = x.requires_grad and torch.is_grad_enabled() and not torch.compiler.is_compiling()
    place = Place.apply(x) if again else None
    return SignProduct.apply(x, place, weight, values is InputValues.DROPPED)
