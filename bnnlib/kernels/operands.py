"""Operands of the products of packed signs: which kernels take them, and what they must be.

Each `*_outputs` checks the arguments of one op of `bnnlib.xnor` and returns the shapes and dtypes
of its results. They raise ValueError, naming both values, where something doesn't fit.
"""

from functools import cache
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

from bnnlib.kernels import compiles, reference
from bnnlib.kernels.reference import PLANES, output_sides, words_for

REAL = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int32)
LARGEST_SUM = 2**31 - 1  # of an int32
Outputs = list[tuple[tuple[int, ...], torch.dtype]]  # shapes and dtypes of an op's results


@cache
def kernels_of(device_type: str) -> ModuleType:
    """The module with a device's kernels.

    It is the reference where Numba or Triton is missing, or Numba may not compile.
    """
    if device_type == "cpu" and compiles():
        from bnnlib.kernels import cpu

        return cpu
    if device_type == "cuda" and find_spec("triton"):
        from bnnlib.kernels import tensor_cores

        return tensor_cores  # which itself falls back to gpu
    return reference


def _check_words(x: Tensor, k: int, name: str = "x") -> None:
    """Raise ValueError unless the last axis of x holds words of k signs."""
    if x.dtype != torch.int64:
        raise ValueError(f"{name} must hold words, int64, but is {x.dtype}")
    if k < 1:
        raise ValueError(f"{name} must hold at least 1 sign a row, not {k}")
    if x.dim() < 1 or x.shape[-1] != words_for(k):
        raise ValueError(
            f"{name} must have {words_for(k)} words a row for {k} signs, but its shape is "
            f"{tuple(x.shape)}"
        )


def _check_weights(x: Tensor, w: list[Tensor], shape: tuple[int, ...]) -> None:
    """Raise ValueError unless w is packed as x's device packs weights of this shape."""
    for part in w:
        if x.device != part.device:
            raise ValueError(f"x is on {x.device}, but the weights on {part.device}")
    if min(shape) < 1:
        raise ValueError(f"weights must have sizes of at least 1, not {shape}")
    layout = kernels_of(x.device.type).layout
    given = [(tuple(part.shape), part.dtype) for part in w]
    if given not in (layout(shape, planes) for planes in (False, True)):
        wanted = layout(shape)
        raise ValueError(f"weights {shape} are packed as {wanted} on {x.device}, not as {given}")


def _check_thresholds(x: Tensor, thresholds: Tensor | None, n: int) -> None:
    if thresholds is None:
        return
    if x.device != thresholds.device:
        raise ValueError(f"x is on {x.device}, but the thresholds on {thresholds.device}")
    if thresholds.dtype != torch.int32 or thresholds.shape != (n,):
        raise ValueError(
            f"thresholds must be int32 ({n},), but are {thresholds.dtype} {tuple(thresholds.shape)}"
        )


def _check_sums(terms: int, planes: bool) -> None:
    largest = terms * (255 if planes else 1)
    if largest > LARGEST_SUM:
        raise ValueError(f"a sum may reach {largest}, but an int32 holds {LARGEST_SUM}")


def _outputs(rows: tuple[int, ...], n: int, thresholds: Tensor | None) -> Outputs:
    if thresholds is None:
        return [((*rows, n), torch.int32)]
    return [((*rows, words_for(n)), torch.int64)]


def matmul_outputs(
    x: Tensor, w: list[Tensor], shape: list[int], thresholds: Tensor | None
) -> Outputs:
    """The sums or words of a product."""
    if len(shape) != 2:
        raise ValueError(f"xnor_matmul needs weights (N, K), not of shape {tuple(shape)}")
    n, k = shape
    _check_words(x, k)
    if not (x.dim() == 2 or (x.dim() == 3 and x.shape[1] == PLANES)):
        words = x.shape[-1]
        raise ValueError(f"x must be (M, {words}) or (M, {PLANES}, {words}), not {tuple(x.shape)}")
    _check_weights(x, w, (n, k))
    _check_thresholds(x, thresholds, n)
    _check_sums(k, x.dim() == 3)
    return _outputs((x.shape[0],), n, thresholds)


def conv_outputs(
    x: Tensor,
    w: list[Tensor],
    shape: list[int],
    stride: int,
    padding: int,
    thresholds: Tensor | None,
) -> Outputs:
    """The sums or words of a convolution."""
    if len(shape) != 4:
        raise ValueError(f"xnor_conv2d needs weights (N, C, kh, kw), not of shape {tuple(shape)}")
    n, channels, *kernel = shape
    _check_words(x, channels)
    if not (x.dim() == 4 or (x.dim() == 5 and x.shape[3] == PLANES)):
        raise ValueError(
            f"x must be (B, H, W, words) or (B, H, W, {PLANES}, words), not {tuple(x.shape)}"
        )
    if stride < 1 or padding < 0:
        raise ValueError(f"stride must be >= 1 and padding >= 0, not {stride} and {padding}")
    sides = output_sides(x.shape[1:3], kernel, stride, padding)
    if min(sides) < 1:
        raise ValueError(
            f"a kernel {tuple(kernel)} does not fit images {tuple(x.shape[1:3])}, padded {padding}"
        )
    _check_weights(x, w, tuple(shape))
    _check_thresholds(x, thresholds, n)
    _check_sums(channels * kernel[0] * kernel[1], x.dim() == 5)
    return _outputs((x.shape[0], *sides), n, thresholds)


def signs_outputs(x: Tensor) -> Outputs:
    if x.dtype not in REAL:
        raise ValueError(f"x must be real ({', '.join(map(str, REAL))}), but is {x.dtype}")
    _check_last_axis(x)
    return [((*x.shape[:-1], words_for(x.shape[-1])), torch.int64)]


def planes_outputs(x: Tensor) -> Outputs:
    if x.dtype != torch.uint8:
        raise ValueError(f"planes are made of uint8, but x is {x.dtype}")
    _check_last_axis(x)
    return [((*x.shape[:-1], PLANES, words_for(x.shape[-1])), torch.int64)]


def _check_last_axis(x: Tensor) -> None:
    if x.dim() < 1 or x.shape[-1] < 1:
        raise ValueError(f"x must have numbers in its last axis, but its shape is {tuple(x.shape)}")


def unpacked_outputs(words: Tensor, k: int) -> Outputs:
    _check_words(words, k, "words")
    return [((*words.shape[:-1], k), torch.int8)]


def weights_outputs(w: Tensor, planes: bool) -> Outputs:
    if w.dtype not in REAL:
        raise ValueError(f"weights must be real, but are {w.dtype}")
    if w.dim() not in (2, 4) or min(w.shape) < 1:
        raise ValueError(
            f"weights must be (N, K) or (N, C, kh, kw), none of them 0, not {tuple(w.shape)}"
        )
    return kernels_of(w.device.type).layout(tuple(w.shape), planes)
