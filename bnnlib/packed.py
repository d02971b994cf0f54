"""Networks that run on bits: packed from the first hidden layer to the last, exact to the bit.

Bits and sums are exact; plain torch's scores may differ from these in its own rounding of the first
layer. `bnnlib.folding` says what is computed and why; this module keeps it packed, between
the products of `bnnlib.xnor`. Activations are words (B, words of N), or images (B, H, W, words of
N). `bnnlib.classify` is the command line.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnlib.folding import Block, blocks, fold, reads_pixels
from bnnlib.kernels.reference import WORD
from bnnlib.layer_order import require_sizes
from bnnlib.layers import ScaleInput
from bnnlib.models import image_shape
from bnnlib.network_file import about, load_network, name_of
from bnnlib.pooling import require_even
from bnnlib.xnor import (
    PackedWeights,
    pack_planes,
    pack_signs,
    pack_weights,
    unpack_signs,
    xnor_conv2d,
    xnor_matmul,
)

CHUNK = 2**24  # bytes that first layers read or write at once: small beside a machine's memory,
# yet 20,000 MNIST or 256 CIFAR-10 images, as many as keep all processors busy
DIGITS, PICTURES = image_shape("mlp"), image_shape("convnet")  # as the paper's networks read them


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
    and what their signs sum to is added: for images by one more channel of ones, which the
    border does not have. Sums are int32, exact.
    """

    weights: Tensor  # (N, K) int8, filled up with zeros
    thresholds: Tensor  # (N,) int32
    convolved: bool
    dtype = torch.uint8

    @staticmethod
    def of(block: Block) -> "ByteInput":
        """The first layer of a network that reads pixels."""
        from bnnlib.kernels.gpu_b1 import int8_columns

        thresholds, flipped = fold(block)
        signs = torch.where(flipped, -1.0, 1.0).view(-1, *(1,) * (block.signs.dim() - 1))
        signs = signs * block.signs
        total = signs.sum(1, keepdim=True)
        if signs.dim() == 4:
            weights = torch.cat([2 * signs, total], 1).flatten(1)
        else:
            weights = 2 * signs
            least, most = -(2**31), 2**31 - 1
            thresholds = (thresholds.long() - total[:, 0].long()).clamp(least, most).int()
        return ByteInput(int8_columns(weights.to(torch.int8)), thresholds, signs.dim() == 4)

    def __call__(self, images: Tensor) -> Tensor:
        from bnnlib.kernels.gpu_b1 import int8_matmul, int8_rows

        numbers = (images ^ 128).view(torch.int8)
        rows = _patches(numbers) if self.convolved else numbers.flatten(1)
        columns = self.weights.shape[1]
        rows = F.pad(rows, (0, columns - rows.shape[1])) if rows.shape[1] < columns else rows
        sums = int8_matmul(int8_rows(rows), self.weights)[: len(rows), : len(self.thresholds)]
        words = pack_signs((sums >= self.thresholds).to(torch.int8) - 1)
        return words.unflatten(0, (len(images), *images.shape[2:])) if self.convolved else words


def _patches(x: Tensor) -> Tensor:
    """x (B, C, H, W) int8 -> (B H W, 9 (C + 1)): what a 3x3 filter reads of x and of a channel of
    ones, both padded with zeros.
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
            return xnor_matmul(_rows(x, self.weights.shape[1]), self.weights, self.thresholds)
        words = xnor_conv2d(x, self.weights, padding=1, thresholds=self.thresholds)
        return max_pool(words, self.flipped) if self.pooled else words


@dataclass(frozen=True, eq=False)
class Scores:
    """The last layer: words -> (B, classes) float32."""

    weights: PackedWeights
    bias: Tensor
    normalization: nn.Module

    def __call__(self, words: Tensor) -> Tensor:
        sums = xnor_matmul(_rows(words, self.weights.shape[1]), self.weights)
        return self.normalization(sums.float() + self.bias)


@dataclass(frozen=True, eq=False)
class PackedNetwork:
    """Images (B, *shape) -> scores (B, classes) float32; made by `pack` or `load`, for one device.

    Shape is (28, 28) or (3, 32, 32), or what the network was made for. Images are uint8 pixels, or
    for networks trained on whitened or contrast-normalized images float32, normalized likewise:
    `first.dtype`.
    """

    shape: tuple[int, ...]
    first: PixelInput | ByteInput | RealInput
    layers: tuple[PackedLayer, ...]
    scores: Scores
    at_once: int  # images to a chunk

    def __call__(self, images: Tensor) -> Tensor:
        """Raises ValueError, naming both, for images of another dtype, shape or device."""
        return torch.cat([self._scores(chunk) for chunk in images.split(self.at_once)])

    def hidden(self, images: Tensor) -> Iterator[Tensor]:
        """Yields the words of each hidden layer, pooled, first to last; unpack with `unpack_signs`.

        All images go at once. Raises as a call does.
        """
        self._check(images)
        x = self.first(images)
        if not isinstance(self.first, PixelInput):
            yield x
        for layer in self.layers:
            x = layer(x)
            yield x

    def packed_bytes(self) -> int:
        """What it occupies: about a bit a weight, two where a CPU looks products up in tables, and
        32 a weight of a real first layer."""
        held = [self.scores.bias, *self.scores.normalization.state_dict().values()]
        held += self.scores.weights.tensors
        for layer in self.layers:
            held += [*layer.weights.tensors, layer.thresholds]
            held += [] if layer.flipped is None else [layer.flipped]
        if isinstance(self.first, RealInput):
            block = self.first.block
            held += [block.signs, block.bias, *block.normalization.state_dict().values()]
        if isinstance(self.first, ByteInput):
            held += [self.first.weights, self.first.thresholds]
        return sum(tensor.nbytes for tensor in held)

    def _scores(self, images: Tensor) -> Tensor:
        for words in self.hidden(images):  # noqa: B007
            pass
        return self.scores(words)

    def _check(self, images: Tensor) -> None:
        dtype, device = self.first.dtype, self.scores.bias.device
        if images.dtype != dtype or images.shape[1:] != self.shape or images.device != device:
            wanted = ", ".join(map(str, self.shape))
            raise ValueError(
                f"this network reads images (B, {wanted}) of {dtype} on {device}, but got "
                f"{tuple(images.shape)} of {images.dtype} on {images.device}"
            )


def _rows(x: Tensor, k: int) -> Tensor:
    """What a dense layer of k inputs reads: words (B, H, W, words of C), k = H W C -> (B, words of
    k), by row, column, channel; words or planes of rows stay as they are."""
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
    above, below = words[:, 0::2], words[:, 1::2]
    either = above | below
    either = either[:, :, 0::2] | either[:, :, 1::2]
    if flipped is None:
        return either
    both = above & below
    both = both[:, :, 0::2] & both[:, :, 1::2]
    return either ^ ((either ^ both) & flipped)


def pack(network: nn.Sequential, shape: tuple[int, ...] | None = None) -> PackedNetwork:
    """The network, as `models.build` makes it, on bits; for the device that it is on.

    shape: of an image, (H, W) or (C, H, W); None: (28, 28), or (3, 32, 32) for convolutions.

    A copy: what later happens to `network` does not reach it. It computes what `folding.reference`
    does, every hidden bit and score; what `network` does in evaluation mode, but for rounding.
    Networks of somebody's own layers are packed, too, if `layer_order` admits them. Raises
    ValueError for a float twin, for real activations, for values that are not finite, and, naming
    the layer, for an order or sizes that packed networks don't have.
    """
    parts = blocks(network)
    convolved = parts[0].signs.dim() == 4
    shape = shape or (PICTURES if convolved else DIGITS)
    require_sizes(network, shape)
    hidden = list(pairwise((None, *parts)))[:-1]
    blank = torch.zeros(1, *shape, dtype=torch.uint8, device=parts[0].bias.device)
    if reads_pixels(network) and _multiplies_bytes(blank):
        first, hidden = ByteInput.of(parts[0]), hidden[1:]
        largest = first(blank).nbytes
    elif reads_pixels(network):
        first = PixelInput(convolved)
        largest = first(blank).nbytes
    else:
        first, hidden = RealInput(*_scaling(network[0]), parts[0]), hidden[1:]
        largest = parts[0](blank.float()).nbytes
    layers = tuple(_packed_layer(before, block) for before, block in hidden)
    last = parts[-1]
    signs = _behind(parts[-2] if len(parts) > 1 else None, last.signs)
    scores = Scores(pack_weights(signs), last.bias, last.normalization)
    return PackedNetwork(shape, first, layers, scores, max(1, CHUNK // largest))


def _multiplies_bytes(images: Tensor) -> bool:
    """Whether a first layer of pixels is an int8 product where these images lie."""
    return images.device.type == "cuda" and find_spec("triton") is not None


def _scaling(scale: ScaleInput) -> tuple[ScaleInput, torch.dtype]:
    """A copy, and what it scales. Pixels of 8 bits vary by more than 1, so that a network scales
    them by less; images that training had whitened or contrast-normalized it scales by 1 or more.
    """
    return deepcopy(scale), torch.uint8 if scale.scale < 1 else torch.float32


def _behind(before: Block | None, signs: Tensor) -> Tensor:
    """A layer's signs as its words go: networks flatten images by channel, row, column, but `_rows`
    by row, column, channel."""
    if before is None or before.signs.dim() == 2 or signs.dim() == 4:
        return signs
    return signs.unflatten(1, (len(before.signs), -1)).transpose(1, 2).flatten(1)


def _packed_layer(before: Block | None, block: Block) -> PackedLayer:
    """block, behind `before`; None if it reads the images."""
    thresholds, flipped = fold(block)
    signs = torch.where(flipped, -1.0, 1.0).view(-1, *(1,) * (block.signs.dim() - 1)) * block.signs
    signs = _behind(before, signs)
    by_and = block.pooled and bool(flipped.any())
    mask = pack_signs(torch.where(flipped, 1.0, -1.0)) if by_and else None
    packed = pack_weights(signs, planes=before is None)
    return PackedLayer(packed, thresholds, block.pooled, mask)


def load(source: str | Path | bytes, device: str = "cpu") -> PackedNetwork:
    """Read a network file (`network_file.save_network`), by its path or as bytes, and pack it for a
    device.

    Raises ValueError, in one sentence, for a damaged file or a network that cannot be packed, and
    OSError where there is none.
    """
    if not isinstance(source, bytes):
        require_file(source)
    network, shape = load_network(source).to(device), about(source).shape
    try:
        return pack(network, shape)
    except ValueError as error:
        raise ValueError(f"{name_of(source)}: {error}") from error


def require_file(path: str | Path) -> Path:
    """The path of an existing file. Raises FileNotFoundError, in a sentence, for any other."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is no file")
    return Path(path)


def predict(network: PackedNetwork, images: Tensor) -> Tensor:
    """Images (B, ...), as the network reads them, -> classes (B,) int64."""
    return network(images).argmax(1)
