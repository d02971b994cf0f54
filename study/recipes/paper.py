"""The paper's experiments as recipes: three data sets, the authors' Theano and Torch7 versions.

The recipes for SVHN stand here for `svhn-part` too, real images where the official split can't be
had.

Each Torch7 experiment stands here twice, because the paper's words and the authors' code disagree:
the plain name is what the paper says, `-code` what the code does. `citations` has the places.
"""

from dataclasses import replace

from bnnlib.binarize import Binarization
from bnnlib.layers import Initialization, Normalization
from bnnlib.optim import Clip, Multiplier
from bnnlib.rules import Rule
from study.recipes.recipe import Preprocessing, Recipe

MNIST_THEANO = Recipe(
    name="mnist-theano",
    dataset="mnist",
    inputs=Preprocessing.SCALED,
    network="mlp",
    hidden=(4096, 4096, 4096),
    dense=0,
    weights=Binarization.DETERMINISTIC,
    activations=Binarization.DETERMINISTIC,
    cancel_saturated=True,
    initialization=Initialization.UNIFORM,
    batch_norm=Normalization.EXACT,
    input_dropout=0.2,
    hidden_dropout=0.5,
    optimizer=Rule.ADAM,
    multiplier=Multiplier.GLOROT,
    scale_biases=False,
    scale_gammas=False,
    clip=Clip.WEIGHTS,
    batch_size=100,
    epochs=1000,
    learning_rate=3e-3,
    final_learning_rate=3e-7,
    halve_every=0.0,
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
)

SVHN_THEANO = replace(
    CIFAR10_THEANO,
    name="svhn-theano",
    dataset="svhn",
    hidden=(64, 128, 256),
    epochs=200,
    final_learning_rate=1e-6,
)

MNIST_TORCH7 = replace(
    MNIST_THEANO,
    name="mnist-torch7",
    hidden=(2048, 2048, 2048),
    activations=Binarization.STOCHASTIC,
    batch_norm=Normalization.SHIFT_PRINTED,
    input_dropout=0.0,
    hidden_dropout=0.0,
    optimizer=Rule.ADAMAX_PRINTED,
    learning_rate=2**-10,
    final_learning_rate=0.0,
    halve_every=10.0,
)

CIFAR10_TORCH7 = replace(
    MNIST_TORCH7,
    name="cifar10-torch7",
    dataset="cifar10",
    network="convnet",
    hidden=(128, 256, 512),
    dense=1024,
    batch_size=200,
    epochs=500,
    halve_every=50.0,
)

SVHN_TORCH7 = replace(
    CIFAR10_TORCH7, name="svhn-torch7", dataset="svhn", hidden=(64, 128, 256), epochs=200
)

MNIST_TORCH7_CODE = replace(
    MNIST_TORCH7,
    name="mnist-torch7-code",
    inputs=Preprocessing.STANDARDIZED,
    initialization=Initialization.TORCH7,
    batch_norm=Normalization.SHIFT_CODED,
    optimizer=Rule.ADAMAX_CODED,
    scale_biases=True,
    scale_gammas=True,
    learning_rate=2**-6,
    halve_every=20.0,
)

CIFAR10_TORCH7_CODE = replace(
    CIFAR10_TORCH7,
    name="cifar10-torch7-code",
    inputs=Preprocessing.ZCA_TWICE,
    initialization=Initialization.TORCH7,
    batch_norm=Normalization.SHIFT_CODED,
    optimizer=Rule.ADAMAX_CODED,
    multiplier=Multiplier.POWER_OF_TWO,
    scale_biases=True,
    clip=Clip.EVERYTHING,
    learning_rate=2**-6,
)

SVHN_TORCH7_CODE = replace(
    CIFAR10_TORCH7_CODE,
    name="svhn-torch7-code",
    dataset="svhn",
    inputs=Preprocessing.CONTRAST,
    hidden=(64, 128, 256),
    clip=Clip.WEIGHTS,
    epochs=200,
    learning_rate=2**-7,
    halve_every=20.0,
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
        multiplier=Multiplier.NONE,
        clip=Clip.NOTHING,
    )


MNIST_THEANO_FLOAT = float_twin(MNIST_THEANO)
CIFAR10_THEANO_FLOAT = float_twin(CIFAR10_THEANO)
SVHN_THEANO_FLOAT = float_twin(SVHN_THEANO)

# The first of the 1000 epochs alone: its learning rate is the first of the full schedule. The
# authors printed what they got after it (MatthieuCourbariaux/BinaryNet, issue 2).
MNIST_THEANO_FIRST_EPOCH = replace(MNIST_THEANO, name="mnist-theano-first-epoch", epochs=1)

PAPER = (
    MNIST_THEANO,
    MNIST_TORCH7,
    MNIST_TORCH7_CODE,
    CIFAR10_THEANO,
    CIFAR10_TORCH7,
    CIFAR10_TORCH7_CODE,
    SVHN_THEANO,
    SVHN_TORCH7,
    SVHN_TORCH7_CODE,
    MNIST_THEANO_FLOAT,
    CIFAR10_THEANO_FLOAT,
    SVHN_THEANO_FLOAT,
    MNIST_THEANO_FIRST_EPOCH,
)


def on_part(recipe: Recipe) -> Recipe:
    """A recipe for SVHN on `svhn-part`: a part of the test images in place of the official split.

    Nothing else changes. Such a run shows how the recipe does on real house numbers, and earns no
    verdict about the paper.
    """
    name = recipe.name.replace("svhn-", "svhn-part-")
    return replace(recipe, name=name, dataset="svhn-part")


SVHN_PART_THEANO = on_part(SVHN_THEANO)
SVHN_PART_THEANO_FLOAT = on_part(SVHN_THEANO_FLOAT)
SVHN_PART_TORCH7 = on_part(SVHN_TORCH7)
SVHN_PART_TORCH7_CODE = on_part(SVHN_TORCH7_CODE)

SVHN_PART = (
    SVHN_PART_THEANO,
    SVHN_PART_THEANO_FLOAT,
    SVHN_PART_TORCH7,
    SVHN_PART_TORCH7_CODE,
)
