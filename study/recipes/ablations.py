"""Recipes that change one thing at a time. Ours, not the paper's."""

from dataclasses import replace

from bnnlib.binarize import Binarization
from bnnlib.layers import Normalization
from bnnlib.optim import Clip, Multiplier
from bnnlib.rules import Rule
from study.recipes.paper import CIFAR10_THEANO, MNIST_THEANO, float_twin
from study.recipes.recipe import Preprocessing

# A linear classifier of the raw pixels, the line that a network must pass: one layer of real
# weights, and nothing of the paper's but its loss and its optimizer.
MNIST_LINEAR = replace(
    float_twin(MNIST_THEANO),
    name="mnist-linear",
    hidden=(),
    batch_norm=Normalization.NONE,
    input_dropout=0.0,
    hidden_dropout=0.0,
    epochs=20,
    final_learning_rate=3e-5,
)
CIFAR10_LINEAR = replace(
    MNIST_LINEAR,
    name="cifar10-linear",
    dataset="cifar10",
    side=32,
    channels=3,
    epochs=10,
    learning_rate=1e-3,
    final_learning_rate=1e-5,
)
LINEAR = (MNIST_LINEAR, CIFAR10_LINEAR)

# What the multiplier and the cancellation are worth in the ConvNet.
CIFAR10_NO_GLOROT = replace(CIFAR10_THEANO, name="cifar10-no-glorot", multiplier=Multiplier.NONE)
CIFAR10_NO_CANCELLATION = replace(
    CIFAR10_THEANO, name="cifar10-no-cancellation", cancel_saturated=False
)
CIFAR10_ABLATIONS = (CIFAR10_NO_GLOROT, CIFAR10_NO_CANCELLATION)

# Notebook 02: a small network, what the gradient's rules are worth.
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
GRADIENTS_NO_CLIPPING = replace(GRADIENTS_BASELINE, name="gradients-no-clipping", clip=Clip.NOTHING)
GRADIENTS_NO_GLOROT = replace(
    GRADIENTS_BASELINE, name="gradients-no-glorot", multiplier=Multiplier.NONE
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
# Two refinements from later papers: XNOR-Net's scale of each filter, and Bi-Real Net's gradient.
GRADIENTS_XNOR_SCALE = replace(GRADIENTS_BASELINE, name="gradients-xnor-scale", filter_scale=True)
GRADIENTS_BIREAL = replace(GRADIENTS_BASELINE, name="gradients-bireal", polynomial_gradient=True)
GRADIENTS_LATER = (GRADIENTS_XNOR_SCALE, GRADIENTS_BIREAL)
GRADIENTS_PAPER = (
    GRADIENTS_BASELINE,
    GRADIENTS_NO_CANCELLATION,
    GRADIENTS_NO_CLIPPING,
    GRADIENTS_NO_GLOROT,
    GRADIENTS_NO_GLOROT_HIGHER_RATE,
    GRADIENTS_STOCHASTIC_WEIGHTS,
    GRADIENTS_STOCHASTIC_ACTIVATIONS,
    GRADIENTS_STOCHASTIC_BOTH,
)
GRADIENTS = (*GRADIENTS_PAPER, *GRADIENTS_LATER)

# Notebook 03: the same small network, the shift-based algorithms against the exact ones, and what
# batch normalization is for. All ten halve their rate at the same epochs, because the printed
# AdaMax knows no other decay; each optimizer starts at its authors' rate (Adam's to the nearest
# power of two; all AdaMax at that of the Torch7 code, so that only the rule differs among them).
SHIFT_BASELINE = replace(
    GRADIENTS_BASELINE,
    name="shift-baseline",
    learning_rate=2**-8,
    final_learning_rate=0.0,
    halve_every=7.0,
)
SHIFT_BN = replace(SHIFT_BASELINE, name="shift-bn", batch_norm=Normalization.SHIFT_CODED)
SHIFT_ADAMAX = replace(
    SHIFT_BASELINE, name="shift-adamax", optimizer=Rule.ADAMAX_CODED, learning_rate=2**-6
)
SHIFT_BOTH = replace(SHIFT_ADAMAX, name="shift-both", batch_norm=Normalization.SHIFT_CODED)
SHIFT_BN_PRINTED = replace(
    SHIFT_BASELINE, name="shift-bn-printed", batch_norm=Normalization.SHIFT_PRINTED
)
SHIFT_ADAMAX_PRINTED = replace(
    SHIFT_ADAMAX, name="shift-adamax-printed", optimizer=Rule.ADAMAX_PRINTED
)
SHIFT_ADAMAX_DECAYING = replace(
    SHIFT_ADAMAX, name="shift-adamax-decaying", optimizer=Rule.ADAMAX_DECAYING
)
SHIFT_NO_BN = replace(SHIFT_BASELINE, name="shift-no-bn", batch_norm=Normalization.NONE)
SHIFT_STATISTICS_ONLY = replace(
    SHIFT_BASELINE, name="shift-statistics-only", batch_norm=Normalization.STATISTICS
)
SHIFT_SCALE_ONLY = replace(SHIFT_BASELINE, name="shift-scale-only", batch_norm=Normalization.SCALE)
SHIFT = (
    SHIFT_BASELINE,
    SHIFT_BN,
    SHIFT_ADAMAX,
    SHIFT_BOTH,
    SHIFT_BN_PRINTED,
    SHIFT_ADAMAX_PRINTED,
    SHIFT_ADAMAX_DECAYING,
    SHIFT_NO_BN,
    SHIFT_STATISTICS_ONLY,
    SHIFT_SCALE_ONLY,
)

# Notebook 07: from the Theano experiments towards the Torch7 ones, one factor at a time.
GAPS_MNIST_BASELINE = replace(MNIST_THEANO, name="gaps-mnist-baseline")
GAPS_MNIST_WIDTH = replace(MNIST_THEANO, name="gaps-mnist-width", hidden=(2048, 2048, 2048))
GAPS_MNIST_NO_DROPOUT = replace(
    MNIST_THEANO, name="gaps-mnist-no-dropout", input_dropout=0.0, hidden_dropout=0.0
)
GAPS_MNIST_STOCHASTIC = replace(
    MNIST_THEANO, name="gaps-mnist-stochastic", activations=Binarization.STOCHASTIC
)
# The coded optimizer comes with its rate. Ten stages instead of the code's halving every 20 epochs,
# 49 times in 1000 epochs, which would end learning long before the run.
GAPS_MNIST_SHIFT = replace(
    MNIST_THEANO,
    name="gaps-mnist-shift",
    batch_norm=Normalization.SHIFT_CODED,
    optimizer=Rule.ADAMAX_CODED,
    learning_rate=2**-6,
    final_learning_rate=0.0,
    halve_every=100.0,
)
GAPS_CIFAR10_BASELINE = replace(CIFAR10_THEANO, name="gaps-cifar10-baseline")
GAPS_CIFAR10_BATCH = replace(CIFAR10_THEANO, name="gaps-cifar10-batch", batch_size=200)
GAPS_CIFAR10_ZCA = replace(CIFAR10_THEANO, name="gaps-cifar10-zca", inputs=Preprocessing.ZCA_TWICE)
GAPS_CIFAR10_STOCHASTIC = replace(
    CIFAR10_THEANO, name="gaps-cifar10-stochastic", activations=Binarization.STOCHASTIC
)
GAPS_CIFAR10_SHIFT = replace(
    CIFAR10_THEANO,
    name="gaps-cifar10-shift",
    batch_norm=Normalization.SHIFT_CODED,
    optimizer=Rule.ADAMAX_CODED,
    learning_rate=2**-6,
    final_learning_rate=0.0,
    halve_every=50.0,
)
# The two halves of the last one, each alone.
GAPS_CIFAR10_SHIFT_BN = replace(
    CIFAR10_THEANO, name="gaps-cifar10-shift-bn", batch_norm=Normalization.SHIFT_CODED
)
GAPS_CIFAR10_SHIFT_ADAMAX = replace(
    GAPS_CIFAR10_SHIFT, name="gaps-cifar10-shift-adamax", batch_norm=Normalization.EXACT
)
GAPS_MNIST = (
    GAPS_MNIST_BASELINE,
    GAPS_MNIST_WIDTH,
    GAPS_MNIST_NO_DROPOUT,
    GAPS_MNIST_STOCHASTIC,
    GAPS_MNIST_SHIFT,
)
GAPS_CIFAR10 = (
    GAPS_CIFAR10_BASELINE,
    GAPS_CIFAR10_BATCH,
    GAPS_CIFAR10_ZCA,
    GAPS_CIFAR10_STOCHASTIC,
    GAPS_CIFAR10_SHIFT_BN,
    GAPS_CIFAR10_SHIFT_ADAMAX,
    GAPS_CIFAR10_SHIFT,
)

ABLATIONS = (
    *LINEAR,
    *CIFAR10_ABLATIONS,
    *GRADIENTS,
    *SHIFT,
    *GAPS_MNIST,
    *GAPS_CIFAR10,
)
