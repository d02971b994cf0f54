"""One training run: the flat loop over epochs. Determines a run's numbers.

A run draws from three generators of its own (initial weights, order of the images, noise), all
derived from its seed. Several processes may make it, see `parallel`: each takes its rows of every
batch. Knows no files but the checkpoint it is given, no plots, no tables.
"""

import copy
import math
import time
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from tqdm import tqdm

from bnnlib import numerics, optim, parallel
from study.data.training_data import Images, TrainingData
from study.recipes.recipe import Recipe
from study.train import analysis, build, eager, evaluation, progress, provenance
from study.train.captured import Captured, prepared
from study.train.checkpoints import Keeper
from study.train.state import State


def begin(recipe: Recipe, training: TrainingData, seed: int, device: str = "cpu") -> State:
    """A run before its first step: a function of the recipe, the input's scale and the seed."""
    numerics.set_up(device)
    network = build.build_network(recipe, seed, device)
    network[0].scale.fill_(training.scale)
    network[0].offset.fill_(training.offset)
    # A network without noise of its own may be rounded stochastically.
    noise = build.noise_generator(network) or Generator(device).manual_seed(3 * seed + 1)
    return State(
        network=network,
        optimizer=build.build_optimizer(recipe, network, noise),
        shuffle=Generator().manual_seed(3 * seed + 2),
        noise=noise,
        signs=analysis.latent_signs(network),
    )


def train_epoch(
    state: State, recipe: Recipe, split: Images, keeper: Keeper, bar: tqdm
) -> Tensor:
    """The rest of the pass over the images in `state.order`: all of it, but after an interruption.

    A partial last batch is dropped, as theirs is. Returns the loss of every step of the epoch,
    (steps,), on the device: nothing waits for it inside the epoch unless a checkpoint is due.
    """
    state.network.train()
    batches = state.order.split(recipe.batch_size)[: len(state.order) // recipe.batch_size]
    for batch in map(parallel.rows, batches[len(state.losses) :]):
        loss = eager.step(state.network, state.optimizer, split.images[batch], split.labels[batch])
        state.losses.append(loss)
        bar.update()
        if keeper.due():
            _require_finite(state, recipe)
            keeper.keep(state)
    return torch.stack(state.losses)


def replay_epoch(
    state: State, recipe: Recipe, captured: Captured, keeper: Keeper, bar: tqdm
) -> Tensor:
    """`train_epoch` by replaying a captured step."""
    captured.begin()
    for done in range(len(state.losses) + 1, len(captured.losses) + 1):
        captured.replay()
        bar.update()
        if keeper.due():
            captured.enter(done)
            _require_finite(state, recipe)
            keeper.keep(state)
    captured.enter(len(captured.losses))
    return torch.stack(state.losses)


def _captured(state: State, recipe: Recipe, split: Images, device: str) -> tuple:
    """(the captured step or None, how steps are made); on a CPU there is nothing to capture."""
    if device != "cuda":
        return None, "eager"
    made, how = prepared(state, recipe, split)
    if made is None:
        tqdm.write(f"{recipe.name}: steps are {how}")
    return made, how


def fit(
    recipe: Recipe,
    training: TrainingData,
    seed: int,
    device: str = "cpu",
    checkpoint: Path | None = None,
) -> tuple[list[dict], dict, nn.Sequential]:
    """Train once. Returns (history, outcome, network): an entry an epoch, what came out, the net.

    The paper's selection: the test error is that of the epoch with the best validation error, the
    latest of equals (binary_net.py:296-304), and so is the network. `outcome` also has its loss and
    error on as many training images as are held out, to be compared with the validation's.
    checkpoint: where a long run leaves its state every few minutes, and from where it goes on after
    an interruption; on a CPU to the very same numbers. Of several processes that make the same run
    together process 0 alone leaves its state, and all must find it.
    Raises FloatingPointError, naming recipe, epoch and step, when the loss is no longer finite,
    ValueError for a negative seed, the checkpoint of another run, or processes that do not begin at
    the same place.
    """
    if seed < 0:
        raise ValueError(f"{recipe.name}: a seed must not be negative, got {seed}")
    state = begin(recipe, training, seed, device)
    keeper = Keeper(checkpoint, provenance.binding(recipe, training.sha256, seed, device))
    keeper.resume(state)
    parallel.require_same({"where it begins": f"epoch {state.epoch}, step {len(state.losses)}"})
    captured, how = _captured(state, recipe, training.train, device)
    with _bar(recipe, training, seed, state) as bar:
        while state.epoch < recipe.epochs:
            _one_epoch(state, recipe, training, captured, keeper, bar)
    outcome = _select(state, training)
    if device == "cuda":
        outcome["steps"] = how
    return state.history, outcome, state.network


def _one_epoch(
    state: State,
    recipe: Recipe,
    training: TrainingData,
    captured: Captured | None,
    keeper: Keeper,
    bar: tqdm,
) -> None:
    """Train an epoch, or the rest of one that was interrupted, and enter it into the history."""
    rate = build.learning_rate(recipe, state.epoch)
    optim.set_learning_rate(state.optimizer, rate)
    if not len(state.order):
        _begin_epoch(state, len(training.train.images))
    if captured is None:
        losses = train_epoch(state, recipe, training.train, keeper, bar)
    else:
        losses = replay_epoch(state, recipe, captured, keeper, bar)
    _require_finite(state, recipe)
    validation = _validate(state, recipe, training.validation)
    _end_epoch(state, rate, losses, *validation)
    progress.show_epoch(bar, state.history, recipe.name, recipe.epochs)
    if keeper.due():
        keeper.keep(state)


def _select(state: State, training: TrainingData) -> dict:
    """Turn the last epoch's network into the best one's; -> the errors in % of both."""
    best = best_epoch(state.history)
    network = state.network
    error = last_error = evaluation.evaluate(network, training.test)[1]
    if best < state.epoch:  # else they are the same
        network.load_state_dict(state.best)
        error = evaluation.evaluate(network, training.test)[1]
    seen = evaluation.first_images(training.train, len(training.validation.images))
    seen_loss, seen_error = evaluation.evaluate(network, seen)
    return {
        "best_epoch": best,
        "final_test_error": last_error,
        "test_error": error,
        "selected_train_loss": seen_loss,
        "selected_train_error": seen_error,
    }


def best_epoch(history: list[dict]) -> int:
    """The epoch, counted from 1, with the lowest validation error: the latest of equals."""
    return min(history, key=lambda entry: (entry["validation_error"], -entry["epoch"]))["epoch"]


def _begin_epoch(state: State, images: int) -> None:
    device = next(state.network.parameters()).device
    state.order = torch.randperm(images, generator=state.shuffle).to(device)
    state.started = time.perf_counter()


def _validate(state: State, recipe: Recipe, split: Images) -> tuple[float, float]:
    loss, error = evaluation.evaluate(state.network, split)
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"{recipe.name}: validation loss {loss} after epoch {state.epoch + 1}"
        )
    return loss, error


def _end_epoch(
    state: State, rate: float, losses: Tensor, validation_loss: float, validation_error: float
) -> None:
    """Enter the epoch into the history and keep its network if it is the best so far."""
    epoch = state.epoch + 1
    signs = analysis.latent_signs(state.network)
    state.history.append(
        {
            "epoch": epoch,
            "train_loss": losses.mean().item(),
            "validation_loss": validation_loss,
            "validation_error": validation_error,
            "learning_rate": rate,
            "seconds": time.perf_counter() - state.started,
            "sign_flips": analysis.sign_flips(state.signs, signs),
            "unique_filters": analysis.filters_of(state.network),
        }
    )
    state.order = state.order[:0]
    state.losses = []
    state.signs = signs
    if best_epoch(state.history) == epoch:
        state.best = copy.deepcopy(state.network.state_dict())


def _require_finite(state: State, recipe: Recipe) -> None:
    """Raise FloatingPointError for a loss, or a number of the network, that isn't finite.

    NaN latent weights would otherwise go unnoticed, since binarization gives them a sign.
    """
    losses = torch.stack(state.losses)
    steps = len(state.order) // recipe.batch_size
    bad = (~losses.isfinite()).nonzero()
    if len(bad):
        step = int(bad[0])
        raise FloatingPointError(
            f"{recipe.name}: the training loss is {losses[step].item()} in epoch "
            f"{state.epoch + 1}, step {step + 1} of {steps}"
        )
    tensors = state.network.state_dict()
    finite = torch.stack([tensor.isfinite().all() for tensor in tensors.values()]).tolist()
    for name, all_finite in zip(tensors, finite, strict=True):
        if not all_finite:
            raise FloatingPointError(
                f"{recipe.name}: {name} is not finite in epoch {state.epoch + 1}, after step "
                f"{len(losses)} of {steps}"
            )


def _bar(recipe: Recipe, training: TrainingData, seed: int, state: State) -> tqdm:
    """A bar over the steps of all epochs."""
    steps = len(training.train.images) // recipe.batch_size
    name = f"{recipe.name} seed {seed}"
    return progress.bar(name, recipe.epochs * steps, state.epoch * steps + len(state.losses))
