"""All pages of a results folder; `python -m tools.site results/local` rebuilds them."""

import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
from markupsafe import Markup

from study import ROOT
from study.claims import OURS, working
from study.train import runs
from study.verdicts import VERDICTS
from tools import alive, summary
from tools.files import replace_all
from tools.pages import first_figure, page, render, title

COMMITTED = ROOT / "results"
PROFILES = (*summary.FAITHFUL, "smoke")


def build(results: Path) -> None:
    """Write the page of every executed notebook, and the index; all of them or none."""
    contents, best = {}, most_faithful(results)
    for profile in PROFILES:
        notebooks = executed(results / profile)
        for path in notebooks:
            contents[path.with_suffix(".html")] = page(path, notebooks, best)
    contents[results / "index.html"] = index(results)
    replace_all({path: text.encode() for path, text in contents.items()})


def executed(folder: Path) -> list[Path]:
    """The executed notebooks of a profile, in number order."""
    return sorted(folder.glob("[0-9][0-9]_*.ipynb"))


def most_faithful(results: Path) -> list[Path]:
    """Each executed notebook at its most faithful profile, in number order."""
    best: dict[str, Path] = {}
    for profile in PROFILES:
        for path in executed(results / profile):
            best.setdefault(path.stem, path)
    return [path for _, path in sorted(best.items())]


@dataclass(frozen=True)
class Card:
    """A notebook's most faithful page, as the index shows it."""

    address: str  # from the index: "quick/04_mnist.html"
    title: str
    profile: str
    picture: Markup


def index(results: Path) -> str:
    """The page that sums up all profiles: every claim, a picture per notebook, every run."""
    table = summary.rows(summary.load(results))
    beside = [] if results == COMMITTED else summary.rows(summary.load(COMMITTED))
    return render(
        "index.html.j2",
        theirs=[row for row in table if row.claim.origin != OURS],
        ours=[row for row in table if row.claim.origin == OURS],
        by_category=summary.by_category,
        by_verdict=by_verdict,
        working=working(),
        playground=alive.piece("playground", compact=True),
        committed={row.claim.id: row for row in beside},
        cards=_cards(results),
        profiles={profile: executed(results / profile) for profile in PROFILES},
        runs=_runs(results),
        metrics=[path.relative_to(results).as_posix() for path in metrics_files(results)],
    )


def by_verdict(table: list[summary.Row]) -> dict[str, list[summary.Row]]:
    """The rows of each verdict that occurs, the best first."""
    found = {verdict: [row for row in table if row.verdict == verdict] for verdict in VERDICTS}
    return {verdict: rows for verdict, rows in found.items() if rows}


def metrics_files(results: Path) -> list[Path]:
    return sorted(results.glob("*/metrics/*.json"))


def _cards(results: Path) -> dict[str, Card]:
    """The cards of all executed notebooks, in number order."""
    return {path.stem: _card(path, results) for path in most_faithful(results)}


def _card(path: Path, results: Path) -> Card:
    notebook = nbformat.read(path, as_version=4)
    address = path.with_suffix(".html").relative_to(results).as_posix()
    return Card(address, title(notebook), path.parent.name, first_figure(notebook))


def _runs(results: Path) -> list[dict]:
    """What each run record in the folder says of itself: numbers are traced by this list."""
    paths = sorted((results / "runs").rglob("*-seed*.json"))
    return [
        runs.read_record(path) | {"file": path.relative_to(results).as_posix()} for path in paths
    ]


if __name__ == "__main__":
    build(Path(sys.argv[1]).resolve())
