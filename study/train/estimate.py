"""How long a run would take here, from a few of its steps. Only a budget of time needs to know."""

import time
from functools import cache

import torch
from tqdm import tqdm

from study.data.training_data import Images, TrainingData, training_data
from study.recipes.recipe import Recipe
from study.train import evaluation, loop, malloc
from study.train.checkpoints import Keeper
from study.train.state import State

WARM_UP = 2  # steps: the first ones allocate, and choose how to convolve
TIMED = 5  # few: with little time left, every run that is tried costs as much
MARGIN = 1.1  # steps get slower when a machine gets warm, and an epoch ends with some bookkeeping


def seconds(recipe: Recipe, profile: str, device: str, done: tuple[int, int] = (0, 0)) -> float:
    """Seconds of a run from where it is, `done` (epochs, steps of the next one), to its end."""
    training = training_data(recipe, profile, device)
    step, image = pace(recipe, profile, device)
    epochs, steps = done
    steps_left = (recipe.epochs - epochs) * _steps(recipe, training) - steps
    images_left = (recipe.epochs - epochs) * len(training.validation.images)
    images_left += 2 * len(training.test.images)  # the last network and the best one, at most
    images_left += len(training.validation.images)  # as many of the training's, at most
    return MARGIN * (steps_left * step + images_left * image)


def _steps(recipe: Recipe, training: TrainingData) -> int:
    return len(training.train.images) // recipe.batch_size


@cache
def pace(recipe: Recipe, profile: str, device: str) -> tuple[float, float]:
    """Seconds that a training step takes, and an image in evaluation; measured once a process."""
    training = training_data(recipe, profile, device)
    state = loop.begin(recipe, training, 0, device)
    few = evaluation.first_images(training.validation, evaluation.EVALUATION_BATCH)
    with malloc.keep_freed_memory():  # as a run has it
        _steps_until(WARM_UP, state, recipe, training.train)
        started = time.perf_counter()
        _steps_until(WARM_UP + TIMED, state, recipe, training.train)
        trained = time.perf_counter() - started
        evaluation.evaluate(state.network, few)  # untimed: the first chooses how to convolve
        started = time.perf_counter()
        evaluation.evaluate(state.network, few)
        evaluated = time.perf_counter() - started
    return trained / TIMED, evaluated / len(few.images)


def _steps_until(count: int, state: State, recipe: Recipe, split: Images) -> None:
    """Train on, up to this many steps, and wait for a GPU to have done them."""
    images = torch.arange(count * recipe.batch_size, device=split.images.device)
    state.order = images % len(split.images)
    with tqdm(disable=True) as silent:
        losses = loop.train_epoch(state, recipe, split, Keeper(None, {}), silent)
    losses.sum().item()
