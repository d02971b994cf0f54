"""Training speed: this study's loop against the same network written plainly in PyTorch float32.

    python -m benchmarks.bench_training [--rounds 3] [--steps 12]

Each side runs in a process of its timed, plain and ours in turn, so that both meet the same mood of
the machine and peak memory can be told apart. A step is all of it: scaling, forward, backward,
update, clipping; both sides have the settings of OpenMP and memory that importing bnnlib makes, and
are also timed where freed memory is kept, as the trainer keeps it: what the C library gives back
to the system, the system clears before it gives it out again, at every step. Leaves
results/bench/training-<kind of device>.json and prints a table.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from benchmarks import plain
from bnnlib import numerics
from study import ROOT, recipes
from study.train import build, eager, provenance, runs

RECIPES = {"mlp": recipes.MNIST_THEANO, "convnet": recipes.CIFAR10_THEANO}
SIDES = ("plain", "plain channels-last", "ours")
# Read by glibc, once, when a process begins; elsewhere they change nothing.
KEPT = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
WARM_UP = 3


def batches(name: str, count: int, device: str) -> list[tuple[Tensor, Tensor]]:
    """Random uint8 images and labels, as many as the recipe's batch: their values cost no time."""
    generator = torch.Generator().manual_seed(0)
    size = (RECIPES[name].batch_size, *((28, 28) if name == "mlp" else (3, 32, 32)))
    draw = lambda high, shape: torch.randint(high, shape, generator=generator)  # noqa: E731
    return [
        (draw(256, size).to(device, torch.uint8), draw(10, size[:1]).to(device))
        for _ in range(count)
    ]


def stepper(side: str, name: str, device: str) -> Callable[[Tensor, Tensor], Tensor]:
    """A function of images and labels that trains one step of the side's timed network."""
    if side == "ours":
        network = build.build_network(RECIPES[name], 0, device)
        optimizer = build.build_optimizer(RECIPES[name], network)
        network.train()
        return lambda images, labels: eager.step(network, optimizer, images, labels)
    network = (plain.mlp() if name == "mlp" else plain.convnet()).to(device)
    if side == "plain channels-last":
        network = network.to(memory_format=torch.channels_last)
    optimizer = plain.adam(network, 1e-3)
    return lambda images, labels: plain.step(network, optimizer, images, labels)


def measure(side: str, name: str, steps: int, device: str) -> dict:
    """Seconds of every step after warm-up, and the process's peak memory in MB."""
    numerics.set_up(device)
    train = stepper(side, name, device)
    seconds = []
    for images, labels in batches(name, WARM_UP + steps, device):
        started = time.perf_counter()
        train(images, labels)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes, Linux KiB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
    return {"seconds": seconds[WARM_UP:], "peak_mb": peak}


def in_a_process(side: str, name: str, steps: int, kept: bool) -> dict:
    """`measure` where freed memory is kept, or given back to the system."""
    command = [sys.executable, "-m", "benchmarks.bench_training", "--side", side]
    command += ["--network", name, "--steps", str(steps)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(KEPT if kept else {})}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    return json.loads(done.stdout)


def compare(name: str, rounds: int, steps: int, device: str) -> dict[tuple[str, bool], dict]:
    """Side, whether memory is kept -> all its steps over all rounds.

    A GPU's memory is not the C library's: there is nothing to be kept, and half as much to measure.
    """
    names = SIDES if name == "convnet" else (SIDES[0], SIDES[-1])
    sides = list(product(names, (False, True) if device == "cpu" else (False,)))
    results: dict = {side: {"seconds": [], "peak_mb": 0.0} for side in sides}
    for _ in range(rounds):
        for side, kept in sides:
            part, all_parts = in_a_process(side, name, steps, kept), results[side, kept]
            all_parts["seconds"] += part["seconds"]
            all_parts["peak_mb"] = max(all_parts["peak_mb"], part["peak_mb"])
    return results


def row(name: str, side: str, kept: bool, result: dict) -> dict:
    """Samples per second from the median step; p20 and p80 beside it."""
    batch, seconds = RECIPES[name].batch_size, sorted(result["seconds"])
    p20, _, _, p80 = statistics.quantiles(seconds, n=5)
    return {
        "network": name,
        "side": side,
        "memory_kept": kept,
        "samples_per_second": batch / statistics.median(seconds),
        "p20": batch / p80,
        "p80": batch / p20,
        "steps": len(seconds),
        "peak_mb": result["peak_mb"],
    }


def speed(row: dict) -> float:
    return row["samples_per_second"]


def show(rows: list[dict]) -> None:
    """The table, and ours at its fastest over the fastest plain one, with memory kept or not; its
    memory over that of the leanest plain one."""
    for name in RECIPES:
        timed = [r for r in rows if r["network"] == name]
        for r in timed:
            side = r["side"] + ", memory kept" * r["memory_kept"]
            print(
                f"{name:8} {side:33} {speed(r):8.1f} samples/s "
                f"({r['p20']:.1f} to {r['p80']:.1f}), peak {r['peak_mb']:,.0f} MB"
            )
        fastest = max((r for r in timed if r["side"] == "ours"), key=speed)
        plain_ones = [r for r in timed if r["side"] != "ours"]
        ratio = speed(fastest) / max(map(speed, plain_ones))
        memory = fastest["peak_mb"] / min(r["peak_mb"] for r in plain_ones)
        print(f"{name:8} ours over the fastest plain one: {ratio:.2f} x; memory {memory:.2f} x")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--network", choices=RECIPES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.side:
        print(json.dumps(measure(options.side, options.network, options.steps, device)))
        return 0
    from study import bench  # whose memory is not to be measured with the networks'

    numerics.set_up(device)
    target = bench.path(bench.kind(device), "training")
    partial = target.with_name(f"{target.name}.partial")  # lost is at most the network at hand
    made = provenance.gather(device)
    made["command"] = provenance.command_line("benchmarks.bench_training")
    content = {"schema": runs.SCHEMA, "provenance": made, "rows": []}
    for name in RECIPES:
        results = compare(name, options.rounds, options.steps, device)
        content["rows"] += [row(name, *side, result) for side, result in results.items()]
        runs.write_record(partial, content)
    show(content["rows"])
    runs.write_record(target, content)
    partial.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
