"""Training: one flat loop, evaluation, and `python -m bnnlib.train`. No plots, no tables.

A run draws from three generators of its own (initial weights, order of the images, noise), all
derived from its seed.
"""

import argparse
import copy
import math
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from tqdm import tqdm

from bnnlib import analysis, data, models, optim, recipes, runs
from bnnlib.inputs import Images, TrainingData, training_data
from bnnlib.recipes import Recipe

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
    loss, errors = 0.0, 0
    for start in range(0, len(split.images), EVALUATION_BATCH):
        labels = split.labels[start : start + EVALUATION_BATCH]
        scores = network(split.images[start : start + EVALUATION_BATCH])
        loss += squared_hinge(scores, labels).item() * len(labels)
        errors += (scores.argmax(1) != labels).sum().item()
    return loss / len(split.images), 100 * errors / len(split.images)


def build_network(recipe: Recipe, seed: int, device: str = "cpu") -> nn.Sequential:
    """The recipe's network with its initial weights, a function of the seed."""
    init = Generator().manual_seed(3 * seed)
    noise = Generator(device).manual_seed(3 * seed + 1)
    parts = models.Parts(recipe.weights, recipe.activations, recipe.cancel_saturated, init, noise)
    return models.build(
        parts,
        recipe.network,
        recipe.hidden,
        recipe.dense,
        recipe.input_dropout,
        recipe.hidden_dropout,
    ).to(device)


def train_epoch(
    network: nn.Module,
    optimizer: optim.Adam,
    split: Images,
    order: Tensor,
    batch_size: int,
    progress: tqdm,
) -> Tensor:
    """One pass over the images in the given order; a partial last batch is dropped, as theirs is.

    Returns the loss of every step, (steps,), on the device: nothing waits for it inside the epoch.
    """
    network.train()
    losses = []
    for batch in order.split(batch_size)[: len(order) // batch_size]:
        optimizer.zero_grad()
        loss = squared_hinge(network(split.images[batch]), split.labels[batch])
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        progress.update()
    return torch.stack(losses)


def fit(
    recipe: Recipe, training: TrainingData, seed: int, device: str = "cpu"
) -> tuple[list[dict], dict, nn.Sequential]:
    """Train once. Returns (history, outcome, network): an entry an epoch, the test errors, the net.

    The paper's selection: the test error is that of the epoch with the best validation error, the
    latest of equals (binary_net.py:296-304). The network returned is that epoch's.
    Raises FloatingPointError, naming recipe, epoch and step, when the loss is no longer finite,
    ValueError for a negative seed.
    """
    if seed < 0:
        raise ValueError(f"{recipe.name}: a seed must not be negative, got {seed}")
    network = build_network(recipe, seed, device)
    groups = optim.parameter_groups(network, recipe.glorot_multiplier, recipe.clip_weights)
    optimizer = optim.Adam(groups, recipe.learning_rate)
    shuffle = Generator().manual_seed(3 * seed + 2)
    signs = analysis.latent_signs(network)
    history, best_error, best_epoch, best_state = [], float("inf"), 0, {}
    with _progress(recipe, training, seed) as progress:
        for epoch in range(recipe.epochs):
            started = time.perf_counter()
            rate = optim.exponential_decay(
                recipe.learning_rate, recipe.final_learning_rate, epoch, recipe.epochs
            )
            optim.set_learning_rate(optimizer, rate)
            order = torch.randperm(len(training.train.images), generator=shuffle).to(device)
            losses = train_epoch(
                network, optimizer, training.train, order, recipe.batch_size, progress
            )
            _require_finite(losses, recipe, epoch)
            validation_loss, validation_error = evaluate(network, training.validation)
            if not math.isfinite(validation_loss):
                where = f"after epoch {epoch + 1}"
                raise FloatingPointError(
                    f"{recipe.name}: validation loss {validation_loss} {where}"
                )
            signs, previous = analysis.latent_signs(network), signs
            history.append(
                {
                    "epoch": epoch + 1,
                    "train_loss": losses.mean().item(),
                    "validation_loss": validation_loss,
                    "validation_error": validation_error,
                    "learning_rate": rate,
                    "seconds": time.perf_counter() - started,
                    "sign_flips": analysis.sign_flips(previous, signs),
                    "unique_filters": analysis.filters_of(network),
                }
            )
            _show_epoch(progress, history, recipe)
            if validation_error <= best_error:
                best_error, best_epoch = validation_error, epoch + 1
                best_state = copy.deepcopy(network.state_dict())
    outcome = {"best_epoch": best_epoch, "final_test_error": evaluate(network, training.test)[1]}
    network.load_state_dict(best_state)
    outcome["test_error"] = evaluate(network, training.test)[1]
    return history, outcome, network


def _require_finite(losses: Tensor, recipe: Recipe, epoch: int) -> None:
    bad = (~losses.isfinite()).nonzero()
    if len(bad):
        step = int(bad[0])
        raise FloatingPointError(
            f"{recipe.name}: the training loss is {losses[step].item()} in epoch {epoch + 1}, "
            f"step {step + 1} of {len(losses)}"
        )


def _progress(recipe: Recipe, training: TrainingData, seed: int) -> tqdm:
    """A bar over all steps on a terminal; elsewhere `_show_epoch` prints a line an epoch."""
    return tqdm(
        total=recipe.epochs * (len(training.train.images) // recipe.batch_size),
        desc=f"{recipe.name} seed {seed}",
        unit="step",
        disable=not sys.stderr.isatty(),
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


def run(recipe: Recipe, profile: str, seed: int, device: str = "cpu") -> dict:
    """One run's record: read from build/runs if the present sources and data made it, else made."""
    training = training_data(recipe, profile, device)
    path = runs.fresh_path(recipe, device, seed)
    if path.exists():
        record = runs.read_record(path)
        if record["profile"] == profile and record["provenance"]["data"] == training.sha256:
            return record
    path.parent.mkdir(parents=True, exist_ok=True)  # now, and not after hours, if it can't be
    provenance = runs.provenance(device)
    started = time.perf_counter()
    history, outcome, network = fit(recipe, training, seed, device)
    if seed == 0 and recipe.epochs > 1 and models.binary_layers(network):
        names = ("network", "hidden", "dense", "activations")
        content = models.save_network(network, {name: asdict(recipe)[name] for name in names})
        runs.write_atomic(path.with_suffix(".safetensors"), content)
    record = {
        "schema": runs.SCHEMA,
        "recipe": asdict(recipe),
        "profile": profile,
        "seed": seed,
        "history": history,
        **outcome,
        "provenance": {
            **provenance,
            "data": training.sha256,
            "data_source": training.source,
            "stand_in": training.stand_in,
            "seconds": time.perf_counter() - started,
        },
    }
    runs.write_record(path, record)
    return runs.read_record(path)


def obtain(recipe: Recipe, profile: str, seeds: int, retrain: bool) -> list[dict]:
    """The records of seeds 0 .. seeds - 1. With `retrain`, missing ones are trained first.

    Without, the committed records of a named recipe are read, or else what build/runs holds; a seed
    that is in neither is absent, so the list may be empty. Raises ValueError for a negative number.
    """
    if seeds < 0:
        raise ValueError(f"seeds must not be negative, got {seeds}")
    if retrain:
        device = default_device()
        return [run(recipe, profile, seed, device) for seed in range(seeds)]
    paths = (_record_paths(recipe, profile, seed) for seed in range(seeds))
    return [runs.read_record(found[0]) for found in paths if found]


def _record_paths(recipe: Recipe, profile: str, seed: int) -> list[Path]:
    """Where a run's record lies, committed ones first."""
    named = recipes.is_named(recipe, profile)
    committed = runs.committed_paths(recipe, profile, seed) if named else []
    fresh = (runs.fresh_path(recipe, device, seed) for device in ("cuda", "cpu"))
    return [*committed, *(path for path in fresh if path.exists())]


def network_path(recipe: Recipe, profile: str, retrain: bool) -> Path | None:
    """The file of seed 0's trained network that belongs to what `obtain` returns; None without."""
    fresh = runs.fresh_path(recipe, default_device(), 0).with_suffix(".safetensors")
    committed = runs.NETWORKS / f"{recipe.name}-{profile}.safetensors"
    named = not retrain and recipes.is_named(recipe, profile)
    return next((path for path in ([committed] if named else []) + [fresh] if path.exists()), None)


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bnnlib.train", description="Train a named recipe and leave its run records."
    )
    parser.add_argument("recipe", help=", ".join(r.name for r in recipes.RECIPES))
    parser.add_argument("--profile", default="quick", help=", ".join(recipes.PROFILES))
    parser.add_argument("--seeds", type=int, default=1, help="how many: 0 .. SEEDS - 1")
    options = parser.parse_args(arguments)
    os.environ["BNN_COMMAND"] = " ".join(["python -m bnnlib.train", *(arguments or sys.argv[1:])])
    try:
        recipe = recipes.at_profile(recipes.by_name(options.recipe), options.profile)
        if options.seeds < 1:
            raise ValueError(f"--seeds must be at least 1, got {options.seeds}")
        if options.profile != "smoke":
            data.load(recipe.dataset)  # no training on the stand-in by surprise
        for seed in range(options.seeds):
            record = run(recipe, options.profile, seed, default_device())
            print(f"{recipe.name} seed {seed}: {record['test_error']:.2f} % test error")
    except (ValueError, OSError, FloatingPointError, data.DataUnavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
