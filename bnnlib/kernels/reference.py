"""The binary kernels in plain torch, on any device. Slow and exact: their oracle.

Words are int64: bit j of word i is element 64 i + j of the last axis, 1 for +1 and 0 for -1; bits
behind the last element are 0. Planes are the eight bits of uint8 numbers p, lowest first, each in
words; as signs they weigh 1, 2, 4, ..., 128 and sum to 2 p - 255, so a product with planes is one
with these integers. Images are (B, H, W, words) or (B, H, W, 8, words).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

WORD = 64
PLANES = 8


def words_for(count: int) -> int:
    """The number of words that hold `count` signs."""
    return -(-count // WORD)


def output_sides(
    sides: Sequence[int], kernel: Sequence[int], stride: int, padding: int
) -> tuple[int, ...]:
    """Height and width of what a convolution makes of images; below 1 if the kernel doesn't fit."""
    return tuple(
        (size + 2 * padding - taps) // stride + 1 for size, taps in zip(sides, kernel, strict=True)
    )


def pack_bits(bits: Tensor) -> Tensor:
    """(..., K) bool -> (..., words) int64."""
    padded = F.pad(bits.to(torch.int64), (0, -bits.shape[-1] % WORD))
    places = torch.arange(WORD, device=bits.device)
    return (padded.unflatten(-1, (-1, WORD)) << places).sum(-1)


def unpack_bits(words: Tensor, k: int) -> Tensor:
    """(..., words) int64 -> (..., k) bool."""
    places = torch.arange(WORD, device=words.device)
    return ((words.unsqueeze(-1) >> places) & 1).flatten(-2)[..., :k].bool()


def pack_signs(x: Tensor) -> Tensor:
    """(..., K) real -> (..., words): sign(0) = sign(-0.0) = +1. Raises ValueError for a NaN."""
    if x.isnan().any():
        raise ValueError("a NaN has no sign")
    return pack_bits(x >= 0)


def unpack_signs(words: Tensor, k: int) -> Tensor:
    """(..., words) -> (..., k) int8 in {-1, +1}."""
    return 2 * unpack_bits(words, k).to(torch.int8) - 1


def pack_planes(x: Tensor) -> Tensor:
    """(..., K) uint8 -> (..., 8, words)."""
    places = torch.arange(PLANES, device=x.device)[:, None]
    return pack_bits((x.long().unsqueeze(-2) >> places & 1).bool())


def layout(
    shape: tuple[int, ...], planes: bool = False
) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """Shapes and dtypes of what `pack_weights` makes of weights of this shape."""
    return [((shape[0], *shape[2:], words_for(shape[1])), torch.int64)]


def pack_weights(w: Tensor, planes: bool = False) -> list[Tensor]:
    """(N, K) -> [words (N, .) of its rows]; (N, C, kh, kw) -> [(N, kh, kw, .)].

    `planes` changes nothing.
    """
    return [pack_signs(w.movedim(1, -1))]


def integers(x: Tensor, k: int, planes: bool) -> Tensor:
    """Words (..., words) -> (..., k) float64 in {-1, +1}; planes (..., 8, words) -> 2 p - 255."""
    signs = unpack_signs(x, k).double()
    if not planes:
        return signs
    return (signs * (1 << torch.arange(PLANES, device=x.device))[:, None]).sum(-2)


def _finish(sums: Tensor, thresholds: Tensor | None) -> Tensor:
    """(..., N) exact sums -> int32, or words of [sum >= threshold]."""
    sums = sums.to(torch.int32)
    return sums if thresholds is None else pack_bits(sums >= thresholds)


def xnor_matmul(
    x: Tensor, w: list[Tensor], shape: tuple[int, int], thresholds: Tensor | None
) -> Tensor:
    """x (M, words) or (M, 8, words), w = `pack_weights` of (N, K) = shape -> (M, N) int32.

    thresholds: None, or int32 (N,), then the result is (M, words of N): bits [sum >= threshold].
    """
    sums = integers(x, shape[1], x.dim() == 3) @ integers(w[0], shape[1], False).t()
    return _finish(sums, thresholds)


def xnor_conv2d(
    x: Tensor,
    w: list[Tensor],
    shape: tuple[int, int, int, int],
    stride: int,
    padding: int,
    thresholds: Tensor | None,
) -> Tensor:
    """x (B, H, W, words) or (B, H, W, 8, words) -> (B, Ho, Wo, N) int32.

    w = `pack_weights` of (N, C, kh, kw) = shape. With thresholds the result is words
    (B, Ho, Wo, words of N). The padding counts as 0.
    """
    images = integers(x, shape[1], x.dim() == 5).movedim(-1, 1)
    filters = integers(w[0], shape[1], False).movedim(-1, 1)
    sums = F.conv2d(images, filters, stride=stride, padding=padding)
    return _finish(sums.movedim(1, -1), thresholds)
