"""Training steps of the shift-based recipes: an older commit's sources against the present ones.

    python -m benchmarks.bench_rules COMMIT [--rounds 3] [--steps 8] [--profile paper]

Old and new run in turn, each in a process of its own from its own checkout, with freed memory kept
as the trainer keeps it. A step is all of it: scaling, forward, backward, update, clipping. At
`paper` the Torch7 recipes have the paper's sizes, and results/bench/rules-<kind of device>.json is
left; at `quick` every shift-based recipe of notebooks 03, 04, 05 and 07 is timed, and printed only.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bnnlib.layers import Normalization
from bnnlib.rules import Rule
from study import ROOT, bench, recipes
from study.recipes.recipe import Recipe
from study.train import provenance, runs
from tools.same_numbers import check_out

PAPER = (recipes.MNIST_TORCH7, recipes.CIFAR10_TORCH7, recipes.CIFAR10_TORCH7_CODE)
DATASETS = ("mnist", "cifar10")
# Run by both checkouts' own packages, so it uses only what both have; prints seconds of all steps.
SCRIPT = """
import json, os, sys, time
import torch
if os.path.isdir("study/train"):
    from study import recipes
    from study.train import build, loop, malloc
    build_network, build_optimizer = build.build_network, build.build_optimizer
    try:
        from study.train.eager import step
        memory_kept = malloc.keep_freed_memory
    except ModuleNotFoundError:  # commits in which the loop's module had the step
        step, memory_kept = loop.step, malloc.kept
else:  # commits in which the library and the study were one package
    from bnnlib import fit, memory, models, optim, recipes
    build_network, build_optimizer = models.build_network, optim.build_optimizer
    step, memory_kept = fit.step, memory.kept

WARM_UP = 3
name, profile, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
recipe = recipes.at_profile(recipes.by_name(name), profile)
network = build_network(recipe, 0)
optimizer = build_optimizer(recipe, network)
network.train()
draw = torch.Generator().manual_seed(0)
shape = (28, 28) if recipe.network == "mlp" else (3, 32, 32)
images = torch.randint(256, (recipe.batch_size, *shape), generator=draw).to(torch.uint8)
labels = torch.randint(10, (recipe.batch_size,), generator=draw)
seconds = []
with memory_kept():
    for _ in range(WARM_UP + steps):
        started = time.perf_counter()
        step(network, optimizer, images, labels)
        seconds.append(time.perf_counter() - started)
print(json.dumps(seconds[WARM_UP:]))
"""


def is_shift_based(recipe: Recipe) -> bool:
    """Whether a recipe has a shift-based rule or normalization, of notebooks 03, 04, 05 and 07."""
    shifted = recipe.batch_norm in (Normalization.SHIFT_PRINTED, Normalization.SHIFT_CODED)
    return recipe.dataset in DATASETS and (shifted or recipe.optimizer is not Rule.ADAM)


def chosen(profile: str) -> list[Recipe]:
    """The recipes that are timed at a profile."""
    return list(PAPER) if profile == "paper" else list(filter(is_shift_based, recipes.RECIPES))


def measure(checkout: Path, name: str, profile: str, steps: int) -> list[float]:
    """Seconds of every step after warm-up, in a process of the checkout's sources."""
    command = [sys.executable, "-c", SCRIPT, name, profile, str(steps)]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(
        command, cwd=checkout, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout)


def compare(older: Path, recipe: Recipe, profile: str, rounds: int, steps: int) -> dict:
    """All steps of both sides over all rounds, as a row of the table."""
    sides: dict[str, list[float]] = {"old": [], "new": []}
    for _ in range(rounds):
        for side, checkout in (("old", older), ("new", ROOT)):
            sides[side] += measure(checkout, recipe.name, profile, steps)
    return row(recipe.name, **sides)


def row(name: str, old: list[float], new: list[float]) -> dict:
    """Median milliseconds of a step, with p20 and p80, and new over old."""
    found: dict = {"recipe": name, "steps": len(new)}
    for side, seconds in (("old", old), ("new", new)):
        p20, _, _, p80 = statistics.quantiles(seconds, n=5)
        median = statistics.median(seconds)
        found |= {f"{side}_ms": 1e3 * median, f"{side}_p20": 1e3 * p20, f"{side}_p80": 1e3 * p80}
    return found | {"ratio": found["new_ms"] / found["old_ms"]}


def show(found: dict) -> None:
    old, new = (
        f"{found[f'{side}_ms']:8.2f} ms ({found[f'{side}_p20']:.2f} to {found[f'{side}_p80']:.2f})"
        for side in ("old", "new")
    )
    print(f"{found['recipe']:24} old {old}, new {new}: {found['ratio']:.2f}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit", help="the older one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--profile", choices=("quick", "paper"), default="paper")
    options = parser.parse_args()
    made, rows = provenance.gather("cpu"), []
    made["command"] = provenance.command_line("benchmarks.bench_rules")
    with tempfile.TemporaryDirectory() as folder:
        older = Path(folder) / "older"
        check_out(options.commit, older)
        for recipe in chosen(options.profile):
            rows.append(compare(older, recipe, options.profile, options.rounds, options.steps))
            show(rows[-1])
    if options.profile == "paper":
        content = {"schema": runs.SCHEMA, "provenance": made, "commit": options.commit}
        runs.write_record(bench.path(bench.kind("cpu"), "rules"), content | {"rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
