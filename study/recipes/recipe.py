"""The recipe: the fields that determine a training run, and what they may not be together."""

import math
from dataclasses import dataclass
from enum import StrEnum

from bnnlib.binarize import Binarization
from bnnlib.layers import Initialization, Normalization
from bnnlib.models import CLASSES, NETWORKS, image_shape, require_images
from bnnlib.optim import Clip, Multiplier
from bnnlib.rounding import Rounding
from bnnlib.rules import Rule
from bnnlib.words import take_words


class Preprocessing(StrEnum):
    """Preprocessing of the images before the network."""

    SCALED = "scaled"  # pixels to [-1, 1]
    STANDARDIZED = "standardized"  # [0, 1], then the training split's one mean and deviation
    ZCA_TWICE = "zca-twice"  # as the authors' Torch7 code whitens CIFAR-10
    CONTRAST = "gcn-lcn"  # as the authors' Torch7 code normalizes SVHN


@dataclass(frozen=True)
class Recipe:
    """All that determines a training run beside the data, the seed and the platform."""

    name: str
    dataset: str  # "mnist", "cifar10", ...: see study.data.DATASETS
    inputs: Preprocessing
    network: str  # "mlp" or "convnet"
    hidden: tuple[int, ...]  # MLP: units of each hidden layer; ConvNet: filters of each stage
    dense: int  # ConvNet: units of its two dense layers; MLP: 0
    weights: Binarization
    activations: Binarization
    cancel_saturated: bool  # straight-through estimator: zero gradient where |r| > 1
    initialization: Initialization  # of binary layers
    batch_norm: Normalization
    input_dropout: float  # MLP only; probability of zeroing
    hidden_dropout: float
    optimizer: Rule
    multiplier: Multiplier  # gamma_k on the updates of binary weights
    scale_biases: bool  # gamma_k on those of their layers' biases too
    scale_gammas: bool  # updates of batch norm's gamma times sqrt(units / 1.5)
    clip: Clip
    batch_size: int
    epochs: int
    learning_rate: float  # of the first epoch
    final_learning_rate: float  # exponential by epoch, to this in epoch `epochs` + 1; 0: halved
    halve_every: float  # epochs between two halvings of the rate; 0: exponential
    train_images: int = 0  # how many of the training split are used; 0: all
    # Fields below are younger than some records: `runs.read_record` gives those the default.
    latent_bits: int = 0  # in which latent weights are kept between updates; 0: float32
    gradient_bits: int = 0  # of the gradients of binary weights, scaled by layer; 0: float32
    rounding: Rounding = Rounding.NEAREST  # to those bits
    side: int = 0  # of square images, in pixels; 0: 28 for an MLP, 32 for a ConvNet
    channels: int = 0  # 1 or 3; 0: 1 for an MLP, 3 for a ConvNet
    classes: int = CLASSES
    filter_scale: bool = False  # MLP only; sums times the mean |latent weight| of each unit
    polynomial_gradient: bool = False  # of the sign of activations: 2 - 2 |r| where |r| <= 1

    def __post_init__(self):
        take_words(self)
        _check_network(self)
        _check_training(self)
        _check_schedule(self)
        _check_bits(self)
        _check_variants(self)
        if self.optimizer is not Rule.ADAM:
            _check_shifts(self)


def _require(recipe: Recipe, name: str, holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(f"recipe {recipe.name}: {name} {rule}, got {getattr(recipe, name)!r}")


def _check_network(recipe: Recipe) -> None:
    linear = recipe.network == "mlp" and recipe.activations is Binarization.NONE
    positive = all(width > 0 for width in recipe.hidden)
    _require(recipe, "network", recipe.network in NETWORKS, "must be mlp or convnet")
    _require(recipe, "hidden", positive, "must be positive")
    rule = "must have a layer, but in an mlp without binary activations"
    _require(recipe, "hidden", linear or len(recipe.hidden) > 0, rule)
    _require(recipe, "dense", (recipe.dense > 0) == (recipe.network == "convnet"), "is for convnet")
    _check_images(recipe)
    for name in ("input_dropout", "hidden_dropout"):
        rate = getattr(recipe, name)
        _require(recipe, name, 0 <= rate < 1, "must lie in [0, 1)")
        _require(recipe, name, rate == 0 or recipe.network == "mlp", "is for mlp")


def _check_images(recipe: Recipe) -> None:
    shape = image_shape(recipe.network, recipe.side, recipe.channels)
    stages = len(recipe.hidden) if recipe.network == "convnet" else 0
    try:
        require_images(recipe.network, stages, shape, recipe.classes)
    except ValueError as error:
        raise ValueError(f"recipe {recipe.name}: {error}") from error


def _check_training(recipe: Recipe) -> None:
    for name in ("batch_size", "epochs"):
        _require(recipe, name, getattr(recipe, name) > 0, "must be positive")
    measured = recipe.batch_norm not in (Normalization.NONE, Normalization.SCALE)
    rule = "must be above 1 for batch normalization"
    _require(recipe, "batch_size", recipe.batch_size > 1 or not measured, rule)
    _require(recipe, "train_images", recipe.train_images >= 0, "must not be negative")
    scaled = recipe.multiplier is not Multiplier.NONE
    is_binary = recipe.weights is not Binarization.NONE
    _require(recipe, "multiplier", is_binary or not scaled, "is for binary weights")
    _require(recipe, "scale_biases", scaled or not recipe.scale_biases, "needs a multiplier")


def _check_schedule(recipe: Recipe) -> None:
    for name in ("learning_rate", "final_learning_rate", "halve_every"):
        value = getattr(recipe, name)
        _require(recipe, name, 0 <= value < math.inf, "must be finite and not negative")
    _require(recipe, "learning_rate", recipe.learning_rate > 0, "must be positive")
    exponential, halved = recipe.final_learning_rate > 0, recipe.halve_every > 0
    rule = "or final_learning_rate must be positive, and not both"
    _require(recipe, "halve_every", exponential != halved, rule)


def _check_bits(recipe: Recipe) -> None:
    latent, gradient = recipe.latent_bits, recipe.gradient_bits
    clipped = recipe.weights is not Binarization.NONE and recipe.clip is not Clip.NOTHING
    _require(recipe, "latent_bits", 0 <= latent <= 16, "must be 0 or 1 to 16")
    _require(recipe, "latent_bits", clipped or not latent, "is for clipped latent weights")
    is_binary = recipe.weights is not Binarization.NONE
    _require(recipe, "gradient_bits", gradient == 0 or 2 <= gradient <= 16, "must be 0 or 2 to 16")
    _require(recipe, "gradient_bits", is_binary or not gradient, "is for binary weights")
    rounded = latent > 0 or gradient > 0
    rule = "needs latent_bits or gradient_bits"
    _require(recipe, "rounding", rounded or recipe.rounding is Rounding.NEAREST, rule)


def _check_variants(recipe: Recipe) -> None:
    scaled = recipe.network == "mlp" and recipe.weights is not Binarization.NONE
    scaled = scaled and recipe.batch_norm is Normalization.EXACT
    rule = "is for an mlp of binary weights with exact batch normalization"
    _require(recipe, "filter_scale", scaled or not recipe.filter_scale, rule)
    signs = recipe.activations is Binarization.DETERMINISTIC and recipe.cancel_saturated
    rule = "is for deterministic activations whose saturated gradients are cancelled"
    _require(recipe, "polynomial_gradient", signs or not recipe.polynomial_gradient, rule)


def _check_shifts(recipe: Recipe) -> None:
    """A shift-based optimizer multiplies by its step as a shift: by a power of two that exists.

    With the printed rule the rate itself is one, all the time. The coded ones round it.
    """
    if recipe.optimizer is Rule.ADAMAX_PRINTED:
        exact = math.frexp(recipe.learning_rate)[0] == 0.5
        _require(recipe, "learning_rate", exact, "must be a power of two for adamax-printed")
        _require(recipe, "halve_every", recipe.halve_every > 0, "is what adamax-printed needs")
    representable = 2.0**-126 <= _smallest_rate(recipe) and recipe.learning_rate < 2.0**120
    rule = "must round to powers of two that float32 holds, in every epoch"
    _require(recipe, "learning_rate", representable, rule)


def _smallest_rate(recipe: Recipe) -> float:
    if recipe.halve_every:
        return recipe.learning_rate * 2.0 ** -((recipe.epochs - 1) // recipe.halve_every)
    return min(recipe.learning_rate, recipe.final_learning_rate)
