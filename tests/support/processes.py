"""What `torchrun` starts for test_parallel.py: FOLDER, then scenes, played by every process.

Each process leaves rank<r>-<scene>.safetensors or .txt there.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from bnnlib import parallel
from study import recipes
from study.data.training_data import training_data
from study.train import __main__ as command
from study.train import checkpoints, eager, evaluation, loop, provenance, runner, same_platform

# Exact and shift-based batch norm, of rows and of images, dropout and stochastic activations.
STEPS = ("mnist-theano", "cifar10-theano", "mnist-torch7-code", "cifar10-torch7")
BATCH = 40
TINY = recipes.at_profile(recipes.MNIST_THEANO, "smoke")


def step(name: str) -> dict[str, Tensor]:
    """All that one step on a batch changes, in float64, where rounding turns no sign."""
    recipe = recipes.at_profile(recipes.by_name(name), "smoke")
    recipe = replace(recipe, batch_size=BATCH, inputs=recipes.Preprocessing.SCALED)
    training = training_data(recipe, "smoke")
    state = loop.begin(recipe, training, 0)
    state.network.double()
    evaluated = evaluation.evaluate(state.network, training.validation)
    state.network.train()
    batch = parallel.rows(torch.arange(BATCH))
    images, labels = training.train.images[batch], training.train.labels[batch]
    loss = eager.step(state.network, state.optimizer, images, labels)
    found = {f"after {key}": value for key, value in state.network.state_dict().items()}
    for key, parameter in state.network.named_parameters():
        found[f"gradient {key}"] = parameter.grad
    found |= {"loss": loss, "evaluated": torch.tensor(evaluated, dtype=torch.float64)}
    found["noise"] = state.noise.get_state()
    return {key: value.contiguous() for key, value in found.items()}


def refused(attempt: Callable[[], None]) -> str:
    try:
        attempt()
    except ValueError as refusal:
        return str(refusal)
    return "not refused"


def indivisible() -> None:
    same_platform.require_same_processes(replace(TINY, batch_size=2 * BATCH + 1), "smoke")


def other_sources() -> None:
    same_platform.facts.cache_clear()
    genuine = provenance.source_hash
    provenance.source_hash = lambda: f"those of {parallel.rank()}"
    try:
        same_platform.require_same_processes(TINY, "smoke")
    finally:
        provenance.source_hash = genuine
        same_platform.facts.cache_clear()


def other_folder() -> None:
    genuine = runner._is_done
    runner._is_done = lambda *_: parallel.rank() == 0
    try:
        runner.run(TINY, "smoke", 9)
    finally:
        runner._is_done = genuine


def everything() -> None:
    command._require_sensible(command._options(["--all"]))


REFUSED = {call.__name__: call for call in (indivisible, other_sources, other_folder, everything)}


def killed() -> None:
    """A run whose first process dies after its seventh checkpoint, one a step."""
    checkpoints.EVERY, checkpoints.SHARE = 0, 1e9
    genuine, saved = checkpoints.save, []

    def save(*state) -> None:
        genuine(*state)
        saved.append(True)
        if len(saved) == 7:
            os._exit(1)

    checkpoints.save = save
    runner.run(TINY, "smoke", 0)


def play(scene: str, place: Path) -> None:
    if scene in STEPS:
        safetensors.torch.save_file(step(scene), place.with_suffix(".safetensors"))
    elif scene in REFUSED:
        place.with_suffix(".txt").write_text(refused(REFUSED[scene]))
    elif scene == "killed":
        killed()


if __name__ == "__main__":
    folder, scenes = Path(sys.argv[1]), sys.argv[2:]
    with parallel.joined("cpu"):
        for scene in scenes:
            play(scene, folder / f"rank{parallel.rank()}-{scene}")
