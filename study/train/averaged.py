"""Test error of a stochastic network by the mean of many draws, beside the one by its signs.

Determines no other number of a run: it is computed when the training is over, draws from a
generator of its own, and leaves the network as it was.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Generator, Tensor, nn

from bnnlib.binarize import Binarization
from bnnlib.layers import BinaryActivation, BinaryLayer
from study import recipes
from study.data.training_data import Images
from study.recipes.recipe import Recipe
from study.train.evaluation import EVALUATION_BATCH

DRAWS = 16
FIRST_SEED = 2**31  # far from the seeds of runs, which count from 0
# The arms that ask what chance does. Other networks are tested as the paper tests them, by their
# signs: beside a short training, draws would take longer than all of it.
ARMS = {arm.name for arm in recipes.GRADIENTS}
# Those of notebook 07 too, but at quick, for the same reason: its ConvNets train for seconds.
LARGER_ARMS = {arm.name for arm in (*recipes.GAPS_MNIST, *recipes.GAPS_CIFAR10)}


def is_tested_by_draws(recipe: Recipe, profile: str) -> bool:
    """Whether it is one of the profile's arms, and its weights or activations are drawn."""
    arms = ARMS if profile == "quick" else ARMS | LARGER_ARMS
    drawn = Binarization.STOCHASTIC in (recipe.weights, recipe.activations)
    return drawn and recipe.name in arms


def outcome(recipe: Recipe, profile: str, network: nn.Sequential, test: Images, seed: int) -> dict:
    """Entries for a run's record: none for a recipe that isn't tested by draws."""
    if not is_tested_by_draws(recipe, profile):
        return {}
    return {"averaged_test_error": averaged_error(network, test, seed), "averaged_draws": DRAWS}


@torch.no_grad()
def averaged_error(network: nn.Sequential, split: Images, seed: int) -> float:
    """Error in percent where the class is the largest of the scores' means over DRAWS draws.

    Weights and activations are drawn as in training; batch normalization and dropout act as in
    evaluation. Each process of a run computes all of it.
    """
    errors = 0
    generator = Generator(split.images.device).manual_seed(FIRST_SEED + seed)
    with _drawing(network, generator):
        for start in range(0, len(split.images), EVALUATION_BATCH):
            labels = split.labels[start : start + EVALUATION_BATCH]
            images = split.images[start : start + EVALUATION_BATCH]
            errors += (_scores(network, images, DRAWS).argmax(1) != labels).sum().item()
    return 100 * errors / len(split.images)


def _scores(network: nn.Sequential, images: Tensor, draws: int) -> Tensor:
    """(B, 10), the sum over draws. What comes before the first layer that draws is done once."""
    draw = [getattr(layer, "noise", None) is not None for layer in network]
    first = draw.index(True)
    before, rest = network[:first](images), network[first:]
    return torch.stack([rest(before) for _ in range(draws)]).sum(0)


@contextmanager
def _drawing(network: nn.Module, generator: Generator) -> Iterator[None]:
    """A network in evaluation whose stochastic layers draw from the generator all the same."""
    binary = BinaryLayer | BinaryActivation
    layers = [m for m in network.modules() if isinstance(m, binary) and m.noise is not None]
    before = [layer.noise for layer in layers]
    network.eval()
    for layer in layers:
        layer.noise = generator
        layer.training = True
    try:
        yield
    finally:
        for layer, noise in zip(layers, before, strict=True):
            layer.noise = noise
        network.eval()
