"""Products and convolutions of packed signs on a GPU: on binary tensor cores where those are right.

`available` compares results with the popcount kernel's on the device itself, and says no wherever
it isn't Hopper. Whatever is no product of many rows of signs is `gpu`'s. The caller has checked
operands.
"""

from functools import cache

import torch
from torch import Tensor

from bnnlib.kernels import gpu, gpu_b1, gpu_b1_convolution
from bnnlib.kernels.gpu_packing import layout, pack_planes, pack_signs, pack_weights

__all__ = ["layout", "pack_planes", "pack_signs", "pack_weights", "xnor_conv2d", "xnor_matmul"]


def xnor_matmul(
    x: Tensor, w: list[Tensor], shape: tuple[int, int], thresholds: Tensor | None
) -> Tensor:
    """`gpu.xnor_matmul`, by binary tensor cores for more than a few rows of signs."""
    if x.dim() == 3 or len(x) <= gpu.FEW_ROWS or not available(x.device):
        return gpu.xnor_matmul(x, w, shape, thresholds)
    if thresholds is None:
        return gpu_b1.matmul(x, w, shape)
    return gpu_b1.matmul_signs(x, w, shape, thresholds)


def xnor_conv2d(
    x: Tensor,
    w: list[Tensor],
    shape: tuple[int, int, int, int],
    stride: int,
    padding: int,
    thresholds: Tensor | None,
) -> Tensor:
    """`gpu.xnor_conv2d`, by binary tensor cores for 3x3 convolutions of signs."""
    shape = tuple(shape)
    if not gpu_b1_convolution.fits(x, shape, stride, padding) or not available(x.device):
        return gpu.xnor_conv2d(x, w, shape, stride, padding, thresholds)
    return gpu_b1_convolution.xnor_conv2d(x, w, shape, thresholds)


def available(device: torch.device) -> bool:
    """Whether `multiply` is exact on this device: Hopper, b1 in the PTX, and equal results.

    Found out at the first call, which takes seconds to compile; not inside a CUDA graph's capture.
    """
    return not why_not(device)


def why_not(device: torch.device) -> str:
    """The reason why `multiply` is not used on this device, for people; empty if it is."""
    device = torch.device(device)
    if device.type != "cuda" or not torch.cuda.is_available():
        return f"{device} is no CUDA device"
    return _doubt(torch.cuda.current_device() if device.index is None else device.index)


@cache
def _doubt(index: int) -> str:
    capability = torch.cuda.get_device_capability(index)
    if capability != (9, 0):
        return f"binary tensor cores were tried on capability 9.0 only, this is {capability}"
    try:
        gpu_b1.compare(torch.device("cuda", index))
        gpu_b1_convolution.compare(torch.device("cuda", index))
    except Exception as error:  # whatever it is, the popcount kernel is there
        return f"{type(error).__name__}: {error}"
    return ""
