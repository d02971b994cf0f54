"""All named runs in the order in which they are worth training, and as many as the time allows."""

import math
import sys
import time

from study import recipes
from study.recipes.recipe import Recipe
from study.train import checkpoints, estimate, runner, runs
from study.train.worker import reason

# What `--all` trains first; the others follow in the order of the recipes, SVHN, which takes
# longest, at the end.
FIRST = (
    "cifar10-theano",
    "mnist-theano",
    "cifar10-torch7",
    "mnist-torch7",
    "cifar10-torch7-code",
    "mnist-torch7-code",
    "cifar10-theano-float",
    "mnist-theano-float",
)


def queue(profile: str, seeds: int) -> list[tuple[Recipe, int]]:
    """Every named recipe at a profile with each seed: all with seed 0, then all with seed 1, ..."""
    others = [recipe for recipe in recipes.RECIPES if recipe.name not in FIRST]
    others.sort(key=lambda recipe: {"svhn-part": 1, "svhn": 2}.get(recipe.dataset, 0))
    ordered = [*map(recipes.by_name, FIRST), *others]
    return [(recipes.at_profile(r, profile), seed) for seed in range(seeds) for r in ordered]


def work_through(profile: str, seeds: int, minutes: float = math.inf) -> list[str]:
    """Train what `queue` lists and isn't finished, while the time lasts. Returns what is left.

    A run that would not end in time isn't begun; one that fails doesn't keep others from training.
    """
    deadline = time.monotonic() + 60 * minutes
    left = []
    for recipe, seed in queue(profile, seeds):
        name = f"{recipe.name} seed {seed}"
        try:
            runner.require_data(recipe, profile)
            record = _run_in_time(recipe, profile, seed, deadline)
        except runner.FAILURES as problem:
            print(f"{name} failed: {reason(problem)}", file=sys.stderr, flush=True)
            record = None
        if record:
            print(f"{name}: {record['test_error']:.2f} % test error", flush=True)
        else:
            left.append(name)
    return left


def _run_in_time(recipe: Recipe, profile: str, seed: int, deadline: float) -> dict | None:
    """The record of a run that is finished or, as far as one can tell, will be by the deadline."""
    device = runner.default_device()
    path = runs.fresh_path(recipe, device, seed)
    limited = deadline < math.inf
    if limited and not runner.is_finished(path, profile, runner.data_hash(recipe, profile)):
        if time.monotonic() >= deadline:
            return None
        done = checkpoints.done(runner.checkpoint_path(path))
        needed = estimate.seconds(recipe, profile, device, done)
        remaining = deadline - time.monotonic()
        if needed > remaining:
            print(
                f"{recipe.name} seed {seed} not begun: it takes {needed / 60:.1f} minutes, "
                f"{max(0, remaining) / 60:.1f} are left"
            )
            return None
    return runner.run(recipe, profile, seed, device)
