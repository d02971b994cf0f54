"""The integers of a packed MLP, in NumPy: what every export writes down.

A hidden bit is [sum >= threshold], as in `bnnlib.folding`. A score depends on one integer alone,
the number of places d at which the last layer's row and its input differ (the sum is K - 2 d), so
the scores are a table with K + 1 entries for each class. The table holds what float32 arithmetic
gives, rounding included; whoever reads it needs no arithmetic on real numbers and gets the same
scores on every machine.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bnnlib.folding import PIXEL, Block, blocks, fold, reads_pixels
from bnnlib.models import load_network


@dataclass(frozen=True, eq=False)
class HiddenLayer:
    """Signs (N, K) bool, True for +1, and thresholds (N,) int32."""

    signs: np.ndarray
    thresholds: np.ndarray


@dataclass(frozen=True, eq=False)
class ScoreLayer:
    """Signs (N, K) bool and scores (N, K + 1) float32: entry d where d places differ."""

    signs: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True, eq=False)
class SignNetwork:
    """Hidden layers, first to last, and the scores; reads pictures of `inputs` uint8 pixels.

    The name is printed in comments: one line.
    """

    name: str
    hidden: tuple[HiddenLayer, ...]
    last: ScoreLayer

    @property
    def inputs(self) -> int:
        return self.hidden[0].signs.shape[1]

    @property
    def bits(self) -> int:
        """How many weights it has, a bit each."""
        return sum(layer.signs.size for layer in (*self.hidden, self.last))


def read(path: str | Path) -> SignNetwork:
    """Read a network file (`models.save_network`).

    Raises ValueError, in one sentence, for a damaged file and for a network that isn't an MLP of
    signs that reads uint8 pixels, and OSError where there is no file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file")
    network = load_network(path)
    try:
        return convert(network, path.stem)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def convert(network: nn.Sequential, name: str) -> SignNetwork:
    """The integers of a network as `models.build` makes it.

    Raises ValueError for convolutions, for inputs that aren't uint8 pixels, and as `blocks` does.
    """
    *hidden, last = blocks(network)
    if any(block.signs.dim() != 2 for block in hidden):
        raise ValueError("only networks of dense layers can be exported, this one convolves")
    if not reads_pixels(network):
        raise ValueError("only networks that read uint8 pixels can be exported")
    printed = "".join(letter if letter.isprintable() else "?" for letter in name)
    return SignNetwork(printed, tuple(map(_hidden, hidden)), _last(last))


def _hidden(block: Block) -> HiddenLayer:
    thresholds, flipped = fold(block)
    signs = (block.signs > 0) ^ flipped[:, None]
    return HiddenLayer(signs.numpy(), thresholds.numpy())


def _last(block: Block) -> ScoreLayer:
    classes, k = block.signs.shape
    sums = k - 2 * torch.arange(k + 1)
    scores = block.real(sums[:, None].expand(-1, classes).contiguous())  # (K + 1, N)
    return ScoreLayer((block.signs > 0).numpy(), scores.T.contiguous().numpy())


def pack_rows(signs: np.ndarray, word: int) -> np.ndarray:
    """(N, K) bool -> (N, ceil(K / word)) little-endian unsigned words: bit j of word i is sign
    word i + j, 1 for +1; bits behind the last sign are 0."""
    padded = np.pad(signs, ((0, 0), (0, -signs.shape[1] % word)))
    packed = np.packbits(padded, axis=1, bitorder="little")
    return np.ascontiguousarray(packed).view(f"<u{word // 8}")


def inside(network: SignNetwork, pictures: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Pictures (B, inputs) uint8 -> the bits (B, N) bool of each hidden layer, scores (B, 10)
    float32: what an export must compute, in plain NumPy. Sums are exact, since float64 holds them.
    """
    x = 2.0 * pictures - PIXEL
    bits = []
    for layer in network.hidden:
        bits.append(_product(x, layer.signs) >= layer.thresholds)
        x = np.where(bits[-1], 1.0, -1.0)
    k = network.last.signs.shape[1]
    differing = ((k - _product(x, network.last.signs)) / 2).astype(np.int64)  # (B, 10)
    return bits, np.take_along_axis(network.last.scores.T, differing, axis=0)


def _product(x: np.ndarray, signs: np.ndarray) -> np.ndarray:
    return x @ np.where(signs, 1.0, -1.0).T


def trial_pictures(inputs: int) -> np.ndarray:
    """(6, inputs) uint8: black, white, and noise of which more and more is black."""
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (4, inputs))
    kept = generator.random((4, inputs)) >= np.linspace(0, 0.9, 4)[:, None]
    ends = np.repeat([[0], [255]], inputs, axis=1)
    return np.concatenate([ends, noise * kept]).astype(np.uint8)
