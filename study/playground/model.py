"""Computations of the playground: a digit of a drawing, a packed network opened, an experiment.

Nothing here knows a browser: `study.playground.canvas` and `study.playground.training_panel` do.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bnnlib.binarize import Binarization
from bnnlib.optim import Clip, Multiplier
from bnnlib.packed import PackedNetwork
from bnnlib.packed_layers import ByteInput, PixelInput
from bnnlib.pictures import BOX, CENTRE, SIDE, as_mnist  # noqa: F401 - what notebooks need
from bnnlib.xnor import xnor_matmul
from study.bench.timing import seconds_of
from study.recipes.recipe import Recipe


@dataclass(frozen=True, eq=False)
class HiddenLayer:
    """Outcome of a packed layer for one image: bit n of its words is [sums_n >= thresholds_n]."""

    sums: Tensor  # (N,) int32
    thresholds: Tensor  # (N,) int32
    words: Tensor  # (words of N,) int64, as the next layer reads them


@dataclass(frozen=True, eq=False)
class Inside:
    """All that happens in a packed network that reads one digit."""

    planes: Tensor  # (8, words of 784) int64, the lowest bits of the pixels first
    layers: tuple[HiddenLayer, ...]
    scores: Tensor  # (10,) float32


def look_inside(network: PackedNetwork, digit: Tensor) -> Inside:
    """digit: (28, 28) uint8. The network's own kernels, once for the sums and once for the bits.

    Raises ValueError for a network that reads other than digits of uint8 pixels, or another digit.
    """
    _require_digits(network)
    if digit.shape != network.shape or digit.dtype != torch.uint8:
        raise ValueError(f"a digit is (28, 28) uint8, not {tuple(digit.shape)} {digit.dtype}")
    planes = x = network.first(digit[None])
    layers = []
    for layer in network.layers:
        sums, x = xnor_matmul(x, layer.weights), layer(x)
        layers.append(HiddenLayer(sums[0], layer.thresholds, x[0]))
    return Inside(planes[0], tuple(layers), network.scores(x)[0])


def _require_digits(network: PackedNetwork) -> None:
    if network.shape != (SIDE, SIDE) or not isinstance(network.first, PixelInput | ByteInput):
        raise ValueError("the playground needs a network that reads digits of uint8 pixels")


def milliseconds(network: Callable[[Tensor], Tensor], digit: Tensor, calls: int = 1) -> float:
    """Mean milliseconds from pixels (28, 28) to scores, over `calls` consecutive calls."""
    return 1000 * seconds_of(lambda: network(digit[None]), calls, "cpu")


def experiment(
    base: Recipe,
    weights: bool,
    activations: bool,
    stochastic: bool,
    clip: bool,
    dropout: float,
    learning_rate: float,
) -> Recipe:
    """The base recipe with what the playground changes: what is binarized and how, and three more.

    What belongs to binarized numbers alone is off where there are none: the multiplier, the
    clipping, the cancellation. dropout is that of hidden units, learning_rate the first epoch's.
    Raises ValueError for what is no recipe.
    """
    kind = Binarization.STOCHASTIC if stochastic else Binarization.DETERMINISTIC
    return replace(
        base,
        name="playground",
        weights=kind if weights else Binarization.NONE,
        activations=kind if activations else Binarization.NONE,
        cancel_saturated=activations,
        multiplier=base.multiplier if weights else Multiplier.NONE,
        clip=base.clip if weights and clip else Clip.NOTHING,
        hidden_dropout=dropout,
        learning_rate=learning_rate,
        final_learning_rate=learning_rate / base.learning_rate * base.final_learning_rate,
    )


def describe(recipe: Recipe) -> str:
    """An experiment of the playground in a few words, for a legend."""
    kinds = {"weights": recipe.weights, "activations": recipe.activations}
    binary = [name for name, kind in kinds.items() if kind is not Binarization.NONE]
    words = ["binary " + " and ".join(binary) if binary else "nothing binary"]
    words += ["stochastic"] * (Binarization.STOCHASTIC in kinds.values())
    words += ["no clipping"] * ("weights" in binary and recipe.clip is Clip.NOTHING)
    words += [f"dropout {recipe.hidden_dropout:g}"] * (recipe.hidden_dropout > 0)
    return ", ".join([*words, f"rate {recipe.learning_rate:.3g}"])
