"""Every experiment as one frozen instance of Recipe, its sources, and what a profile changes in it.

Sources name the paper's section or table, and file:line of the authors' Theano code
(MatthieuCourbariaux/BinaryNet at d7d45ae).
"""

from dataclasses import dataclass, replace

from bnnlib.binarize import Binarization


@dataclass(frozen=True)
class Recipe:
    """All that determines a training run beside the data, the seed and the platform."""

    name: str
    dataset: str  # "mnist", "cifar10", ...: see bnnlib.data.DATASETS
    network: str  # "mlp" or "convnet"
    hidden: tuple[int, ...]  # MLP: units of each hidden layer; ConvNet: filters of each stage
    dense: int  # ConvNet: units of its two dense layers; MLP: 0
    weights: Binarization
    activations: Binarization
    cancel_saturated: bool  # straight-through estimator: zero gradient where |r| > 1
    clip_weights: bool  # latent weights kept in [-1, 1]
    glorot_multiplier: bool  # updates of binary weights times gamma_k
    input_dropout: float  # MLP only; probability of zeroing
    hidden_dropout: float
    batch_size: int
    epochs: int
    learning_rate: float  # of the first epoch
    final_learning_rate: float  # would be that of epoch `epochs` + 1: decay is exponential by epoch
    train_images: int = 0  # how many of the training split are used; 0: all

    def __post_init__(self):
        for name in ("batch_size", "epochs", "learning_rate", "final_learning_rate"):
            _require(self, name, getattr(self, name) > 0, "must be positive")
        _require(self, "batch_size", self.batch_size > 1, "must be above 1 for batch normalization")
        _require(self, "hidden", len(self.hidden) > 0 and min(self.hidden) > 0, "must be positive")
        _require(self, "network", self.network in ("mlp", "convnet"), "must be mlp or convnet")
        _require(self, "dense", (self.dense > 0) == (self.network == "convnet"), "is for convnet")
        for name in ("input_dropout", "hidden_dropout"):
            rate = getattr(self, name)
            _require(self, name, 0 <= rate < 1, "must lie in [0, 1)")
            _require(self, name, rate == 0 or self.network == "mlp", "is for mlp")
        _require(self, "train_images", self.train_images >= 0, "must not be negative")


def _require(recipe: Recipe, name: str, holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(f"recipe {recipe.name}: {name} {rule}, got {getattr(recipe, name)!r}")


MNIST_THEANO = Recipe(
    name="mnist-theano",
    dataset="mnist",
    network="mlp",
    hidden=(4096, 4096, 4096),
    dense=0,
    weights=Binarization.DETERMINISTIC,
    activations=Binarization.DETERMINISTIC,
    cancel_saturated=True,
    clip_weights=True,
    glorot_multiplier=True,
    input_dropout=0.2,
    hidden_dropout=0.5,
    batch_size=100,
    epochs=1000,
    learning_rate=3e-3,
    final_learning_rate=3e-7,
)

CIFAR10_THEANO = replace(
    MNIST_THEANO,
    name="cifar10-theano",
    dataset="cifar10",
    network="convnet",
    hidden=(128, 256, 512),
    dense=1024,
    input_dropout=0.0,
    hidden_dropout=0.0,
    batch_size=50,
    epochs=500,
    learning_rate=1e-3,
    final_learning_rate=3e-7,
)


def float_twin(recipe: Recipe) -> Recipe:
    """The same network and training without any binarization: real weights, ReLU activations.

    Clipping, cancellation and the multiplier act on binarized numbers only and are off.
    """
    return replace(
        recipe,
        name=recipe.name + "-float",
        weights=Binarization.NONE,
        activations=Binarization.NONE,
        cancel_saturated=False,
        clip_weights=False,
        glorot_multiplier=False,
    )


MNIST_THEANO_FLOAT = float_twin(MNIST_THEANO)
CIFAR10_THEANO_FLOAT = float_twin(CIFAR10_THEANO)

# The first of the 1000 epochs alone: its learning rate is the first of the full schedule. The
# authors printed what they got after it (MatthieuCourbariaux/BinaryNet, issue 2).
MNIST_THEANO_FIRST_EPOCH = replace(MNIST_THEANO, name="mnist-theano-first-epoch", epochs=1)

# Notebook 02: the same small network, one thing changed at a time. Ours, not the paper's.
GRADIENTS_BASELINE = replace(
    MNIST_THEANO,
    name="gradients-baseline",
    hidden=(1024, 1024, 1024),
    input_dropout=0.0,
    hidden_dropout=0.0,
    epochs=50,
    final_learning_rate=3e-5,
)
GRADIENTS_NO_CANCELLATION = replace(
    GRADIENTS_BASELINE, name="gradients-no-cancellation", cancel_saturated=False
)
GRADIENTS_NO_CLIPPING = replace(
    GRADIENTS_BASELINE, name="gradients-no-clipping", clip_weights=False
)
GRADIENTS_NO_GLOROT = replace(
    GRADIENTS_BASELINE, name="gradients-no-glorot", glorot_multiplier=False
)
GRADIENTS_STOCHASTIC_WEIGHTS = replace(
    GRADIENTS_BASELINE, name="gradients-stochastic-weights", weights=Binarization.STOCHASTIC
)
GRADIENTS_STOCHASTIC_ACTIVATIONS = replace(
    GRADIENTS_BASELINE, name="gradients-stochastic-activations", activations=Binarization.STOCHASTIC
)
GRADIENTS_STOCHASTIC_BOTH = replace(
    GRADIENTS_STOCHASTIC_WEIGHTS,
    name="gradients-stochastic-both",
    activations=Binarization.STOCHASTIC,
)
# The multiplier is a higher learning rate too: off, with the rate raised about as much instead.
GRADIENTS_NO_GLOROT_HIGHER_RATE = replace(
    GRADIENTS_NO_GLOROT,
    name="gradients-no-glorot-higher-rate",
    learning_rate=5e-2,
    final_learning_rate=5e-4,
)
GRADIENTS = (
    GRADIENTS_BASELINE,
    GRADIENTS_NO_CANCELLATION,
    GRADIENTS_NO_CLIPPING,
    GRADIENTS_NO_GLOROT,
    GRADIENTS_NO_GLOROT_HIGHER_RATE,
    GRADIENTS_STOCHASTIC_WEIGHTS,
    GRADIENTS_STOCHASTIC_ACTIVATIONS,
    GRADIENTS_STOCHASTIC_BOTH,
)

RECIPES = (
    MNIST_THEANO,
    MNIST_THEANO_FLOAT,
    MNIST_THEANO_FIRST_EPOCH,
    CIFAR10_THEANO,
    CIFAR10_THEANO_FLOAT,
    *GRADIENTS,
)

# What a profile changes in a recipe. A shortened run compresses the learning-rate schedule, never
# cuts it off; a very short one also starts higher and ends sooner. `paper` changes nothing.
_TINY_MLP = {"hidden": (32, 32), "epochs": 2}
_TINY_CONVNET = {"hidden": (8, 8, 8), "dense": 16, "epochs": 2}
_QUICK_MNIST = {
    "hidden": (512, 512, 512),
    "input_dropout": 0.0,
    "hidden_dropout": 0.0,
    "learning_rate": 1e-2,
    "final_learning_rate": 1e-4,
}
_QUICK_CIFAR10 = {
    "hidden": (16, 32, 64),
    "dense": 512,
    "batch_size": 100,
    "learning_rate": 6e-3,
    "final_learning_rate": 3e-5,
}
_QUICK_GRADIENTS = {"hidden": (128, 128, 128), "epochs": 5, "train_images": 16_000}

PROFILES: dict[str, dict[str, dict]] = {
    "smoke": {
        "mnist-theano": _TINY_MLP,
        "mnist-theano-float": _TINY_MLP,
        "mnist-theano-first-epoch": {"hidden": (32, 32)},
        "cifar10-theano": _TINY_CONVNET,
        "cifar10-theano-float": _TINY_CONVNET,
        **{recipe.name: _TINY_MLP for recipe in GRADIENTS},
    },
    "quick": {
        "mnist-theano": {**_QUICK_MNIST, "epochs": 6},
        "mnist-theano-float": {**_QUICK_MNIST, "epochs": 3},
        "cifar10-theano": {**_QUICK_CIFAR10, "epochs": 5},
        "cifar10-theano-float": {**_QUICK_CIFAR10, "epochs": 2},
        **{recipe.name: _QUICK_GRADIENTS for recipe in GRADIENTS},
    },
    "evening": {
        "mnist-theano": {"epochs": 30},
        "mnist-theano-float": {"epochs": 30},
        "cifar10-theano": {"epochs": 15},
        "cifar10-theano-float": {"epochs": 15},
        **{recipe.name: {"epochs": 10} for recipe in GRADIENTS},
    },
    "paper": {},
}


def at_profile(recipe: Recipe, profile: str) -> Recipe:
    """The recipe as a profile runs it. Raises ValueError for an unknown profile."""
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}: choose one of {', '.join(PROFILES)}")
    return replace(recipe, **PROFILES[profile].get(recipe.name, {}))


def by_name(name: str) -> Recipe:
    """The named recipe. Raises ValueError for an unknown name."""
    for recipe in RECIPES:
        if recipe.name == name:
            return recipe
    raise ValueError(f"unknown recipe {name!r}: choose one of {', '.join(r.name for r in RECIPES)}")


def is_named(recipe: Recipe, profile: str) -> bool:
    """Whether this is a named recipe, at this profile, with nothing else changed."""
    return any(recipe == at_profile(named, profile) for named in RECIPES)


@dataclass(frozen=True)
class Source:
    """Where a recipe's value stands: in the paper, in the authors' code; a word if they differ."""

    paper: str
    code: str
    note: str = ""


_SHARED_SOURCES = {
    "weights": Source("Algorithm 1", "binary_net.py:22-43", "the last layer's weights too"),
    "activations": Source("Algorithm 1", "binary_net.py:42", "all but the last layer's"),
    "cancel_saturated": Source("eq. 4", "binary_net.py:22-43", "rounding behind a hard sigmoid"),
    "clip_weights": Source("Algorithm 1", "binary_net.py:193-194", "after every update"),
    "glorot_multiplier": Source(
        "Algorithm 1", "binary_net.py:96-98, 138-142", "a factor above 1 on the finished Adam step"
    ),
}

SOURCES: dict[str, dict[str, Source]] = {
    "mnist-theano": {
        **_SHARED_SOURCES,
        "network": Source("multilayer perceptron", "mnist.py:128-170"),
        "hidden": Source("3 hidden layers of 4096", "mnist.py:42-44"),
        "dense": Source("-", "-", "the multilayer perceptron has no such layers"),
        "input_dropout": Source("dropout, no rate given", "mnist.py:52-54"),
        "hidden_dropout": Source(
            "dropout, no rate given", "mnist.py:52-54", "behind the binarization: {0, ±2}"
        ),
        "batch_size": Source("100", "mnist.py:32"),
        "epochs": Source("1000", "mnist.py:48"),
        "learning_rate": Source("not given", "mnist.py:77"),
        "final_learning_rate": Source(
            "exponential decay", "mnist.py:77-81", "printed by step, coded by epoch"
        ),
    },
    "cifar10-theano": {
        **_SHARED_SOURCES,
        "network": Source("the ConvNet of BinaryConnect", "cifar10.py:117-297"),
        "hidden": Source(
            "as BinaryConnect", "cifar10.py:117-297", "two convolutions of each width"
        ),
        "dense": Source("as BinaryConnect", "cifar10.py:117-297", "two layers"),
        "input_dropout": Source("none", "none"),
        "hidden_dropout": Source("none", "none"),
        "batch_size": Source("50", "cifar10.py:33"),
        "epochs": Source("500", "cifar10.py:61", "axis of Figure 1"),
        "learning_rate": Source("not given", "cifar10.py:65"),
        "final_learning_rate": Source(
            "exponential decay", "cifar10.py:65-69", "printed by step, coded by epoch"
        ),
    },
}
