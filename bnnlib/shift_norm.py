"""The passes of shift-based batch normalization over its numbers: fast on a CPU, else torch's.

x, grad and out are (B, C) or (B, C, H, W); values per channel are (C,). Sums over a batch are
torch's, in `normalization`: their order decides their last bits.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from bnnlib.binarize import ap2
from bnnlib.kernels import dispatch


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """(C,) -> (C,), or (C, 1, 1) for images, which broadcasts along axis 1 of x."""
    return values.view((-1,) + (1,) * (x.dim() - 2))


def spread(x: Tensor, mean: Tensor) -> Tensor:
    """AP2(x - mean) (x - mean): its mean is the shift-based variance."""
    if _fits(x):
        return _in_rows("spread", [x], [mean], torch.empty_like(x))
    centred = x - per_channel(mean, x)
    return ap2(centred).mul_(centred)


def affine(x: Tensor, mean: Tensor, factor: Tensor, shift: Tensor, out: Tensor) -> Tensor:
    """(x - mean) factor + shift, in `out`."""
    if _fits(x, out):
        return _in_rows("affine", [x], [mean, factor, shift], out)
    torch.sub(x, per_channel(mean, x), out=out)
    return out.mul_(per_channel(factor, x)).add_(per_channel(shift, x))


def along(x: Tensor, grad: Tensor, mean: Tensor) -> Tensor:
    """grad AP2(x - mean)."""
    if _fits(x, grad):
        return _in_rows("along", [x, grad], [mean], torch.empty_like(x))
    return grad * ap2(x - per_channel(mean, x))


def gradient(
    x: Tensor, grad: Tensor, mean: Tensor, slope: Tensor, factor: Tensor, shift: Tensor, out: Tensor
) -> Tensor:
    """AP2(x - mean) slope + grad factor - shift; in `out`, if the kernel does it."""
    if _fits(x, grad, out):
        return _in_rows("gradient", [x, grad], [mean, slope, factor, shift], out)
    grad_x = ap2(x - per_channel(mean, x)) * per_channel(slope, x)
    return grad_x.addcmul_(grad, per_channel(factor, x)).sub_(per_channel(shift, x))


def _fits(*tensors: Tensor) -> bool:
    """Whether the kernels take these: rows of channels, (B, C), or images, channels last."""
    first = tensors[0]
    return dispatch.fits(*tensors) and first.movedim(1, -1).is_contiguous()


def _in_rows(name: str, large: list[Tensor], channels: list[Tensor], out: Tensor) -> Tensor:
    """Call a kernel of `kernels.cpu.shift_norm` on (rows, C) arrays, and return out."""
    from bnnlib.kernels.cpu import shift_norm
    from bnnlib.kernels.cpu.parallel_for import in_parts

    kernel: Callable = getattr(shift_norm, name)
    rows = [t.detach().movedim(1, -1).flatten(0, -2).numpy() for t in (*large, out)]
    values = [t.detach().contiguous().numpy() for t in channels]
    arrays = (*rows[:-1], *values, rows[-1])
    multiple = max(1, dispatch.ELEMENTS_PER_PIECE // out.shape[1])
    in_parts(lambda *part: kernel(*arrays, *part), len(rows[0]), multiple)
    return out
