"""The runs that the notebooks ask for, so that they can be trained before and side by side."""

from collections.abc import Iterable

from study import recipes
from study.recipes.recipe import Recipe
from study.train import backlog, runner

MNIST = (recipes.MNIST_THEANO, recipes.MNIST_THEANO_FLOAT)
MNIST_TORCH7 = (recipes.MNIST_TORCH7, recipes.MNIST_TORCH7_CODE)
CIFAR10 = (recipes.CIFAR10_THEANO, recipes.CIFAR10_THEANO_FLOAT)
CIFAR10_TORCH7 = (recipes.CIFAR10_TORCH7, recipes.CIFAR10_TORCH7_CODE)
SVHN = tuple(recipe for recipe in recipes.PAPER if recipe.dataset == "svhn")
# A notebook -> its parameters that say how many seeds, and of which recipes; 1: always one.
SEEDS = {
    "02_gradients": {"seeds": (*recipes.GRADIENTS, recipes.MNIST_LINEAR)},
    "03_shift_based": {"seeds": (*recipes.SHIFT, recipes.MNIST_LINEAR)},
    "04_mnist": {"seeds": MNIST, "torch7_seeds": MNIST_TORCH7},
    "05_cifar10": {
        "seeds": CIFAR10,
        "torch7_seeds": CIFAR10_TORCH7,
        "ablation_seeds": recipes.CIFAR10_ABLATIONS,
    },
    "06_svhn": {"seeds": SVHN + recipes.SVHN_PART},
    "07_results_table": {
        "mnist_seeds": MNIST,
        "cifar10_seeds": CIFAR10,
        "torch7_seeds": MNIST_TORCH7 + CIFAR10_TORCH7,
        "svhn_seeds": SVHN,
        "mnist_gap_seeds": (*recipes.GAPS_MNIST, recipes.MNIST_LINEAR),
        "cifar10_gap_seeds": (*recipes.GAPS_CIFAR10, recipes.CIFAR10_LINEAR),
    },
    "08_filters": {1: (recipes.CIFAR10_THEANO,)},
    "10_open_questions": {"seeds": (*recipes.OPEN_BITS, *recipes.OPEN_REGULARIZERS)},
}


def needed(
    profile: str, values: dict[str, dict], changed: Iterable[str] = ()
) -> list[tuple[Recipe, int]]:
    """Each recipe at the profile with each seed that a notebook wants, the most valuable first.

    values: all parameters of the notebooks to be executed, by the notebook's name. changed: those
    that a reader has set; where one is no number of seeds the recipes are not the named ones. House
    numbers that can't be had are not needed: page 06 trains on no stand-in.
    """
    counts: dict[str, int] = {}
    for notebook, given in values.items():
        if not set(changed) <= SEEDS.get(notebook, {}).keys():
            continue
        for parameter, group in SEEDS.get(notebook, {}).items():
            wanted = given.get(parameter, 1)
            for recipe in group:
                counts[recipe.name] = max(wanted, counts.get(recipe.name, 0))
    queued = backlog.queue(profile, max(counts.values(), default=0))
    asked = [(recipe, seed) for recipe, seed in queued if seed < counts.get(recipe.name, 0)]
    return [pair for pair in asked if not _is_without_images(pair[0], profile)]


def _is_without_images(recipe: Recipe, profile: str) -> bool:
    """Whether a recipe wants house numbers that can't be had here."""
    house_numbers = recipe.dataset.startswith("svhn")
    return house_numbers and not runner.has_data(recipe, profile)
