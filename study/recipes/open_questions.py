"""Recipes of notebooks 10 and 11, about what the paper leaves open."""

from dataclasses import replace

from bnnlib.binarize import Binarization
from bnnlib.rounding import Rounding
from study.recipes.ablations import GRADIENTS_BASELINE
from study.recipes.paper import CIFAR10_THEANO, MNIST_THEANO, float_twin

# Notebook 10, on the small network of notebook 02: in how few bits can latent weights be kept, and
# in how few their gradients?
OPEN_BASELINE = replace(GRADIENTS_BASELINE, name="open-baseline")
OPEN_LATENT = tuple(
    replace(
        OPEN_BASELINE,
        name=f"open-latent-{bits}-{rounding}",
        latent_bits=bits,
        rounding=rounding,
    )
    for rounding in Rounding
    for bits in (16, 12, 8, 6)
)
OPEN_GRADIENT = tuple(
    replace(
        OPEN_BASELINE,
        name=f"open-gradient-{bits}-{rounding}",
        gradient_bits=bits,
        rounding=rounding,
    )
    for rounding in Rounding
    for bits in (8, 4, 2)
)
OPEN_BITS = (OPEN_BASELINE, *OPEN_LATENT, *OPEN_GRADIENT)

# What each binarization does, and dropout, at one width; each with what belongs to it.
OPEN_BOTH = replace(OPEN_BASELINE, name="open-both")
OPEN_FLOAT = replace(float_twin(OPEN_BOTH), name="open-float")
OPEN_WEIGHTS = replace(
    OPEN_BOTH, name="open-weights", activations=Binarization.NONE, cancel_saturated=False
)
OPEN_ACTIVATIONS = replace(
    OPEN_FLOAT,
    name="open-activations",
    activations=Binarization.DETERMINISTIC,
    cancel_saturated=True,
)
OPEN_WITHOUT_DROPOUT = (OPEN_BOTH, OPEN_FLOAT, OPEN_WEIGHTS, OPEN_ACTIVATIONS)
OPEN_REGULARIZERS = (
    *OPEN_WITHOUT_DROPOUT,
    *(
        replace(
            recipe,
            name=f"{recipe.name}-dropout",
            input_dropout=MNIST_THEANO.input_dropout,
            hidden_dropout=MNIST_THEANO.hidden_dropout,
        )
        for recipe in OPEN_WITHOUT_DROPOUT
    ),
)

# Notebook 11: networks whose last hidden layer makes codes. Of these every seed's network is kept.
CODES_MNIST = replace(MNIST_THEANO, name="codes-mnist", input_dropout=0.0, hidden_dropout=0.0)
CODES_CIFAR10 = replace(CIFAR10_THEANO, name="codes-cifar10")
CODES = (CODES_MNIST, CODES_CIFAR10)

OPEN_QUESTIONS = (*OPEN_BITS, *OPEN_REGULARIZERS, *CODES)
