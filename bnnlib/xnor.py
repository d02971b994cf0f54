"""Products of signs packed in bits: 64 to a word, exact, as torch ops. Knows the kernels alone.

`bnnlib.kernels.reference` says what words, planes and images are, and computes all of this in plain
torch. The ops check what they are given and hand it to the kernels of the device that it is on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from bnnlib.kernels import compiles, reference
from bnnlib.kernels.reference import PLANES, output_sides, words_for

REAL = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int32)
LARGEST = 2**31 - 1  # of an int32 sum
Outputs = list[tuple[tuple[int, ...], torch.dtype]]  # what an op returns: shapes and dtypes


@dataclass(frozen=True)
class PackedWeights:
    """Signs of weights in the layout that a device's kernels want, as `pack_weights` makes them."""

    tensors: list[Tensor]
    shape: tuple[int, ...]  # of the weights: (N, K) or (N, C, kh, kw)


def pack_signs(x: Tensor) -> Tensor:
    """x (..., K) real -> words (..., ceil(K / 64)) int64 of its signs; sign(0) = sign(-0.0) = +1.

    Raises ValueError for a NaN on a CPU; on a GPU, where looking would cost more than packing, a
    NaN counts as -1.
    """
    return torch.ops.bnnlib.pack_signs(x)


def pack_planes(x: Tensor) -> Tensor:
    """x (..., K) uint8 -> its bit planes (..., 8, ceil(K / 64)) int64: to a product 2 x - 255."""
    return torch.ops.bnnlib.pack_planes(x)


def unpack_signs(words: Tensor, k: int) -> Tensor:
    """words (..., ceil(k / 64)) int64 -> (..., k) int8 in {-1, +1}: undoes `pack_signs`."""
    return torch.ops.bnnlib.unpack_signs(words, k)


def pack_weights(w: Tensor, planes: bool = False) -> PackedWeights:
    """w (N, K) or (N, C, kh, kw) real -> its signs as the kernels of its device want them.

    planes: whether what they multiply is planes. Either way they multiply both, exactly; some
    processors are faster with the right one.
    """
    return PackedWeights(torch.ops.bnnlib.pack_weights(w, planes), tuple(w.shape))


def xnor_matmul(x: Tensor, weights: PackedWeights, thresholds: Tensor | None = None) -> Tensor:
    """x sign(W)^T: words (M, words of K), or planes (M, 8, words of K), -> (M, N) int32.

    thresholds: int32 (N,); then the result is words (M, words of N) of [sum >= threshold].
    Raises ValueError, naming both values, where dtypes, devices or sizes don't fit.
    """
    return torch.ops.bnnlib.xnor_matmul.default(x, weights.tensors, weights.shape, thresholds)


def xnor_conv2d(
    x: Tensor,
    weights: PackedWeights,
    stride: int = 1,
    padding: int = 0,
    thresholds: Tensor | None = None,
) -> Tensor:
    """Convolution with sign(W) (N, C, kh, kw): words (B, H, W, words of C), or planes
    (B, H, W, 8, words of C), -> (B, Ho, Wo, N) int32, or words (B, Ho, Wo, words of N) as above.

    Padding is exact: it counts as 0, as if the +-1 (or 2 p - 255) had been padded with zeros.
    """
    return torch.ops.bnnlib.xnor_conv2d(
        x, weights.tensors, weights.shape, stride, padding, thresholds
    )


@cache
def _kernels(device_type: str):
    """The module with a device's kernels; the reference where Numba or Triton is missing, or
    Numba may not compile."""
    if device_type == "cpu" and compiles():
        from bnnlib.kernels import cpu

        return cpu
    if device_type == "cuda" and find_spec("triton"):
        from bnnlib.kernels import gpu_b1

        return gpu_b1  # which itself falls back to gpu
    return reference


def _check_words(x: Tensor, k: int, name: str = "x") -> None:
    """Whether the last axis of x holds words of k signs."""
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
    """Whether w is what x's device makes of weights of this shape."""
    for part in w:
        if x.device != part.device:
            raise ValueError(f"x is on {x.device}, but the weights on {part.device}")
    if min(shape) < 1:
        raise ValueError(f"weights must have sizes of at least 1, not {shape}")
    layout = _kernels(x.device.type).layout
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
    if largest > LARGEST:
        raise ValueError(f"a sum may reach {largest}, but an int32 holds {LARGEST}")


def _outputs(rows: tuple[int, ...], n: int, thresholds: Tensor | None) -> Outputs:
    if thresholds is None:
        return [((*rows, n), torch.int32)]
    return [((*rows, words_for(n)), torch.int64)]


def _matmul_outputs(
    x: Tensor, w: list[Tensor], shape: list[int], thresholds: Tensor | None
) -> Outputs:
    """What a product returns; raises ValueError where something doesn't fit."""
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


def _conv_outputs(
    x: Tensor,
    w: list[Tensor],
    shape: list[int],
    stride: int,
    padding: int,
    thresholds: Tensor | None,
) -> Outputs:
    """What a convolution returns; raises ValueError where something doesn't fit."""
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


def _signs_outputs(x: Tensor) -> Outputs:
    if x.dtype not in REAL:
        raise ValueError(f"x must be real ({', '.join(map(str, REAL))}), but is {x.dtype}")
    _check_last_axis(x)
    return [((*x.shape[:-1], words_for(x.shape[-1])), torch.int64)]


def _planes_outputs(x: Tensor) -> Outputs:
    if x.dtype != torch.uint8:
        raise ValueError(f"planes are made of uint8, but x is {x.dtype}")
    _check_last_axis(x)
    return [((*x.shape[:-1], PLANES, words_for(x.shape[-1])), torch.int64)]


def _check_last_axis(x: Tensor) -> None:
    if x.dim() < 1 or x.shape[-1] < 1:
        raise ValueError(f"x must have numbers in its last axis, but its shape is {tuple(x.shape)}")


def _unpacked_outputs(words: Tensor, k: int) -> Outputs:
    _check_words(words, k, "words")
    return [((*words.shape[:-1], k), torch.int8)]


def _weights_outputs(w: Tensor, planes: bool) -> Outputs:
    if w.dtype not in REAL:
        raise ValueError(f"weights must be real, but are {w.dtype}")
    if w.dim() not in (2, 4) or min(w.shape) < 1:
        raise ValueError(
            f"weights must be (N, K) or (N, C, kh, kw), none of them 0, not {tuple(w.shape)}"
        )
    return _kernels(w.device.type).layout(tuple(w.shape), planes)


def _pack_weights(w: Tensor, planes: bool) -> list[Tensor]:
    if w.device.type == "cpu" and w.isnan().any():
        raise ValueError("the weights hold a NaN, which has no sign")
    return _kernels(w.device.type).pack_weights(w, planes)


def _register(schema: str, check: Callable[..., Outputs], kernel: Callable) -> None:
    """Make a torch op that checks its arguments, then runs `kernel`; traced, it only checks."""
    name = f"bnnlib::{schema.split('(')[0]}"
    single = not schema.endswith("[]")

    def run(*arguments):
        check(*arguments)
        return kernel(*arguments)

    def trace(*arguments):
        first = arguments[0]
        empty = [first.new_empty(shape, dtype=dtype) for shape, dtype in check(*arguments)]
        return empty[0] if single else empty

    torch.library.define(name, schema.removeprefix(schema.split("(")[0]))
    torch.library.impl(name, ("cpu", "cuda"))(run)
    torch.library.register_fake(name)(trace)


def _on_device(name: str) -> Callable:
    """The kernel of that name of the device that the first argument is on."""
    return lambda x, *rest: getattr(_kernels(x.device.type), name)(x, *rest)


_register("pack_signs(Tensor x) -> Tensor", _signs_outputs, _on_device("pack_signs"))
_register("pack_planes(Tensor x) -> Tensor", _planes_outputs, _on_device("pack_planes"))
_register("unpack_signs(Tensor words, int k) -> Tensor", _unpacked_outputs, reference.unpack_signs)
_register("pack_weights(Tensor w, bool planes) -> Tensor[]", _weights_outputs, _pack_weights)
_register(
    "xnor_matmul(Tensor x, Tensor[] w, int[] shape, Tensor? thresholds) -> Tensor",
    _matmul_outputs,
    _on_device("xnor_matmul"),
)
_register(
    "xnor_conv2d(Tensor x, Tensor[] w, int[] shape, int stride, int padding, Tensor? thresholds)"
    " -> Tensor",
    _conv_outputs,
    _on_device("xnor_conv2d"),
)
