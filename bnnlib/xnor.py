"""Products of signs packed in bits: 64 to a word, exact, as torch ops. Knows the kernels alone.

`bnnlib.kernels.reference` says what words, planes and images are, and computes all of this in plain
torch. The ops check what they are given and hand it to the kernels of the device that it is on.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bnnlib.kernels import operands, reference
from bnnlib.kernels.operands import Outputs


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
    processors are faster with the right one. Raises ValueError for a NaN on a CPU.
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
    """Convolve with sign(W) (N, C, kh, kw): -> (B, Ho, Wo, N) int32.

    x: words (B, H, W, words of C), or planes (B, H, W, 8, words of C). thresholds: as in
    `xnor_matmul`; then the result is words (B, Ho, Wo, words of N).

    Padding is exact: it counts as 0, as if the +-1 (or 2 p - 255) had been padded with zeros.
    """
    return torch.ops.bnnlib.xnor_conv2d(
        x, weights.tensors, weights.shape, stride, padding, thresholds
    )


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
    """A call of the kernel of that name on the device of the first argument."""
    return lambda x, *rest: getattr(operands.kernels_of(x.device.type), name)(x, *rest)


_register("pack_signs(Tensor x) -> Tensor", operands.signs_outputs, _on_device("pack_signs"))
_register("pack_planes(Tensor x) -> Tensor", operands.planes_outputs, _on_device("pack_planes"))
_register(
    "unpack_signs(Tensor words, int k) -> Tensor",
    operands.unpacked_outputs,
    reference.unpack_signs,
)
_register(
    "pack_weights(Tensor w, bool planes) -> Tensor[]",
    operands.weights_outputs,
    _on_device("pack_weights"),
)
_register(
    "xnor_matmul(Tensor x, Tensor[] w, int[] shape, Tensor? thresholds) -> Tensor",
    operands.matmul_outputs,
    _on_device("xnor_matmul"),
)
_register(
    "xnor_conv2d(Tensor x, Tensor[] w, int[] shape, int stride, int padding, Tensor? thresholds)"
    " -> Tensor",
    operands.conv_outputs,
    _on_device("xnor_conv2d"),
)
