"""Shapes of a recipe's layers: how many numbers each reads, sums and passes on."""

import math
from dataclasses import dataclass, replace
from itertools import pairwise

from bnnlib.models import image_shape
from study.recipes.recipe import Recipe


@dataclass(frozen=True)
class Layer:
    """A dense layer or a convolution, and what follows it up to the next: sizes for one image."""

    units: int  # or filters
    terms: int  # of each sum
    inputs: int  # numbers that it reads
    positions: int = 1  # sums of each unit
    pooled: int = 1  # sums that max pooling makes one number of
    pixels: bool = False  # it reads an image
    scores: bool = False  # its outputs are real numbers

    @property
    def connections(self) -> int:
        return self.units * self.terms * self.positions

    @property
    def outputs(self) -> int:
        return self.units * self.positions // self.pooled


def layers_of(recipe: Recipe) -> list[Layer]:
    """The layers of `models.build`, first to last."""
    layers = []
    shape = image_shape(recipe.network, recipe.side, recipe.channels)
    widths = (math.prod(shape), *recipe.hidden)
    if recipe.network == "convnet":
        for stage, (channels, width) in enumerate(pairwise((shape[0], *recipe.hidden))):
            positions = (shape[-1] >> stage) ** 2
            layers.append(Layer(width, 9 * channels, channels * positions, positions))
            layers.append(Layer(width, 9 * width, width * positions, positions, pooled=4))
        widths = (layers[-1].outputs, recipe.dense, recipe.dense)
    widths = (*widths, recipe.classes)
    layers += [Layer(fan_out, fan_in, fan_in) for fan_in, fan_out in pairwise(widths)]
    layers[0] = replace(layers[0], pixels=True)
    layers[-1] = replace(layers[-1], scores=True)
    return layers


def connections(recipe: Recipe) -> int:
    """Multiply-adds of a forward pass with one image."""
    return sum(layer.connections for layer in layers_of(recipe))
