"""Profiles: the changes that each makes in a recipe. `paper` changes nothing.

A shortened run compresses the learning-rate schedule, never cuts it off; some also start at another
rate and end at a higher one. A schedule of halvings is compressed to six to ten stages: the
hundred that the paper's words make of 1000 epochs on MNIST would, compressed, stop learning after
a few. The rate is set by epoch, so in the shortest runs several halvings fall between two epochs.

At `evening` each arm of notebooks 02, 03 and 07 has the learning rate that its sweep chose, see
`sweeps`.
"""

from collections.abc import Iterable

from study.recipes import ablations, open_questions, paper, sweeps
from study.recipes.recipe import Recipe

TINY = {
    "mlp": {"hidden": (32, 32), "epochs": 2},
    "convnet": {"hidden": (8, 8, 8), "dense": 16, "epochs": 2},
}

HIGH_MNIST = {"learning_rate": 1e-2, "final_learning_rate": 1e-4}
HIGH_CIFAR10 = {"learning_rate": 6e-3, "final_learning_rate": 3e-5}
QUICK_HALVED = {"learning_rate": 2**-6, "halve_every": 0.5}

QUICK_MLP = {"hidden": (512, 512, 512), "input_dropout": 0.0, "hidden_dropout": 0.0}
QUICK_CONVNET = {"hidden": (16, 32, 64), "dense": 512, "batch_size": 100}
QUICK_CIFAR10 = {**QUICK_CONVNET, **HIGH_CIFAR10, "epochs": 5}
# Chosen when the shift-based rules had no kernels of their own and took longest: fewer images.
QUICK_CIFAR10_TORCH7 = {
    **QUICK_CONVNET,
    **QUICK_HALVED,
    "epochs": 2,
    "halve_every": 1 / 3,
    "train_images": 12_000,
}
# The full SVHN is large and not to be had everywhere: quick does without its extra images, and
# shows little more than that the recipes run.
QUICK_SVHN = {
    "dataset": "svhn-no-extra",
    "hidden": (4, 8, 16),
    "dense": 64,
    "batch_size": 50,
    "epochs": 3,
    "train_images": 1_000,
}
# svhn-part is small: a quarter of its network's widths, and all of its images.
QUICK_SVHN_PART = {"hidden": (16, 32, 64), "dense": 256, "batch_size": 50, "epochs": 8}
QUICK_GRADIENTS = {"hidden": (128, 128, 128), "epochs": 5, "train_images": 16_000}
QUICK_SHIFT = {"hidden": (128, 128, 128), "epochs": 3, "train_images": 16_000, "halve_every": 0.5}
QUICK_OPEN = {"hidden": (128, 128, 128), **HIGH_MNIST, "epochs": 3, "train_images": 3_000}
QUICK_CODES_MNIST = {"hidden": (128, 128, 128), **HIGH_MNIST, "epochs": 3, "train_images": 10_000}
QUICK_GAPS_MNIST = {"hidden": (256, 256, 256), "epochs": 3, "train_images": 10_000}
QUICK_GAPS_CIFAR10 = {"hidden": (8, 16, 32), "dense": 128, "epochs": 2, "train_images": 4_000}

EVENING_OPEN = {"hidden": (512, 512, 512), "epochs": 10, "train_images": 15_000}
# Few images, many times: a network must be able to overfit before anything can keep it from that.
EVENING_REGULARIZERS = {"hidden": (512, 512, 512), "epochs": 20, "train_images": 3_000}
# At these recipes' own width few epochs make networks that work.
EVENING_GRADIENTS = {"epochs": 8}
EVENING_SHIFT = {"epochs": 8, "halve_every": 1.0}
# Half of the paper's widths, and as many epochs as several seeds have time for.
EVENING_GAPS_MNIST = {"hidden": (2048, 2048, 2048), "epochs": 16}
EVENING_GAPS_CIFAR10 = {"hidden": (64, 128, 256), "dense": 512, "epochs": 6}
# Several seeds on CPU: a quarter of the paper's widths.
EVENING_CODES_MNIST = {"hidden": (1024, 1024, 1024), "epochs": 10}
EVENING_CODES_CIFAR10 = {
    **HIGH_CIFAR10,
    "hidden": (32, 64, 128),
    "dense": 512,
    "batch_size": 100,
    "epochs": 5,
}
# Behind the paper's dropout little is learned above 1e-3. The float twin has the same rates, so
# that one thing differs.
EVENING_MNIST = {"epochs": 40, "learning_rate": 1e-3, "final_learning_rate": 1e-5}
EVENING_CIFAR10 = {**HIGH_CIFAR10, "epochs": 15}
EVENING_SVHN = {"epochs": 2, "train_images": 120_000}
# The paper's network on a hundredth of its images. An epoch has 27 of Torch7's batches, too few for
# the rate in the paper's words: half the batch, therefore, and the rate of the code.
EVENING_SVHN_PART = {**HIGH_CIFAR10, "epochs": 30}
EVENING_SVHN_PART_TORCH7 = {
    "epochs": 30,
    "batch_size": 100,
    "learning_rate": 2**-7,
    "halve_every": 5.0,
}


def _each(chosen: Iterable[Recipe], changes: dict) -> dict[str, dict]:
    """The same changes for several recipes."""
    return {recipe.name: changes for recipe in chosen}


def _swept(arms: Iterable[Recipe], changes: dict) -> dict[str, dict]:
    """The same changes for arms at their chosen rates, and for the recipes that try three rates."""
    arms, rates = tuple(arms), sweeps.chosen()
    tried = [recipe for arm in arms for recipe in sweeps.SWEEPS.get(arm.name, ())]
    chosen = {arm.name: changes | sweeps.chosen_fields(arm, rates) for arm in arms}
    return _each(tried, changes) | chosen


SMOKE = {
    **{recipe.name: TINY[recipe.network] for recipe in paper.PAPER},
    **_each(paper.SVHN_PART, TINY["convnet"]),
    **_each(ablations.LINEAR, {"epochs": 2}),
    "mnist-theano-first-epoch": {"hidden": (32, 32)},
    **_each(ablations.CIFAR10_ABLATIONS, TINY["convnet"]),
    **_each(ablations.GRADIENTS, TINY["mlp"]),
    **_each(ablations.SHIFT, TINY["mlp"]),
    **{recipe.name: TINY[recipe.network] for recipe in sweeps.RATE_RECIPES},
    **_each(ablations.GAPS_MNIST, TINY["mlp"]),
    **_each(ablations.GAPS_CIFAR10, TINY["convnet"]),
    **_each(open_questions.OPEN_BITS, TINY["mlp"]),
    **_each(open_questions.OPEN_REGULARIZERS, TINY["mlp"]),
    **{recipe.name: TINY[recipe.network] for recipe in open_questions.CODES},
}

QUICK = {
    "mnist-theano": {**QUICK_MLP, **HIGH_MNIST, "epochs": 6},
    "mnist-theano-float": {**QUICK_MLP, **HIGH_MNIST, "epochs": 3},
    "mnist-torch7": {**QUICK_MLP, **QUICK_HALVED, "epochs": 3},
    "mnist-torch7-code": {**QUICK_MLP, **QUICK_HALVED, "epochs": 3},
    "cifar10-theano": QUICK_CIFAR10,
    "cifar10-theano-float": {**QUICK_CIFAR10, "epochs": 2},
    **_each((paper.CIFAR10_TORCH7, paper.CIFAR10_TORCH7_CODE), QUICK_CIFAR10_TORCH7),
    "svhn-theano": {**QUICK_SVHN, **HIGH_CIFAR10},
    "svhn-theano-float": {**QUICK_SVHN, **HIGH_CIFAR10},
    "svhn-torch7": {**QUICK_SVHN, **QUICK_HALVED},
    "svhn-torch7-code": {**QUICK_SVHN, **QUICK_HALVED},
    "svhn-part-theano": {**QUICK_SVHN_PART, **HIGH_CIFAR10},
    "svhn-part-theano-float": {**QUICK_SVHN_PART, **HIGH_CIFAR10},
    "svhn-part-torch7": {**QUICK_SVHN_PART, **QUICK_HALVED, "halve_every": 1.0},
    "svhn-part-torch7-code": {**QUICK_SVHN_PART, **QUICK_HALVED, "halve_every": 1.0},
    "mnist-linear": {**HIGH_MNIST, "epochs": 10, "train_images": 16_000},
    "cifar10-linear": {"learning_rate": 3e-3, "final_learning_rate": 3e-5, "train_images": 4_000},
    **_each(ablations.CIFAR10_ABLATIONS, QUICK_CIFAR10),
    **_each(ablations.GRADIENTS, QUICK_GRADIENTS),
    **_each(ablations.SHIFT, QUICK_SHIFT),
    **_each(ablations.GAPS_MNIST, {**QUICK_GAPS_MNIST, **HIGH_MNIST}),
    "gaps-mnist-width": {**QUICK_GAPS_MNIST, **HIGH_MNIST, "hidden": (128, 128, 128)},
    "gaps-mnist-shift": {**QUICK_GAPS_MNIST, "halve_every": 0.5},
    **_each(ablations.GAPS_CIFAR10, {**QUICK_GAPS_CIFAR10, **HIGH_CIFAR10}),
    "gaps-cifar10-shift": {**QUICK_GAPS_CIFAR10, "halve_every": 1 / 4},
    "gaps-cifar10-shift-adamax": {**QUICK_GAPS_CIFAR10, "halve_every": 1 / 4},
    **_each(open_questions.OPEN_BITS, QUICK_OPEN),
    **_each(open_questions.OPEN_REGULARIZERS, QUICK_OPEN),
    "codes-mnist": QUICK_CODES_MNIST,
    "codes-cifar10": {**QUICK_GAPS_CIFAR10, **HIGH_CIFAR10},
}

EVENING = {
    "mnist-theano": EVENING_MNIST,
    "mnist-theano-float": EVENING_MNIST,
    "mnist-torch7": {"epochs": 30, "halve_every": 3.0},
    "mnist-torch7-code": {"epochs": 30, "halve_every": 3.0},
    "cifar10-theano": EVENING_CIFAR10,
    "cifar10-theano-float": EVENING_CIFAR10,
    "cifar10-torch7": {"epochs": 15, "halve_every": 1.5},
    "cifar10-torch7-code": {"epochs": 15, "halve_every": 1.5},
    "svhn-theano": EVENING_SVHN,
    "svhn-theano-float": EVENING_SVHN,
    "svhn-torch7": {**EVENING_SVHN, "halve_every": 0.2},
    "svhn-torch7-code": {**EVENING_SVHN, "halve_every": 0.2},
    "svhn-part-theano": EVENING_SVHN_PART,
    "svhn-part-theano-float": EVENING_SVHN_PART,
    "svhn-part-torch7": EVENING_SVHN_PART_TORCH7,
    "svhn-part-torch7-code": EVENING_SVHN_PART_TORCH7,
    **_each(ablations.CIFAR10_ABLATIONS, EVENING_CIFAR10),
    **_swept(ablations.GRADIENTS, EVENING_GRADIENTS),
    **_swept(ablations.SHIFT, EVENING_SHIFT),
    **_swept(ablations.GAPS_MNIST, EVENING_GAPS_MNIST),
    **_swept((ablations.GAPS_MNIST_WIDTH,), {**EVENING_GAPS_MNIST, "hidden": (1024, 1024, 1024)}),
    **_swept((ablations.GAPS_MNIST_SHIFT,), {**EVENING_GAPS_MNIST, "halve_every": 2.0}),
    **_swept(ablations.GAPS_CIFAR10, EVENING_GAPS_CIFAR10),
    **_swept(
        (ablations.GAPS_CIFAR10_SHIFT, ablations.GAPS_CIFAR10_SHIFT_ADAMAX),
        {**EVENING_GAPS_CIFAR10, "halve_every": 1.0},
    ),
    **_each(open_questions.OPEN_BITS, EVENING_OPEN),
    **_each(open_questions.OPEN_REGULARIZERS, EVENING_REGULARIZERS),
    "codes-mnist": EVENING_CODES_MNIST,
    "codes-cifar10": EVENING_CODES_CIFAR10,
}

PROFILES: dict[str, dict[str, dict]] = {
    "smoke": SMOKE,
    "quick": QUICK,
    "evening": EVENING,
    "paper": {},
}
