"""What `make reproduce`, `make render` and `make results` do: notebooks, then pages, then a table.

Everything is made in build/ and put in place when it is whole; stamps in build/ let a repeated call
go on where the last one ended.
"""

import argparse
import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import torch

from bnnlib.files import print_anywhere
from study import ROOT, bench, data
from study.recipes.recipe import Recipe
from study.train import runner, runs, side_by_side
from tools import cards, costs, needed, run_notebooks, scale, site, summary
from tools.collect import collect, superseded
from tools.files import only_one, replace_all, require_writable
from tools.findings import own_rows
from tools.pages import minutes, title
from tools.run_notebooks import BUILD, NOTEBOOKS, Outcome

README = ROOT / "README.md"
BENCHMARKS = ROOT / "results" / "bench"
KERNELS = "09_kernels"  # the notebook that shows what was timed
DATASETS = ("mnist", "cifar10")  # what the notebooks read, by the names of study.data


class Making:
    """One call: which notebooks, how, and where to."""

    def __init__(self, options: argparse.Namespace):
        self.retrain = options.target != "render"
        self.profile = options.profile
        self.cluster = options.cluster
        self.changed = options.parameters.keys()
        self.forced = bool(options.only) or not self.retrain  # without regard to stamps
        self.committed = options.target == "results"
        self.bench = options.bench
        self.real_data: list[str] = []  # the sets that were found, set by main
        self.results = site.COMMITTED if self.committed else site.COMMITTED / "local"
        self.staged = BUILD / "staged" / self.results.name
        target = f"nb-{options.only}" if options.only else options.target
        self.command = f"make {target} PROFILE={self.profile}"
        self.values = {
            path: run_notebooks.parameters(path, self.profile, self.retrain, options.parameters)
            for path in run_notebooks.find(options.only)
        }
        run_notebooks.check_profile_file(self.profile)

    def refuse_early(self) -> None:
        """Raise what would otherwise come up after hours of training."""
        require_writable(BUILD)
        require_writable(self.results)
        if not self.committed:
            return
        if self.profile == "smoke":
            raise ValueError("the smoke profile is for tests: nothing of it is committed")
        if runs.commit()[0] == "unknown":
            raise ValueError(f"make results names the sources' commit: {runs.why_no_commit()}")
        if runs.commit()[1]:
            raise ValueError("make results needs a clean tree: commit the sources first")
        summary.replace_block(README.read_text("utf-8"), "")

    def pairs(self) -> list[tuple[Recipe, int]]:
        """The recipes at this profile, each with a seed, that outdated notebooks ask for."""
        values = {
            path.stem: run_notebooks.defaults_of(path) | given
            for path, given in self.values.items()
            if not self.is_up_to_date(path)
        }
        return needed.needed(self.profile, values, self.changed)

    def stamp(self, notebook: Path) -> Path:
        """The file with the `key` that a notebook was last executed with."""
        return BUILD / "stamps" / self.results.name / self.profile / notebook.stem

    def is_up_to_date(self, notebook: Path) -> bool:
        """Whether its page is there and rests on what is there now."""
        stamp, executed = self.stamp(notebook), self.results / self.profile / notebook.name
        there = not self.forced and executed.exists() and stamp.exists()
        return there and stamp.read_text() == self.key(notebook)

    def make(self, notebook: Path) -> Outcome | None:
        """Execute one notebook and put what it left in place; None if that is up to date."""
        if self.is_up_to_date(notebook):
            return None
        stamp, key = self.stamp(notebook), self.key(notebook)
        stamp.unlink(missing_ok=True)
        self.clear(notebook.stem)
        outcome = run_notebooks.execute(
            notebook,
            self.values[notebook],
            self.staged / self.profile / notebook.name,
            self.command,
            self.staged.relative_to(ROOT).as_posix(),
            costs.expected(self.profile, notebook.stem) if self.retrain else 0,
        )
        if outcome.error:
            self.clear(notebook.stem)
            return outcome
        self.put_in_place(notebook.stem)
        if self.retrain:
            replace_all({stamp: key.encode()})
            costs.note(self.profile, outcome)
        return outcome

    def verdicts(self, notebook: Path) -> str:
        """How the claims on its page fare, if it has any."""
        metrics = self.results / self.profile / "metrics" / f"{notebook.stem}.json"
        return summary.of_page(json.loads(metrics.read_bytes())) if metrics.exists() else ""

    def key(self, notebook: Path) -> str:
        """Hash of all that a notebook's outcome rests on, earlier notebooks' numbers too.

        Of committed records `make results` leaves out its own profile's: it makes them.
        """
        code = sorted(p for f in ("bnnlib", "study") for p in (ROOT / f).rglob("*.py"))
        files = [notebook, *code, NOTEBOOKS / "claims.toml"]
        metrics = sorted((self.staged / self.profile / "metrics").glob("*.json"))
        files += [path for path in metrics if path.stem < notebook.stem]
        records = sorted(runs.COMMITTED.glob("*/*/*.json"))
        files += [p for p in records if not (self.committed and p.parent.name == self.profile)]
        files += sorted(BENCHMARKS.glob("*.json"))
        told = [self.values[notebook], self.real_data, self.bench]
        digest = hashlib.sha256(json.dumps(told).encode())
        for path in files:
            digest.update(f"{path.name} {path.stat().st_size} ".encode() + path.read_bytes())
        return digest.hexdigest()

    def left_by(self, name: str, folder: Path) -> list[Path]:
        """The files of a notebook in the staged or the final results."""
        return [
            *folder.glob(f"{self.profile}/{name}.ipynb"),
            *folder.glob(f"{self.profile}/metrics/{name}.json"),
            *folder.glob(f"{self.profile}/figures/{name}-*"),
        ]

    def clear(self, name: str) -> None:
        """Forget what an earlier or failed execution left in the staged results."""
        for path in self.left_by(name, self.staged):
            path.unlink()

    def put_in_place(self, name: str) -> None:
        """Move a notebook's files and the records behind them into the results, all or none."""
        files = self.left_by(name, self.staged)
        contents = {
            self.results / path.relative_to(self.staged): path.read_bytes() for path in files
        }
        if name == KERNELS:
            for path in self.staged.glob("bench/*.json"):
                contents[self.results / "bench" / path.name] = path.read_bytes()
        for path in files:
            if path.parent.name == "metrics":
                metrics = json.loads(path.read_bytes())
                contents |= collect(metrics, self.results, self.committed)
        outdated = set(self.left_by(name, self.results)) - contents.keys()
        replace_all(contents)
        for path in outdated:
            path.unlink()


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
        text = summary.replace_block(README.read_text("utf-8"), summary.as_markdown(mine))
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
    try:
        parsed.parameters = {name: run_notebooks.read_yaml(value, name) for name, value in parsed.p}
    except ValueError as error:
        parser.error(str(error))
    return parsed


def interrupt(*_) -> None:
    """SIGTERM ends Python as Ctrl-C does, so that no kernel is left behind."""
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> int:
    try:
        making = Making(options(arguments))
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
