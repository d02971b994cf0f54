"""Make notebooks, then pages, then a table: `make reproduce`, `make render` and `make results`.

`making` knows one call's notebooks; here are its steps, and what is said of them.
"""

import argparse
import signal
import subprocess
import sys
import time

import nbformat
import torch

from bnnlib.files import print_anywhere
from study import ROOT, bench, data
from study.recipes.recipe import Recipe
from study.train import runner, runs, side_by_side
from tools import answers, cards, run_notebooks, scale, site, summary
from tools.collect import superseded
from tools.files import only_one, replace_all, with_part
from tools.findings import own_rows
from tools.making import KERNELS, README, Making
from tools.pages import minutes, title
from tools.run_notebooks import BUILD, Outcome

DATASETS = ("mnist", "cifar10")  # what the notebooks read, by the names of study.data


def fetch_data(needed: bool) -> list[str]:
    """Get the data first, with its progress on the terminal; -> the sets that could be had.

    Raises ValueError if one could not and is `needed`, RuntimeError if something else is wrong.
    """
    command = [sys.executable, "-m", "study.data", *DATASETS]
    fetched = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    print(fetched.stdout, end="", flush=True)
    if fetched.returncode not in (0, data.UNAVAILABLE):
        raise RuntimeError("No notebook was executed: see to what is said above, then repeat.")
    if fetched.returncode and needed:
        raise ValueError("make results needs the real data: no notebook was executed.")
    if fetched.returncode:
        print("Going on with stand-in data for what is missing: not comparable with the paper.")
    return [line.split(":")[0] for line in fetched.stdout.splitlines()]


def train_first(making: Making) -> None:
    """Train what the notebooks ask for, side by side; they then find it.

    What fails they try again, and say why. A changed recipe is trained by its notebook.
    """
    pairs = making.pairs()
    if making.cluster:
        return train_on_cluster(making, pairs)
    started, cores = time.monotonic(), torch.get_num_threads()
    with run_notebooks.peak_memory() as peak:
        failures = side_by_side.work_through(
            pairs, making.profile, cores, making.command, making.real_data
        )
    for failure in failures:
        print(f"  {failure}", file=sys.stderr)
    if peak[0]:
        took = minutes(time.monotonic() - started)
        print(f"  {'training':<22}{took:<14}{peak[0] / 1e9:.1f} GB", flush=True)


def time_kernels(making: Making) -> None:
    """Time the kernels on this machine, for their page; committed times are made on their own."""
    outdated = [path.stem for path in making.values if not making.is_up_to_date(path)]
    if making.committed or making.profile == "smoke" or KERNELS not in outdated:
        return
    started, log = time.monotonic(), BUILD / "logs" / making.profile / "bench.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    made = making.staged / "bench" / f"kernels-{bench.kind(runner.default_device())}.json"
    command = [sys.executable, "-m", "study.bench", "--plan", making.bench, "--out", str(made)]
    with run_notebooks.peak_memory() as peak, log.open("w") as file:
        timed = subprocess.run(command, cwd=ROOT, stdout=file, stderr=file, check=False)
    if timed.returncode:
        raise RuntimeError(f"The kernels could not be timed: read {log.relative_to(ROOT)}.")
    took = minutes(time.monotonic() - started)
    print(f"  {'timing the kernels':<22}{took:<14}{peak[0] / 1e9:.1f} GB", flush=True)


def train_on_cluster(making: Making, pairs: list[tuple[Recipe, int]]) -> None:
    """Train there, one run after another."""
    from study.train import cluster  # with Dask, which nothing else needs

    try:
        with cluster.connect(making.cluster) as client:
            cluster.work_through(client, pairs, making.profile, device=runner.default_device())
    except ConnectionError as problem:
        raise RuntimeError(str(problem)) from None


def make_all(making: Making) -> list[Outcome]:
    """Every notebook, one line each: name, time, memory, verdicts; -> the failures."""
    failures, started = [], time.monotonic()
    for notebook in making.values:
        name = f"  {notebook.stem:<22}"
        print(name, end="", flush=True)
        outcome = making.make(notebook)
        if sys.stdout.isatty():
            print(f"\r{name}", end="")  # where the live status was
        if outcome is None:
            print(f"{'up to date':<23}{making.verdicts(notebook)}".rstrip(), flush=True)
        elif outcome.error:
            failures.append(outcome)
            print(f"FAILED after {minutes(outcome.seconds)}: {outcome.error}", flush=True)
        else:
            cost = f"{minutes(outcome.seconds):<14}{outcome.peak_memory:.1f} GB"
            print(f"{cost:<23}{making.verdicts(notebook)}".rstrip(), flush=True)
    print(f"  {'together':<22}{minutes(time.monotonic() - started)}")
    return failures


def sum_up(making: Making) -> None:
    """Pages, the README's table for committed results, and the table on the terminal."""
    if making.committed:
        for path in superseded(making.results / "models"):
            path.unlink()
        cards.write(making.results / "models", making.results / "runs")
    site.build(making.results)
    committed = summary.rows(summary.load(site.COMMITTED))
    mine = committed if making.committed else own_rows(making.results, site.COMMITTED)
    if making.committed:
        table = answers.readme_table(mine, making.results)
        text = with_part(README.read_text("utf-8"), "results", table)
        page = scale.updated(scale.PAGE.read_text("utf-8"))
        replace_all({README: text.encode(), scale.PAGE: page.encode()})
    print(f"\n{summary.as_text(mine, committed)}\n")
    print("\n".join(summary.tally(mine)), end="\n\n")
    for path in sorted((making.results / "bench").glob("kernels-cpu*.json")):
        print(f"Kernels here, {bench.in_short(runs.read_record(path))}.\n")
    print(what_to_open(making))


def what_to_open(making: Making) -> str:
    """The pages that there are now, and what else can be done with them."""
    titles = {making.results / "index.html": "every claim, the paper beside ours"}
    for path in site.executed(making.results / making.profile):
        titles[path.with_suffix(".html")] = title(nbformat.read(path, as_version=4))
    pages = {path.relative_to(ROOT).as_posix(): text for path, text in titles.items()}
    width = max(map(len, pages))
    lines = ["Open in a browser:", *(f"  {path:<{width}}  {pages[path]}" for path in pages)]
    if not making.committed and site.executed(site.COMMITTED / making.profile):
        lines.append(f"make compare PROFILE={making.profile} tells which differences are noise.")
    return "\n".join(lines)


def report_failures(making: Making, failures: list[Outcome]) -> int:
    """Name what failed and where to read it; -> exit status."""
    for outcome in failures:
        kept = BUILD / "failed" / making.profile / f"{outcome.notebook}.ipynb"
        print(
            f"{outcome.notebook} failed: {outcome.error}. Read {kept.relative_to(ROOT)}; "
            "its last good page is as it was.",
            file=sys.stderr,
        )
    return int(bool(failures))


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.reproduce", description=__doc__)
    parser.add_argument("target", choices=("reproduce", "render", "results"))
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--only", default="", metavar="NUMBER", help="one notebook, such as 04")
    parser.add_argument("--cluster", default="", metavar="ADDRESS", help="where to train first")
    parser.add_argument("--bench", choices=("quick", "full"), default="quick", help="what to time")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    parsed = parser.parse_args(arguments)
    if parsed.target == "results" and parsed.p:
        parser.error("committed results are made with the profile's own parameters")
    if parsed.cluster and (parsed.target != "reproduce" or parsed.only):
        parser.error("--cluster trains what all notebooks need: it belongs to `make reproduce`")
    parsed.parameters = dict(parsed.p)
    return parsed


def interrupt(*_) -> None:
    """SIGTERM ends Python as Ctrl-C does, so that no kernel is left behind."""
    raise KeyboardInterrupt


def make(making: Making) -> int:
    """All steps of one call; -> exit status."""
    making.refuse_early()
    with only_one(BUILD / ".lock"):
        if making.profile != "smoke":
            making.real_data = fetch_data(needed=making.committed)
        print(f"{making.command}, into {making.results.relative_to(ROOT)}/", flush=True)
        if making.retrain:
            train_first(making)
            time_kernels(making)
        failures = make_all(making)
        sum_up(making)
    return report_failures(making, failures)


def main(arguments: list[str] | None = None) -> int:
    try:
        return make(Making(options(arguments)))
    except (ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)
    except OSError as error:
        place = error.filename or "the disk"
        print(
            f"{place}: {error.strerror or error}. See to that, then repeat: what is done stays "
            "done, and no page was replaced by half of one.",
            file=sys.stderr,
        )
    except KeyboardInterrupt:
        print(
            "\nInterrupted. The same command goes on: what is finished stays, and a run that had a "
            "checkpoint goes on from it.",
            file=sys.stderr,
        )
        return 130
    return 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupt)
    print_anywhere()
    sys.exit(main())
