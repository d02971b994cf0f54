"""2x2 max pooling with a gradient: in one pass on a CPU where channels come last, else torch's."""

import torch
import torch.nn.functional as F
from torch import Tensor

from bnnlib import fused

ROWS = 16  # of maxima: fewer are not worth a second thread


def max_pool(x: Tensor) -> Tensor:
    """x (B, C, H, W) -> 2x2 maxima (B, C, H / 2, W / 2); the first of equals gets the gradient.

    Away from the CPU it is torch's own, under autograd: its backward pass keeps channels last,
    where `F.max_unpool2d` would copy to and fro. Raises ValueError if H or W is odd.
    """
    if any(size % 2 for size in x.shape[2:]):
        raise ValueError(f"height and width must be even to be halved: {tuple(x.shape)}")
    return MaxPool.apply(x) if x.device.type == "cpu" else F.max_pool2d(x, 2)


class MaxPool(torch.autograd.Function):
    """The rule behind `max_pool` on a CPU: until the backward pass our kernels keep a byte for each
    maximum, torch's eight.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        if fused.fits(x) and x.is_contiguous(memory_format=torch.channels_last):
            out, places = _maxima(x)
        else:
            out, places = F.max_pool2d(x, 2, return_indices=True)
        ctx.save_for_backward(places)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (places,) = ctx.saved_tensors
        ours = places.dtype == torch.uint8
        return _spread(grad, places) if ours else F.max_unpool2d(grad, places, 2)


def _maxima(x: Tensor) -> tuple[Tensor, Tensor]:
    """x (B, C, H, W) -> its maxima, and which of four each is: (B, C, H / 2, W / 2)."""
    from bnnlib.kernels import pooling

    shape = *x.shape[:2], x.shape[2] // 2, x.shape[3] // 2
    out = torch.empty(shape, memory_format=torch.channels_last)
    places = torch.empty(shape, dtype=torch.uint8, memory_format=torch.channels_last)
    _in_rows(pooling.maxima, x, out, places)
    return out, places


def _spread(grad: Tensor, places: Tensor) -> Tensor:
    """grad, places (B, C, H / 2, W / 2) -> (B, C, H, W): grad where the maxima were, else 0."""
    from bnnlib.kernels import pooling

    shape = *grad.shape[:2], 2 * grad.shape[2], 2 * grad.shape[3]
    out = torch.empty(shape, memory_format=torch.channels_last)
    _in_rows(pooling.spread, grad.contiguous(memory_format=torch.channels_last), places, out)
    return out


def _in_rows(kernel, *images: Tensor) -> None:
    """Call kernel on rows of images (B, C, H, W), channels last, given as (B H, W, C)."""
    from bnnlib.kernels.threads import in_parts

    rows = [image.detach().movedim(1, -1) for image in images]
    arrays = [row.view(-1, *row.shape[2:]).numpy() for row in rows]
    in_parts(lambda *part: kernel(*arrays, *part), min(map(len, arrays)), ROWS)
