"""Products of signs on a CPU with both gradients, by look-up, as autograd functions and torch ops.

`bnnlib.functional` decides where they are worth it; `kernels.cpu.sign_matmul` computes them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from bnnlib.binarize import binarize
from bnnlib.traced import traced


class Place(torch.autograd.Function):
    """x, any shape -> zeros of its shape, one number in memory, whose gradient goes to x.

    `SignProduct` keeps x as bytes. Added to them, this is x again for a gradient of a gradient.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        return x.new_zeros(()).expand(x.shape)

    @staticmethod
    def backward(ctx, grad: Tensor | None) -> Tensor | None:
        return grad


class SignProduct(torch.autograd.Function):
    """x sign(weight)^T, or the 3x3 convolution with zero padding 1; (B, out, ...), no bias.

    place: zeros that lead to x, or None where nobody will ask for gradients of gradients. The
    gradient of the weight is that of its signs, unchanged.
    """

    @staticmethod
    def forward(ctx, x: Tensor, place: Tensor | None, weight: Tensor, dropped: bool) -> Tensor:
        ctx.dropped = dropped
        kept = x.to(torch.int8)  # a quarter of the memory until the backward pass
        ctx.save_for_backward(kept, place, weight)
        return _product(x, weight, dropped)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, place, weight = ctx.saved_tensors
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # create_graph
            x = x.to(grad.dtype)
            return _plain_gradients(x if place is None else x + place, weight, grad)
        grad_x = _input_gradient(grad, weight)
        return grad_x, None, _weight_gradient(x, grad, weight, ctx.dropped), None


def _plain_gradients(x: Tensor, weight: Tensor, grad: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of `SignProduct.backward` in torch's own operations, to be differentiated."""
    signs = binarize(weight, cancel=False)
    if x.dim() == 2:
        return grad @ signs, None, grad.t() @ x, None
    grad_x = torch.nn.grad.conv2d_input(x.shape, signs, grad, padding=1)
    return grad_x, None, torch.nn.grad.conv2d_weight(x, signs.shape, grad, padding=1), None


def _trace_sums(like: Tensor, outputs: int) -> Tensor:
    """Uninitialized float32 (B, outputs, ...), images with channels last."""
    layout = torch.channels_last if like.dim() == 4 else torch.contiguous_format
    shape = len(like), outputs, *like.shape[2:]
    return torch.empty(shape, dtype=torch.float32, device=like.device, memory_format=layout)


def _trace_product(x: Tensor, weight: Tensor, dropped: bool) -> Tensor:
    return _trace_sums(x, weight.shape[0])


@traced("(Tensor x, Tensor weight, bool dropped) -> Tensor", _trace_product)
def _product(x: Tensor, weight: Tensor, dropped: bool) -> Tensor:
    """The sums: exact, or torch's own where there is a NaN."""
    from bnnlib.kernels.cpu import sign_matmul

    try:
        return sign_matmul.product(x, weight, dropped)
    except ValueError:
        signs = binarize(weight, cancel=False)
        return F.linear(x, signs) if x.dim() == 2 else F.conv2d(x, signs, padding=1)


def _trace_input_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    return _trace_sums(grad, weight.shape[1])


@traced("(Tensor grad, Tensor weight) -> Tensor", _trace_input_gradient)
def _input_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    from bnnlib.kernels.cpu import sign_matmul

    return sign_matmul.input_gradient(grad, weight)


def _trace_weight_gradient(x: Tensor, grad: Tensor, weight: Tensor, dropped: bool) -> Tensor:
    from bnnlib.kernels.cpu import sign_matmul

    memory = grad.new_empty(sign_matmul.gradient_shape(weight))
    return sign_matmul.in_shape_of(weight, memory)


@traced("(Tensor x, Tensor grad, Tensor weight, bool dropped) -> Tensor", _trace_weight_gradient)
def _weight_gradient(x: Tensor, grad: Tensor, weight: Tensor, dropped: bool) -> Tensor:
    from bnnlib.kernels.cpu import sign_matmul

    return sign_matmul.weight_gradient(x, grad, weight, dropped)
