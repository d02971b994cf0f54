"""Run the trials of tests/long, and write docs/reliability.md of their outcomes: `make test-long`.

The document is written anew after each trial, so that an interrupted call leaves what had ended.
What a call did not come to, or was not asked for, keeps the row of an earlier call, if that was on
the same machine; else it is "not run".
"""

import argparse
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from study import ROOT
from study.train import provenance
from tools.files import replace_all
from tools.pages import minutes

TRIALS = ROOT / "tests" / "long"
DOCUMENT = ROOT / "docs" / "reliability.md"
NOT_RUN, FAILED = "not run", "**FAILED**"
HEAD = """# Reliability

Faults and inputs that were really tried. `make test-long` writes this file: none of it is typed by
hand. A row is a test in tests/long, whose name is in the last column; what happened is what that
test asserts, at the commit beside it: long trials are made in more than one call.

{summary}

| Fault or input | Tried | What happened | Commit | Took | Test |
|---|---|---|---|---|---|
"""


@dataclass
class Row:
    """One family of trials."""

    what: str
    test: str  # "test_kills.py::test_training"
    tried: str = "–"
    happened: str = NOT_RUN
    commit: str = "–"
    took: str = "–"

    def as_markdown(self) -> str:
        cells = (self.what, self.tried, self.happened, self.commit, self.took, f"`{self.test}`")
        return f"| {' | '.join(_one_line(cell) for cell in cells)} |\n"


def blank(test: str, commit: str = "–") -> Row:
    """The row of a test of which nothing is known yet."""
    return Row(test.partition("::")[2].removeprefix("test_"), test, commit=commit)


def earlier_rows(document: Path) -> dict[str, Row]:
    """Test -> the row that an earlier call on this machine left there."""
    if not document.exists() or machine() not in (text := document.read_text()):
        return {}
    lines = (line[2:-2].split(" | ") for line in text.splitlines() if line.endswith("` |"))
    cells = ([cell.replace("\\|", "|") for cell in line] for line in lines)
    return {test[1:-1]: Row(what, test[1:-1], *rest) for what, *rest, test in cells}


class Recorder:
    """A pytest plugin that keeps the document in step with the tests."""

    def __init__(self, document: Path):
        self.document, self.earlier = document, earlier_rows(document)
        self.rows: dict[str, Row] = {}

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Every test has a row, the deselected ones too."""
        test = item.nodeid.rpartition("tests/long/")[2]
        self.rows[item.nodeid] = self.earlier.get(test, blank(test))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A module that can't even be imported has one too."""
        if report.failed:
            test = report.nodeid.rpartition("tests/long/")[2]
            self.rows[report.nodeid] = Row(test, test, happened=f"{FAILED}: {_reason(report)}")

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.rows[nodeid] = blank(self.rows[nodeid].test, commit())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called after set-up, the test itself and what is taken down."""
        row = self.rows[report.nodeid]
        if report.when == "call":
            said = [value for name, value in report.user_properties if name == "row"]
            if len(said) == 1:
                row.what, tried, row.happened = said[0]
                row.tried = f"{tried:,}"
            elif report.passed:
                row.happened = f"{FAILED}: {len(said)} rows were reported, not 1"
            row.took = minutes(report.duration)
        if report.failed:
            row.happened = f"{FAILED}: {_reason(report)}"
        elif report.skipped:
            row.happened = f"skipped: {report.longrepr[2].removeprefix('Skipped: ')}"
        if report.when == "teardown":
            self.write()

    def write(self) -> None:
        text = HEAD.format(summary=self.summary())
        text += "".join(row.as_markdown() for row in self.rows.values())
        replace_all({self.document: text.encode()})

    def failed(self) -> int:
        return sum(row.happened.startswith(FAILED) for row in self.rows.values())

    def summary(self) -> str:
        """How far the trials came, by when and on what machine."""
        left = sum(row.happened == NOT_RUN for row in self.rows.values())
        date = datetime.now(UTC).date().isoformat()
        ended = f"{len(self.rows)} kinds of trial, {self.failed()} failed, {left} {NOT_RUN}"
        return f"{date}: {ended}.\nOn {machine()}."


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """First line that a failed test says, or why its module could not be imported."""
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = (crash.message if crash else str(report.longrepr)).strip().split("\n")
    return lines[0 if crash else -1].replace(str(ROOT), ".")


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def machine() -> str:
    """Processor, cores, memory, GPU and what the tests ran with; never the machine's name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{provenance.device_name('cpu')}, {os.cpu_count()} cores, {memory:.0f} GiB, {gpu}, "
        f"{platform.system()}, Python {platform.python_version()}, torch {version('torch')}"
    )


def commit() -> str:
    """The checked-out commit, and whether anything but the document differs from it now."""
    document = DOCUMENT.relative_to(ROOT).as_posix()
    command = ["git", "-C", str(ROOT), "status", "--porcelain", "--", ".", f":!{document}"]
    changed = subprocess.run(command, capture_output=True, text=True, check=False)
    command = ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
    head = subprocess.run(command, capture_output=True, text=True, check=False)
    if head.returncode or changed.returncode:
        return "unknown"
    return f"{head.stdout.strip()}{', changed' if changed.stdout else ''}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.reliability", description=__doc__)
    parser.add_argument("-k", default="", metavar="EXPRESSION", help="only tests that match, as -k")
    options = parser.parse_args(arguments)
    recorder = Recorder(DOCUMENT)
    arguments = [str(TRIALS), "-v", "--continue-on-collection-errors", "-k", options.k]
    status = pytest.main(arguments, plugins=[recorder])
    recorder.write()
    print(f"{DOCUMENT.relative_to(ROOT)}: {recorder.summary()}")
    return int(status) or int(recorder.failed() > 0)


if __name__ == "__main__":
    sys.exit(main())
