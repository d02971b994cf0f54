"""The integers of a packed network, in NumPy, which every export writes down.

A hidden bit is [sum >= threshold], as in `bnnlib.folding`. A score depends on one integer alone,
the number of places d at which the last layer's row and its input differ (the sum is K - 2 d), so
the scores are a table with K + 1 entries for each class. The table holds what float32 arithmetic
gives, rounding included; whoever reads it needs no arithmetic on real numbers and gets the same
scores on every machine.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnlib.folding import PIXEL, Block, blocks, fold, reads_pixels
from bnnlib.layer_order import require_sizes
from bnnlib.network_file import about, load_network
from bnnlib.packed import DIGITS, PICTURES


@dataclass(frozen=True, eq=False)
class HiddenLayer:
    """Dense, or a 3x3 convolution with zeros around; the latter may be pooled, 2x2.

    signs: (N, K) or (N, C, 3, 3) bool, True for +1; inputs of a dense layer are in the order
    channel, row, column. thresholds: (N,) int32. by_and: (N,) bool, the channels that pool by AND
    instead of OR, or None where nothing is pooled.
    """

    signs: np.ndarray
    thresholds: np.ndarray
    by_and: np.ndarray | None

    @property
    def convolves(self) -> bool:
        return self.signs.ndim == 4


@dataclass(frozen=True, eq=False)
class ScoreLayer:
    """Signs (N, K) bool and scores (N, K + 1) float32: entry d where d places differ."""

    signs: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True, eq=False)
class SignNetwork:
    """Hidden layers, first to last, and the scores; reads uint8 images of `shape`.

    The name is printed in comments: one line.
    """

    name: str
    shape: tuple[int, ...]
    hidden: tuple[HiddenLayer, ...]
    last: ScoreLayer

    @property
    def inputs(self) -> int:
        return math.prod(self.shape)

    @property
    def bits(self) -> int:
        """The number of weights, a bit each."""
        return sum(layer.signs.size for layer in (*self.hidden, self.last))


def read(path: str | Path) -> SignNetwork:
    """Read a network file (`network_file.save_network`).

    Raises ValueError, in one sentence, for a damaged file and for a network that isn't one of signs
    that reads uint8 pixels, and OSError where there is no file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file")
    network = load_network(path)
    try:
        return convert(network, path.stem, about(path).shape)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def convert(
    network: nn.Sequential, name: str, shape: tuple[int, ...] | None = None
) -> SignNetwork:
    """The integers of a network as `models.build` makes it; `shape`: an image's, as `pack` has it.

    Raises ValueError for inputs that aren't pixels scaled to [-1, 1], since a first layer of real
    numbers rounds every sum in an order of PyTorch's own; and as `blocks` does.
    """
    *hidden, last = blocks(network)
    if not reads_pixels(network):
        raise ValueError(
            "its first layer sums real numbers, which PyTorch rounds in an order of its own, so "
            "that no export has its bits; only networks that read uint8 pixels, scaled to [-1, 1], "
            "can be exported"
        )
    printed = "".join(letter if letter.isprintable() else "?" for letter in name)
    shape = shape or (DIGITS if hidden[0].signs.dim() == 2 else PICTURES)
    require_sizes(network, shape)
    return SignNetwork(printed, shape, tuple(map(_hidden, hidden)), _last(last))


def _hidden(block: Block) -> HiddenLayer:
    thresholds, flipped = fold(block)
    signs = (block.signs > 0) ^ flipped.view(-1, *(1,) * (block.signs.dim() - 1))
    by_and = flipped.numpy() if block.pooled else None
    return HiddenLayer(signs.numpy(), thresholds.numpy(), by_and)


def _last(block: Block) -> ScoreLayer:
    classes, k = block.signs.shape
    sums = k - 2 * torch.arange(k + 1)
    scores = block.real(sums[:, None].expand(-1, classes).contiguous())  # (K + 1, N)
    return ScoreLayer((block.signs > 0).numpy(), scores.T.contiguous().numpy())


def pack_rows(signs: np.ndarray, word: int) -> np.ndarray:
    """(N, K) bool -> (N, ceil(K / word)) little-endian unsigned words.

    Bit j of word i is sign word i + j, 1 for +1; bits behind the last sign are 0.
    """
    padded = np.pad(signs, ((0, 0), (0, -signs.shape[1] % word)))
    packed = np.packbits(padded, axis=1, bitorder="little")
    return np.ascontiguousarray(packed).view(f"<u{word // 8}")


def inside(network: SignNetwork, pictures: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Pictures (B, inputs) uint8 -> each hidden layer's bits, and scores (B, classes) float32.

    Bits are (B, N) or (B, N, H, W) bool, pooled. An export must compute the same; this does it
    without packing. Sums are exact, since float64 holds them.
    """
    x = torch.from_numpy(2.0 * pictures - PIXEL).view(-1, *network.shape)
    bits = []
    for layer in network.hidden:
        bits.append(_bits(x, layer))
        x = torch.where(bits[-1], 1.0, -1.0).double()
    k = network.last.signs.shape[1]
    differing = ((k - _sums(x, network.last.signs)) / 2).long().numpy()  # (B, N)
    scores = np.take_along_axis(network.last.scores.T, differing, axis=0)
    return [each.numpy() for each in bits], scores


def _bits(x: Tensor, layer: HiddenLayer) -> Tensor:
    sums = _sums(x, layer.signs)
    thresholds = torch.from_numpy(layer.thresholds)
    on = sums >= thresholds.view(-1, *(1,) * (sums.dim() - 2))
    if layer.by_and is None:
        return on
    by_or = F.max_pool2d(on.double(), 2) > 0
    by_and = F.max_pool2d((~on).double(), 2) == 0
    return torch.where(torch.from_numpy(layer.by_and)[:, None, None], by_and, by_or)


def _sums(x: Tensor, signs: np.ndarray) -> Tensor:
    weights = torch.from_numpy(np.where(signs, 1.0, -1.0))
    return F.conv2d(x, weights, padding=1) if signs.ndim == 4 else F.linear(x.flatten(1), weights)


def trial_pictures(inputs: int) -> np.ndarray:
    """(6, inputs) uint8: black, white, and noise of which more and more is black."""
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (4, inputs))
    kept = generator.random((4, inputs)) >= np.linspace(0, 0.9, 4)[:, None]
    ends = np.repeat([[0], [255]], inputs, axis=1)
    return np.concatenate([ends, noise * kept]).astype(np.uint8)
