"""The parts of a packed network: what reads images, hidden layers on bits, and the scores.

Activations are words (B, words of N), or images (B, H, W, words of N).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnlib.folding import Block, fold
from bnnlib.kernels.reference import WORD
from bnnlib.layers import ScaleInput
from bnnlib.pooling import require_even
from bnnlib.xnor import (
    PackedWeights,
    pack_planes,
    pack_signs,
    unpack_signs,
    xnor_conv2d,
    xnor_matmul,
)


@dataclass(frozen=True, eq=False)
class PixelInput:
    """uint8 images -> their bit planes, which the first packed layer reads."""

    convolved: bool
    dtype = torch.uint8

    def __call__(self, images: Tensor) -> Tensor:
        return pack_planes(images.movedim(1, -1) if self.convolved else images.flatten(1))


@dataclass(frozen=True, eq=False)
class ByteInput:
    """uint8 images -> words: the first layer by a GPU's int8 product, faster there than on planes.

    A pixel counts as 2 p - 255 = 2 (p - 128) + 1, and p - 128 is an int8. So weights are doubled,
    and the sum of their signs is added: for images by one more channel of ones, which the
    border does not have. Sums are int32, exact.
    """

    weights: Tensor  # (N, K) int8, filled up with zeros
    thresholds: Tensor  # (N,) int32
    convolved: bool
    dtype = torch.uint8

    @staticmethod
    def from_block(block: Block) -> "ByteInput":
        """The first layer of a network that reads pixels."""
        from bnnlib.kernels.int8 import int8_columns

        thresholds, flipped = fold(block)
        signs = torch.where(flipped, -1.0, 1.0).view(-1, *(1,) * (block.signs.dim() - 1))
        signs = signs * block.signs
        total = signs.sum(1, keepdim=True)
        if signs.dim() == 4:
            weights = torch.cat([2 * signs, total], 1).flatten(1)
        else:
            weights = 2 * signs
            exact = thresholds.long() - total[:, 0].long()
            thresholds = exact.clamp(-(2**31), 2**31 - 1).int()
        return ByteInput(int8_columns(weights.to(torch.int8)), thresholds, signs.dim() == 4)

    def __call__(self, images: Tensor) -> Tensor:
        from bnnlib.kernels.int8 import int8_matmul, int8_rows

        numbers = (images ^ 128).view(torch.int8)
        rows = _patches(numbers) if self.convolved else numbers.flatten(1)
        columns = self.weights.shape[1]
        rows = F.pad(rows, (0, columns - rows.shape[1])) if rows.shape[1] < columns else rows
        sums = int8_matmul(int8_rows(rows), self.weights)[: len(rows), : len(self.thresholds)]
        words = pack_signs((sums >= self.thresholds).to(torch.int8) - 1)
        return words.unflatten(0, (len(images), *images.shape[2:])) if self.convolved else words


def _patches(x: Tensor) -> Tensor:
    """x (B, C, H, W) int8 -> (B H W, 9 (C + 1)): what a 3x3 filter reads at every pixel.

    A channel of ones follows those of x; both are padded with zeros.
    """
    ones = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    windows = F.pad(ones, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)  # (B, C + 1, H, W, 3, 3)
    return windows.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)


@dataclass(frozen=True, eq=False)
class RealInput:
    """Other images -> words: the network's own first layer in float32, then the signs, packed."""

    scale: ScaleInput
    dtype: torch.dtype
    block: Block

    def __call__(self, images: Tensor) -> Tensor:
        return pack_signs(self.block(self.scale(images)).movedim(1, -1))


@dataclass(frozen=True, eq=False)
class PackedLayer:
    """Words, or planes, -> words: product, thresholds, pooling."""

    weights: PackedWeights
    thresholds: Tensor  # (N,) int32
    pooled: bool
    flipped: Tensor | None  # words of N, the rows that changed sign, where pooling has any

    def __call__(self, x: Tensor) -> Tensor:
        if len(self.weights.shape) == 2:
            return xnor_matmul(flat_rows(x, self.weights.shape[1]), self.weights, self.thresholds)
        words = xnor_conv2d(x, self.weights, padding=1, thresholds=self.thresholds)
        return max_pool(words, self.flipped) if self.pooled else words


@dataclass(frozen=True, eq=False)
class Scores:
    """The last layer: words -> (B, classes) float32."""

    weights: PackedWeights
    bias: Tensor
    normalization: nn.Module

    def __call__(self, words: Tensor) -> Tensor:
        sums = xnor_matmul(flat_rows(words, self.weights.shape[1]), self.weights)
        return self.normalization(sums.float() + self.bias)


def flat_rows(x: Tensor, k: int) -> Tensor:
    """The input of a dense layer of k inputs: words (B, H, W, words of C) -> (B, words of k).

    k = H W C, by row, column, channel. Words or planes of rows stay as they are.
    """
    if x.dim() != 4:
        return x
    channels = k // (x.shape[1] * x.shape[2])
    if channels % WORD == 0:
        return x.flatten(1)
    return pack_signs(unpack_signs(x, channels).flatten(1))  # closes the gaps between channels


def max_pool(words: Tensor, flipped: Tensor | None) -> Tensor:
    """2x2: words (B, H, W, words of N), H and W even -> (B, H / 2, W / 2, words of N).

    flipped: words of N, 1 for channels that pool by AND; the others, and all if None, by OR.
    Raises ValueError if H or W is odd.
    """
    require_even(words.shape[1:3], words.shape)
    above = words[:, 0::2]
    below = words[:, 1::2]
    either = above | below
    either = either[:, :, 0::2] | either[:, :, 1::2]
    if flipped is None:
        return either
    both = above & below
    both = both[:, :, 0::2] & both[:, :, 1::2]
    return either ^ ((either ^ both) & flipped)
