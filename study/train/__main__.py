"""Train a named recipe, or all: python -m study.train RECIPE --profile P --seeds K"""

import argparse
import math
import os
import sys

import torch

from bnnlib import parallel
from bnnlib.files import print_anywhere
from study import recipes
from study.train import backlog, runner
from study.train.worker import reason


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 if all is trained, 1 if `--all` leaves something, 2 for an error."""
    options = _options(arguments)
    os.environ["BNN_COMMAND"] = " ".join(["python -m study.train", *(arguments or sys.argv[1:])])
    with parallel.joined(runner.default_device()):
        return _execute(options)


def _execute(options: argparse.Namespace) -> int:
    try:
        _require_sensible(options)
        if options.threads:
            torch.set_num_threads(options.threads)
        if options.cluster or options.workers > 1:
            left = _train_on_cluster(options)
            print(f"left: {', '.join(left) or 'nothing'}")
            return 1 if left else 0
        if options.all:
            left = backlog.work_through(options.profile, options.seeds, options.budget_min)
            print(f"left: {', '.join(left) or 'nothing'}")
            return 1 if left else 0
        recipe = recipes.at_profile(recipes.by_name(options.recipe), options.profile)
        if parallel.size() > 1:
            from study.train import same_platform

            same_platform.require_same_processes(recipe, options.profile)
        runner.require_data(recipe, options.profile)
        for seed in range(options.seeds):
            record = runner.run(recipe, options.profile, seed, runner.default_device())
            print(f"{recipe.name} seed {seed}: {record['test_error']:.2f} % test error")
    except runner.FAILURES as error:
        print(f"error: {reason(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        told = str(interrupt) or "what is finished stays"
        print(f"interrupted: with the same command {told}", file=sys.stderr)
        return 130  # as shells say it
    return 0


def _train_on_cluster(options: argparse.Namespace) -> list[str]:
    """Train all or one recipe's seeds there. Returns what is left; ValueError without Dask."""
    try:
        from study.train import cluster
    except ModuleNotFoundError as missing:
        need = "pip install -e '.[cluster]'"
        raise ValueError(f"a cluster needs Dask ({missing}): {need}") from None
    if options.all:
        pairs = backlog.queue(options.profile, options.seeds)
    else:
        recipe = recipes.at_profile(recipes.by_name(options.recipe), options.profile)
        pairs = [(recipe, seed) for seed in range(options.seeds)]
    at = cluster.connect(options.cluster) if options.cluster else cluster.local(options.workers)
    with at as client:
        return cluster.work_through(client, pairs, options.profile, options.threads or 1)


def _require_sensible(options: argparse.Namespace) -> None:
    if options.seeds < 1:
        raise ValueError(f"--seeds must be at least 1, got {options.seeds}")
    if options.all == bool(options.recipe):
        raise ValueError("name one recipe, or give --all")
    if options.recipe and options.budget_min != math.inf:
        raise ValueError("--budget-min belongs to --all")
    if not options.budget_min > 0:
        raise ValueError(f"--budget-min must be positive, got {options.budget_min:g}")
    if options.workers < 1:
        raise ValueError(f"--workers must be at least 1, got {options.workers}")
    if options.threads is not None and options.threads < 1:
        raise ValueError(f"--threads must be at least 1, got {options.threads}")
    if options.cluster and options.workers > 1:
        raise ValueError("--workers starts a cluster here, --cluster uses one that runs: give one")
    if parallel.size() > 1 and (options.all or options.cluster or options.workers > 1):
        raise ValueError("torchrun's processes make one run together: name one recipe, no cluster")
    if (options.cluster or options.workers > 1) and options.budget_min != math.inf:
        raise ValueError("--budget-min is for one machine: a cluster's time can't be estimated")


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m study.train",
        description="Train a named recipe, or all, and leave run records. Interrupted runs go on.",
    )
    parser.add_argument("recipe", nargs="?", help=", ".join(r.name for r in recipes.RECIPES))
    parser.add_argument("--all", action="store_true", help="every recipe, the main results first")
    parser.add_argument("--profile", default="quick", help=", ".join(recipes.PROFILES))
    parser.add_argument("--seeds", type=int, default=1, help="how many: 0 .. SEEDS - 1")
    parser.add_argument(
        "--budget-min",
        type=float,
        default=math.inf,
        metavar="MINUTES",
        help="with --all: begin no run that would not end by then",
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that train side by side")
    parser.add_argument(
        "--cluster",
        default="",
        metavar="ADDRESS",
        help="of a Dask scheduler, such as tcp://host:8786",
    )
    parser.add_argument(
        "--threads", type=int, help="of each run on CPU: by default all, with several workers one"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    print_anywhere()
    sys.exit(main())
