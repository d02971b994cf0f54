"""Runs and their records. Determines no number: `study.train.loop` does."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import torch
from torch import nn

from bnnlib import models, network_file, numerics, parallel
from bnnlib.files import atomic_write
from study import data, recipes
from study.data.training_data import TrainingData, training_data
from study.recipes.recipe import Preprocessing, Recipe
from study.train import averaged, build, checkpoints, loop, malloc, progress, provenance, runs

# Of a run: data.DataUnavailable is a RuntimeError, as is what torch raises, out of memory, too.
FAILURES = (ValueError, OSError, FloatingPointError, RuntimeError, MemoryError)


def run(
    recipe: Recipe,
    profile: str,
    seed: int,
    device: str = "cpu",
    training: TrainingData | None = None,
) -> dict:
    """One run's record: read from build/runs if the present sources and data made it, else made.

    training: what to train on, on that device, in place of the recipe's data set.

    A run that was interrupted goes on from its last checkpoint. Several processes make it together
    in one folder; the first one writes. Raises ValueError where they do not find the same there.
    """
    path = runs.fresh_path(recipe, device, seed)
    path.parent.mkdir(parents=True, exist_ok=True)  # now, and not after hours, if it can't be
    finished = _is_done(recipe, profile, path, training)
    parallel.require_same({f"whether {path} is there": str(finished)})
    if not finished:
        training = training or training_data(recipe, profile, device)
        _make(recipe, profile, seed, training, path, device)
    if parallel.rank() == 0:
        checkpoints.remove(checkpoint_path(path))
    parallel.wait_for_all()
    return runs.read_record(path)


def _make(
    recipe: Recipe, profile: str, seed: int, training: TrainingData, path: Path, device: str
) -> None:
    """Train a run and leave its record and its network."""
    numerics.set_up(device)  # before the record says what is in force
    made = provenance.gather(device)
    with progress.shown(), malloc.keep_freed_memory(), _interruption_told(recipe, seed, path):
        history, outcome, network = loop.fit(recipe, training, seed, device, checkpoint_path(path))
    record = {
        "schema": runs.SCHEMA,
        "recipe": asdict(recipe),
        "profile": profile,
        "seed": seed,
        "history": history,
        **outcome,
        **averaged.outcome(recipe, profile, network, training.test, seed),
        "provenance": {**made, **_origin(training), "seconds": _seconds(history)},
    }
    # A worker that was given up for lost may have ended the same run here meanwhile: the first
    # one stays, record and network, so that the two never come from different trainings.
    if parallel.rank() == 0 and not is_finished(path, profile, training.sha256):
        _keep_network(network, recipe, seed, path.with_suffix(".safetensors"))
        runs.write_record(path, record)


@contextmanager
def _interruption_told(recipe: Recipe, seed: int, path: Path) -> Iterator[None]:
    """Let an interrupt say where the run would go on: it has no checkpoint in its first minutes."""
    try:
        yield
    except KeyboardInterrupt:
        epochs, steps = checkpoints.done(checkpoint_path(path))
        name = f"{recipe.name} seed {seed}"
        where = f"after {steps} steps of epoch {epochs + 1}, from its last checkpoint"
        there = epochs or steps
        told = f"{name} goes on {where}" if there else f"{name} begins anew, it had no checkpoint"
        raise KeyboardInterrupt(told) from None


def _is_done(recipe: Recipe, profile: str, path: Path, training: TrainingData | None) -> bool:
    """Whether the record is there, made from these data, which are hashed only if it is."""
    if not path.exists():
        return False
    return is_finished(path, profile, training.sha256 if training else data_hash(recipe, profile))


def data_hash(recipe: Recipe, profile: str) -> str:
    """The hash of what `training_data` gives, without the whitening, which takes many seconds."""
    plain = replace(recipe, inputs=Preprocessing.SCALED, train_images=0)  # the hash is the same
    return training_data(plain, profile).sha256


def is_finished(path: Path, profile: str, sha256: str) -> bool:
    """Whether the record there was made from these data for this profile."""
    if not path.exists():
        return False
    record = runs.read_record(path)
    return record["profile"] == profile and record["provenance"]["data"] == sha256


def _keep_network(network: nn.Sequential, recipe: Recipe, seed: int, path: Path) -> None:
    """Seed 0 alone leaves its network, but where networks are compared."""
    kept = seed == 0 or recipe.name in {compared.name for compared in recipes.CODES}
    if kept and models.binary_layers(network):
        told = network_file.trained_on(recipe.dataset, data.LABELS.get(recipe.dataset, ()))
        with atomic_write(path) as file:
            file.write(network_file.save_network(network, build.file_shape(recipe), told))


def checkpoint_path(path: Path) -> Path:
    """The checkpoint of the run whose record lies at `path`."""
    return path.with_suffix(".checkpoint")


def _origin(training: TrainingData) -> dict:
    return {
        "data": training.sha256,
        "data_source": training.source,
        "stand_in": training.stand_in,
    }


def _seconds(history: list[dict]) -> float:
    """Seconds of all epochs, each of which counts all the parts that it was made in."""
    return sum(entry["seconds"] for entry in history)


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
    """Places where a run's record lies, committed ones first."""
    named = recipes.is_named(recipe, profile)
    committed = runs.committed_paths(recipe, profile, seed) if named else []
    fresh = (runs.fresh_path(recipe, device, seed) for device in ("cuda", "cpu"))
    return [*committed, *(path for path in fresh if path.exists())]


def network_path(recipe: Recipe, profile: str, retrain: bool, seed: int = 0) -> Path | None:
    """The file of the network that belongs to the run that `obtain` returns; None without a run.

    Raises FileNotFoundError where the run's record is there and its network is not: a page about a
    trained network must not go on with another.
    """
    fresh = runs.fresh_path(recipe, default_device(), seed)
    places = [fresh] if retrain else _record_paths(recipe, profile, seed)
    found = [path for path in places if path.exists()]
    if not found:
        return None
    network = found[0].with_suffix(".safetensors")
    if found[0].is_relative_to(runs.COMMITTED):
        network = runs.NETWORKS / network_name(recipe.name, profile, seed)
    if network.exists():
        return network
    name = f"{recipe.name}, {profile} profile, seed {seed}"
    raise FileNotFoundError(
        f"the run {name} is on file and its network {network.name} is not: to train it anew, "
        f"remove the record and set retrain = True"
    )


def trained_networks(
    recipe: Recipe, profile: str, retrain: bool, seeds: int = 1
) -> list[tuple[dict, Path]]:
    """The most faithful runs of a recipe, each with the file of its network; empty without a run.

    At smoke and for an altered recipe: the page's own runs. Else those of the most faithful profile
    that has any, since results/models keeps each recipe's best profile alone; with `retrain` the
    page's own profile has some. Raises FileNotFoundError where a run is there and its network is
    not.
    """
    choices = [(recipe, profile)]
    if profile != "smoke" and recipes.is_named(recipe, profile):
        named = recipes.by_name(recipe.name)
        choices = [(recipes.at_profile(named, name), name) for name in recipes.FAITHFUL]
    for each, name in choices:
        trained = retrain and name == profile
        if found := obtain(each, name, seeds, trained):
            return [(run, network_path(each, name, trained, run["seed"])) for run in found]
    return []


def network_name(recipe: str, profile: str, seed: int) -> str:
    """Name of a committed network's file; most recipes keep that of seed 0 alone."""
    return f"{recipe}-{profile}{f'-seed{seed}' if seed else ''}.safetensors"


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def require_data(recipe: Recipe, profile: str) -> None:
    """No training on the stand-in by surprise."""
    if not has_data(recipe, profile):
        raise data.DataUnavailable(_missing(recipe.dataset))


def has_data(recipe: Recipe, profile: str) -> bool:
    """Whether `require_data` would let the recipe train."""
    return profile == "smoke" or not _missing(recipe.dataset)


@cache
def _missing(dataset: str) -> str:
    """Why a data set can't be had, or nothing; asked once a process, as asking may take minutes."""
    try:
        data.load(dataset)
    except data.DataUnavailable as problem:
        return str(problem)
    return ""
