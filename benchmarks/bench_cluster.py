"""Cost and gain of a cluster on this machine: one worker, two, and none.

    python -m benchmarks.bench_cluster [--profile quick] [--epochs 45] [--out FILE]

Every run has one thread. First a run of about a minute, in turn without a cluster and by a worker:
what the worker's wall time is above the other's is the overhead. Then the MNIST ablations of the
profile, by one worker and by two. The records of both sides are compared by equality, all but when
they were made. Leaves results/bench/cluster-cpu.json; the machine must be quiet.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch
from distributed import Client

from study import ROOT, bench, recipes
from study.recipes.recipe import Recipe
from study.train import cluster, provenance, runner, runs

PATH = ROOT / "results" / "bench" / "cluster-cpu.json"
ABLATIONS = (*recipes.GRADIENTS, *recipes.SHIFT, *recipes.GAPS_MNIST)
EPOCHS = 45  # of the baseline among the last: a minute or so
ROUNDS = 2
Pairs = list[tuple[Recipe, int]]


def measure(profile: str, epochs: int) -> dict:
    """Rows of seconds for all sides, and the two ratios."""
    baseline = recipes.at_profile(recipes.GAPS_MNIST_BASELINE, profile)
    long = [(recipes.lasting(baseline, epochs), 0)]
    ablations = [(recipes.at_profile(recipe, profile), 0) for recipe in ABLATIONS]
    with cluster.local(1) as client:
        for side in (_alone, _by(client)):  # first data are read and kernels loaded
            timed(side, [(baseline, 0)], profile)
        sides = {"no cluster": _alone, "1 worker": _by(client)}
        taken = {name: [] for name in sides}
        for _ in range(ROUNDS):
            for name, side in sides.items():
                taken[name].append(timed(side, long, profile))
        one = timed(_by(client), ablations, profile)
    with cluster.local(2) as client:
        timed(_by(client), [(baseline, seed) for seed in range(2)], profile)
        two = timed(_by(client), ablations, profile)
    rows = [row(f"a run of {epochs} epochs", name, made) for name, made in taken.items()]
    what = f"{len(ablations)} MNIST ablations"
    rows += [row(what, "1 worker", [one]), row(what, "2 workers", [two])]
    _require_equal([records for each in taken.values() for _, records in each])
    _require_equal([one[1], two[1]])
    medians = [each["median"] for each in rows]
    return {"rows": rows, "overhead": medians[1] / medians[0] - 1, "gain": medians[2] / medians[3]}


def _alone(pairs: Pairs, profile: str) -> None:
    for recipe, seed in pairs:
        runner.run(recipe, profile, seed)


def _by(client: Client) -> Callable[[Pairs, str], None]:
    return lambda pairs, profile: _require_done(cluster.work_through(client, pairs, profile))


def _require_done(left: list[str]) -> None:
    if left:
        raise RuntimeError(f"not trained: {', '.join(left)}")


def timed(side: Callable[[Pairs, str], None], pairs: Pairs, profile: str) -> tuple[float, list]:
    """Seconds that a side takes with nothing finished, and what its records say."""
    shutil.rmtree(runs.FRESH, ignore_errors=True)
    started = time.perf_counter()
    side(pairs, profile)
    seconds = time.perf_counter() - started
    return seconds, [_measured(runs.fresh_path(recipe, "cpu", seed)) for recipe, seed in pairs]


def _measured(path: Path) -> dict:
    """A record without when and where it was made."""
    record = runs.read_record(path)
    history = [{k: v for k, v in entry.items() if k != "seconds"} for entry in record["history"]]
    kept = {k: v for k, v in record.items() if k not in ("digest", "provenance")}
    return kept | {"history": history, "threads": record["provenance"]["threads"]}


def _require_equal(made: list[list]) -> None:
    if any(each != made[0] for each in made):
        raise RuntimeError("the sides' records differ in what was measured")


def row(what: str, side: str, taken: list[tuple[float, list]]) -> dict:
    seconds = [each for each, _ in taken]
    return {"what": what, "side": side, "seconds": seconds, "median": median(seconds)}


def show(found: dict) -> None:
    for each in found["rows"]:
        print(
            f"{each['what']:24}{each['side']:12}{each['median']:9.1f} s, n = {len(each['seconds'])}"
        )
    print(f"overhead of the cluster {100 * found['overhead']:+.1f} % of a run's wall time")
    print(f"2 workers over 1: {found['gain']:.2f} x")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="quick", choices=recipes.PROFILES)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the long run")
    parser.add_argument("--out", type=Path, metavar="FILE", default=PATH)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    started, made = time.monotonic(), provenance.gather("cpu")
    made["command"] = provenance.command_line("benchmarks.bench_cluster")
    made["versions"] |= {name: version(name) for name in ("dask", "distributed")}
    with tempfile.TemporaryDirectory() as folder:
        runs.FRESH = Path(folder) / "runs"
        os.environ["BNN_RUNS"] = str(runs.FRESH)  # which workers inherit
        found = measure(options.profile, options.epochs)
    show(found)
    made["seconds"] = round(time.monotonic() - started, 1)
    content = {"schema": runs.SCHEMA, "provenance": made, "processor": bench.processor("cpu")}
    runs.write_record(options.out, content | {"profile": options.profile} | found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
