"""One training run: the flat loop, the loss, evaluation. All that determines a run's numbers.

A run draws from three generators of its own (initial weights, order of the images, noise), all
derived from its seed. Several processes may make it, see `parallel`: each takes its rows of every
batch. Knows no files but the checkpoint it is given, no plots, no tables.
"""

from __future__ import annotations

import copy
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from tqdm import tqdm

from bnnlib import numerics, optim, parallel
from study.data.training_data import Images, TrainingData
from study.recipes.recipe import Recipe
from study.train import analysis, build, provenance
from study.train.checkpoints import Keeper, State

if TYPE_CHECKING:  # it imports this module
    from study.train.captured import Captured

EVALUATION_BATCH = 500


def squared_hinge(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean over batch and classes of max(0, 1 - t s)^2, t = +1 for the label's class, -1 elsewhere.

    scores: (B, 10), labels: (B,). The paper's "L2-SVM" loss (mnist.py:175).
    """
    margins = 1 - scores * (2 * F.one_hot(labels, scores.shape[1]) - 1)
    return margins.clamp(min=0).square().mean()


@torch.no_grad()
def evaluate(network: nn.Module, split: Images) -> tuple[float, float]:
    """(mean squared hinge loss, error in percent) over a whole split; leaves evaluation mode on."""
    network.eval()
    ours = slice(parallel.rank(), None, parallel.size())
    loss = torch.zeros((), dtype=torch.float64, device=split.labels.device)
    errors = torch.zeros_like(loss)  # both stay on the device: nothing waits for it in between
    for start in range(0, len(split.images), EVALUATION_BATCH)[ours]:
        labels = split.labels[start : start + EVALUATION_BATCH]
        scores = network(split.images[start : start + EVALUATION_BATCH])
        loss += squared_hinge(scores, labels).double() * len(labels)
        errors += (scores.argmax(1) != labels).sum()
    loss, errors = parallel.total(*torch.stack([loss, errors]).tolist())
    return loss / len(split.images), 100 * errors / len(split.images)


def first_images(split: Images, count: int) -> Images:
    """The first `count` of a split, or all of a smaller one."""
    return Images(split.images[:count], split.labels[:count])


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


def gradients(
    network: nn.Module, optimizer: optim.Optimizer, images: Tensor, labels: Tensor
) -> Tensor:
    """Forward and backward: fill the parameters' gradients. Returns the loss, detached."""
    optimizer.zero_grad()
    loss = squared_hinge(network(images), labels)
    loss.backward()
    return loss.detach()


def step(network: nn.Module, optimizer: optim.Optimizer, images: Tensor, labels: Tensor) -> Tensor:
    """Algorithm 1 of the paper once: forward, backward, update, clip. Returns the batch's loss.

    images, labels: this process's rows of the batch; loss and gradients are the whole batch's.
    """
    loss = gradients(network, optimizer, images, labels)
    parallel.average_([loss, *(parameter.grad for parameter in optimizer.parameters())])
    optimizer.step()
    return loss


def train_epoch(
    state: State, recipe: Recipe, split: Images, keeper: Keeper, progress: tqdm
) -> Tensor:
    """The rest of the pass over the images in `state.order`: all of it, but after an interruption.

    A partial last batch is dropped, as theirs is. Returns the loss of every step of the epoch,
    (steps,), on the device: nothing waits for it inside the epoch unless a checkpoint is due.
    """
    state.network.train()
    batches = state.order.split(recipe.batch_size)[: len(state.order) // recipe.batch_size]
    for batch in map(parallel.rows, batches[len(state.losses) :]):
        loss = step(state.network, state.optimizer, split.images[batch], split.labels[batch])
        state.losses.append(loss)
        progress.update()
        if keeper.due():
            _require_finite(state, recipe)
            keeper.keep(state)
    return torch.stack(state.losses)


def replay_epoch(
    state: State, recipe: Recipe, captured: Captured, keeper: Keeper, progress: tqdm
) -> Tensor:
    """`train_epoch` by replaying a captured step."""
    captured.begin()
    for done in range(len(state.losses) + 1, len(captured.losses) + 1):
        captured.replay()
        progress.update()
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
    from study.train import captured

    made, how = captured.prepared(state, recipe, split)
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
    latest of equals (binary_net.py:296-304). The network returned is that epoch's; of it are also
    the loss and the error on training images in evaluation mode, to be compared with the
    validation's: as many images as are held out, or all if they are fewer.
    checkpoint: where a long run leaves its state every few minutes, and from where it goes on after
    an interruption; on a CPU to the very same numbers.
    Several processes make the same run together; process 0 alone leaves its state, and all must
    find it.
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
    with _progress(recipe, training, seed, state) as progress:
        while state.epoch < recipe.epochs:
            rate = build.learning_rate(recipe, state.epoch)
            optim.set_learning_rate(state.optimizer, rate)
            if not len(state.order):
                _begin_epoch(state, len(training.train.images))
            if captured is None:
                losses = train_epoch(state, recipe, training.train, keeper, progress)
            else:
                losses = replay_epoch(state, recipe, captured, keeper, progress)
            _require_finite(state, recipe)
            validation = _validate(state, recipe, training.validation)
            _end_epoch(state, rate, losses, *validation)
            _show_epoch(progress, state.history, recipe)
            if keeper.due():
                keeper.keep(state)
    outcome = _select(state, training)
    if device == "cuda":
        outcome["steps"] = how
    return state.history, outcome, state.network


def _select(state: State, training: TrainingData) -> dict:
    """Turn the last epoch's network into the best one's; -> the errors in % of both."""
    best, network = best_epoch(state.history), state.network
    error = last_error = evaluate(network, training.test)[1]
    if best < state.epoch:  # else they are the same
        network.load_state_dict(state.best)
        error = evaluate(network, training.test)[1]
    seen = first_images(training.train, len(training.validation.images))
    seen_loss, seen_error = evaluate(network, seen)
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
    loss, error = evaluate(state.network, split)
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
    state.order, state.losses, state.signs = state.order[:0], [], signs
    if best_epoch(state.history) == epoch:
        state.best = copy.deepcopy(state.network.state_dict())


def _require_finite(state: State, recipe: Recipe) -> None:
    """Raise FloatingPointError for a loss, or a number of the network, that isn't finite.

    Of a binary layer's latent weights nothing else would tell: NaN has a sign, too.
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


def _progress(recipe: Recipe, training: TrainingData, seed: int, state: State) -> tqdm:
    """A bar over all steps on a terminal; elsewhere `_show_epoch` prints a line an epoch."""
    steps = len(training.train.images) // recipe.batch_size
    return tqdm(
        total=recipe.epochs * steps,
        initial=state.epoch * steps + len(state.losses),
        desc=f"{recipe.name} seed {seed}",
        unit="step",
        disable=not sys.stderr.isatty() or parallel.rank() > 0,
    )


def _show_epoch(progress: tqdm, history: list[dict], recipe: Recipe) -> None:
    last = history[-1]
    if not progress.disable:
        progress.set_postfix_str(f"validation error {last['validation_error']:.2f} %")
        return
    left = (recipe.epochs - len(history)) * last["seconds"]
    print(
        f"{recipe.name} epoch {last['epoch']}/{recipe.epochs}: loss {last['train_loss']:.4f}, "
        f"validation error {last['validation_error']:.2f} %, {left:.0f} s left",
        flush=True,
    )
