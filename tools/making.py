"""One call of make: which notebooks it executes, what they rest on, and where their files go.

A notebook's files are made in build/ and put in place when all are there; stamps in build/ let a
repeated call go on where the last one ended.
"""

import argparse
import hashlib
import json
from pathlib import Path

from study import ROOT
from study.recipes.recipe import Recipe
from study.train import provenance, runs
from tools import costs, needed, run_notebooks, site, summary
from tools.collect import collect
from tools.files import replace_all, require_writable, with_part
from tools.run_notebooks import BUILD, NOTEBOOKS, Outcome

README = ROOT / "README.md"
BENCHMARKS = ROOT / "results" / "bench"
KERNELS = "09_kernels"  # the notebook that shows what was timed


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
        commit, dirty = provenance.commit()
        if commit == "unknown":
            reason = provenance.why_no_commit()
            raise ValueError(f"make results names the sources' commit: {reason}")
        if dirty:
            raise ValueError("make results needs a clean tree: commit the sources first")
        with_part(README.read_text("utf-8"), "results", "")

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
