"""Questions to a lent GPU, one a process.

    python -m tools.lease_steps WHAT OUT [RECIPE]

facts: the card, versions and rates of its products; checks: whether our kernels and hidden layers
are exact there; pace: milliseconds a step of one recipe, eager and captured.
"""

import argparse
import json
import sys
from importlib.metadata import version
from pathlib import Path

import torch

from bnnlib import numerics, optim
from bnnlib.files import atomic_write
from study import recipes
from study.bench.timing import seconds_of
from study.data.training_data import training_data
from study.train import captured, eager, loop
from study.train.runner import default_device

LARGE = 8192  # a square product's side


def facts(device: str, size: int = LARGE) -> dict:
    """The card, versions, and teraops a second of the library's products of size^3."""
    rates = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        x = torch.ones(size, size, device=device, dtype=dtype)
        rates[name] = _rate(lambda x=x: x @ x, size, device)
    with numerics.tensor_cores():
        x = torch.ones(size, size, device=device)
        rates["TF32"] = _rate(lambda: x @ x, size, device)
    x = torch.ones(size, size, device=device, dtype=torch.int8)
    rates["int8"] = _rate(lambda: torch._int_mm(x, x.t()), size, device)
    card = {}
    if device == "cuda":
        found = torch.cuda.get_device_properties(0)
        card = {"name": found.name, "capability": f"{found.major}.{found.minor}"}
        card |= {"processors": found.multi_processor_count, "bytes": found.total_memory}
        card["cuda"] = torch.version.cuda
    versions = {name: version(name) for name in ("torch", "numpy", "triton")}
    return {"card": card, "versions": versions, "teraops": rates}


def _rate(call, size: int, device: str) -> float:
    seconds_of(call, 3, device)
    return 2 * size**3 / seconds_of(call, 10, device) / 1e12


def checks(device: str) -> dict:
    """Reasons against the binary tensor cores there; empty where there are none."""
    from bnnlib.kernels import tensor_cores

    return {"binary tensor cores": tensor_cores.why_not(device)}


def pace(
    name: str, profile: str, device: str, graph: type = captured.CudaGraph, steps: int = 100
) -> dict:
    """Milliseconds of a step of a recipe's run, eager and replayed; and why it is not replayed."""
    recipe = recipes.at_profile(recipes.by_name(name), profile)
    training = training_data(recipe, profile, device)
    state = loop.begin(recipe, training, 0, device)
    optim.set_learning_rate(state.optimizer, recipe.learning_rate)
    split = training.train
    state.network.train()
    rows = slice(0, recipe.batch_size)
    batch = split.images[rows], split.labels[rows]
    one_step = lambda: eager.step(state.network, state.optimizer, *batch)  # noqa: E731
    seconds_of(one_step, 3, device)
    told = {"eager_ms": 1000 * seconds_of(one_step, min(steps, 20), device)}
    step, told["steps"] = captured.prepared(state, recipe, split, graph)
    if step:
        loop._begin_epoch(state, len(split.images))
        step.begin()
        count = min(steps, len(step.losses) - 3)
        seconds_of(step.replay, 3, device)
        told["captured_ms"] = 1000 * seconds_of(step.replay, max(1, count), device)
    return told


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.lease_steps", description=__doc__)
    parser.add_argument("what", choices=("facts", "checks", "pace"))
    parser.add_argument("out", type=Path)
    parser.add_argument("recipe", nargs="?")
    parser.add_argument("--profile", default="paper")
    options = parser.parse_args(arguments)
    device = default_device()
    numerics.set_up(device)
    if options.what == "pace":
        found = {options.recipe: pace(options.recipe, options.profile, device)}
    else:
        size = LARGE if options.profile == "paper" else 64
        found = facts(device, size) if options.what == "facts" else checks(device)
    with atomic_write(options.out) as file:
        file.write(json.dumps(found, indent=1).encode())
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
