"""2x2 max pooling with a gradient: in one pass on a CPU where channels come last, else torch's."""

import torch
import torch.nn.functional as F
from torch import Tensor

from bnnlib.kernels import dispatch
from bnnlib.traced import traced

ROWS_PER_PIECE = 16  # of maxima: fewer are not worth a second thread


def require_even(sides: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Raise ValueError, naming the shape that they are from, if a side of an image is odd."""
    if any(side % 2 for side in sides):
        raise ValueError(f"height and width must be even to be halved: {tuple(shape)}")


def max_pool(x: Tensor) -> Tensor:
    """x (B, C, H, W) -> 2x2 maxima (B, C, H / 2, W / 2); the first of equals gets the gradient.

    Away from the CPU it is torch's own, under autograd: its backward pass keeps channels last,
    where `F.max_unpool2d` would copy to and fro. Raises ValueError if H or W is odd.
    """
    require_even(x.shape[2:], x.shape)
    return MaxPool.apply(x) if x.device.type == "cpu" else F.max_pool2d(x, 2)


class MaxPool(torch.autograd.Function):
    """The autograd function behind `max_pool` on a CPU.

    Until the backward pass our kernels keep a byte for each maximum, torch's eight.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        if dispatch.fits(x) and x.is_contiguous(memory_format=torch.channels_last):
            out, places = _maxima(x)
        else:
            out, places = F.max_pool2d(x, 2, return_indices=True)
        ctx.save_for_backward(places)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (places,) = ctx.saved_tensors
        if places.dtype != torch.uint8:
            return F.max_unpool2d(grad, places, 2)
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # create_graph
            return _plain_spread(grad, places)
        return _spread(grad, places)


def _channels_last(shape: tuple[int, ...], like: Tensor, dtype: torch.dtype) -> Tensor:
    """Uninitialized (B, C, H, W) on the device of `like`."""
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=torch.channels_last)


def _trace_maxima(x: Tensor) -> tuple[Tensor, Tensor]:
    shape = *x.shape[:2], x.shape[2] // 2, x.shape[3] // 2
    return _channels_last(shape, x, x.dtype), _channels_last(shape, x, torch.uint8)


@traced("(Tensor x) -> (Tensor, Tensor)", _trace_maxima)
def _maxima(x: Tensor) -> tuple[Tensor, Tensor]:
    """x (B, C, H, W) -> its maxima, and which of four each is: (B, C, H / 2, W / 2)."""
    from bnnlib.kernels.cpu import pooling

    out, places = _trace_maxima(x)
    _in_rows(pooling.maxima, x, out, places)
    return out, places


def _trace_spread(grad: Tensor, places: Tensor) -> Tensor:
    shape = *grad.shape[:2], 2 * grad.shape[2], 2 * grad.shape[3]
    return _channels_last(shape, grad, grad.dtype)


@traced("(Tensor grad, Tensor places) -> Tensor", _trace_spread)
def _spread(grad: Tensor, places: Tensor) -> Tensor:
    """grad, places (B, C, H / 2, W / 2) -> (B, C, H, W): grad where the maxima were, else 0."""
    from bnnlib.kernels.cpu import pooling

    out = _trace_spread(grad, places)
    _in_rows(pooling.spread, grad.contiguous(memory_format=torch.channels_last), places, out)
    return out


def _plain_spread(grad: Tensor, places: Tensor) -> Tensor:
    """`_spread` in torch's own operations, to be differentiated."""
    rows = [torch.stack([grad * (places == p) for p in pair], 4) for pair in ((0, 1), (2, 3))]
    return torch.stack([row.flatten(3) for row in rows], 3).flatten(2, 3)


def _in_rows(kernel, *images: Tensor) -> None:
    """Call kernel on rows of images (B, C, H, W), channels last, given as (B H, W, C)."""
    from bnnlib.kernels.cpu.parallel_for import in_parts

    rows = [image.detach().movedim(1, -1) for image in images]
    arrays = [row.view(-1, *row.shape[2:]).numpy() for row in rows]
    in_parts(lambda *part: kernel(*arrays, *part), min(map(len, arrays)), ROWS_PER_PIECE)
