"""Networks that run on bits: packed from the first hidden layer to the last, exact to the bit.

Bits and sums are exact; plain torch's scores may differ from these in its own rounding of the first
layer. `bnnlib.folding` says what is computed and why; this module keeps it packed, between
the products of `bnnlib.xnor`. Activations are words (B, words of N), or images (B, H, W, words of
N): see `packed_layers`. `bnnlib.classify` is the command line.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from bnnlib.folding import Block, blocks, fold, reads_pixels
from bnnlib.layer_order import require_sizes
from bnnlib.layers import ScaleInput
from bnnlib.models import image_shape
from bnnlib.network_file import about, load_network, name_of
from bnnlib.packed_layers import ByteInput, PackedLayer, PixelInput, RealInput, Scores
from bnnlib.variants import without_scales
from bnnlib.xnor import pack_signs, pack_weights

# Bytes that first layers read or write at once: small beside a machine's memory, yet 20,000 MNIST
# or 256 CIFAR-10 images, enough to keep all processors busy
CHUNK_BYTES = 2**24
DIGITS = image_shape("mlp")  # as the paper's networks read them
PICTURES = image_shape("convnet")


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
        """Return the scores. Raises ValueError for images of another dtype, shape or device."""
        return torch.cat([self._scores(chunk) for chunk in images.split(self.at_once)])

    def hidden(self, images: Tensor) -> Iterator[Tensor]:
        """Yield the words of each hidden layer, pooled, first to last; unpack with `unpack_signs`.

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
        """Bytes that it occupies.

        They are about a bit a weight, two where a CPU looks products up in tables, and 32 a weight
        of a real first layer.
        """
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
        dtype = self.first.dtype
        device = self.scores.bias.device
        if images.dtype != dtype or images.shape[1:] != self.shape or images.device != device:
            wanted = ", ".join(map(str, self.shape))
            raise ValueError(
                f"this network reads images (B, {wanted}) of {dtype} on {device}, but got "
                f"{tuple(images.shape)} of {images.dtype} on {images.device}"
            )


def pack(network: nn.Sequential, shape: tuple[int, ...] | None = None) -> PackedNetwork:
    """The network, as `models.build` makes it, on bits; for the device that it is on.

    shape: of an image, (H, W) or (C, H, W); None: (28, 28), or (3, 32, 32) for convolutions.

    A copy: what later happens to `network` does not reach it. It computes what `folding.reference`
    does, every hidden bit and score; what `network` does in evaluation mode, but for rounding.
    Networks of somebody's own layers are packed, too, if `layer_order` admits them. Scales of
    filters (`variants`) go into the batch normalization behind them, and so into its thresholds.
    Raises ValueError for a float twin, for real activations, for values that are not finite, and,
    naming the layer, for an order or sizes that packed networks don't have.
    """
    network = without_scales(network)
    parts = blocks(network)
    shape = shape or (PICTURES if parts[0].signs.dim() == 4 else DIGITS)
    require_sizes(network, shape)
    first, largest = _input(network, parts[0], shape)
    hidden = list(pairwise((None, *parts)))[:-1]
    if not isinstance(first, PixelInput):  # the others are the first layer, too
        hidden = hidden[1:]
    layers = tuple(_packed_layer(before, block) for before, block in hidden)
    last = parts[-1]
    signs = _behind(parts[-2] if len(parts) > 1 else None, last.signs)
    scores = Scores(pack_weights(signs), last.bias, last.normalization)
    return PackedNetwork(shape, first, layers, scores, max(1, CHUNK_BYTES // largest))


def _input(
    network: nn.Sequential, block: Block, shape: tuple[int, ...]
) -> tuple[PixelInput | ByteInput | RealInput, int]:
    """The layer that reads images for the first block, and the bytes that it holds for one."""
    blank = torch.zeros(1, *shape, dtype=torch.uint8, device=block.bias.device)
    if not reads_pixels(network):
        return RealInput(*_scaling(network[0]), block), block(blank.float()).nbytes
    if _multiplies_bytes(blank):
        first = ByteInput.from_block(block)
    else:
        first = PixelInput(block.signs.dim() == 4)
    return first, first(blank).nbytes


def _multiplies_bytes(images: Tensor) -> bool:
    """Whether a first layer of pixels is an int8 product where these images lie."""
    return images.device.type == "cuda" and find_spec("triton") is not None


def _scaling(scale: ScaleInput) -> tuple[ScaleInput, torch.dtype]:
    """A copy of the scaling, and the dtype that it scales.

    Pixels of 8 bits vary by more than 1, so that a network scales them by less; images that
    training had whitened or contrast-normalized it scales by 1 or more.
    """
    return deepcopy(scale), torch.uint8 if scale.scale < 1 else torch.float32


def _behind(before: Block | None, signs: Tensor) -> Tensor:
    """A layer's signs in the order of its input's words.

    Networks flatten images by channel, row, column, but packed ones by row, column, channel.
    """
    if before is None or before.signs.dim() == 2 or signs.dim() == 4:
        return signs
    return signs.unflatten(1, (len(before.signs), -1)).transpose(1, 2).flatten(1)


def _packed_layer(before: Block | None, block: Block) -> PackedLayer:
    """Pack a block; before: the block that it follows, None if it reads the images."""
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
