"""All pages of a results folder; `python -m tools.site results/local` rebuilds them."""

import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import nbformat
from markupsafe import Markup

from study import ROOT, recipes
from study.claims import OURS, working
from study.train import runs
from tools import alive, answers, summary
from tools.files import replace_all
from tools.findings import own_rows
from tools.pages import TEMPLATES, first_figure, page, render, title
from tools.prose import anchor

COMMITTED = ROOT / "results"
PROFILES = (*recipes.FAITHFUL, "smoke")
STARTS = {  # which pages to read first, in words for the index
    "00_playground": "draw a digit and watch its bits",
    "02_gradients": "how a step without a slope is trained",
    "04_mnist": "MNIST beside the paper",
    "09_kernels": "speed, memory and energy",
}


def build(results: Path) -> None:
    """Write the page of every executed notebook, and the index; all of them or none."""
    contents, best = {}, most_faithful(results)
    for profile in PROFILES:
        notebooks = executed(results / profile)
        for path in notebooks:
            contents[path.with_suffix(".html")] = page(path, notebooks, best)
    contents[results / "index.html"] = index(results)
    contents[results / "faq.html"] = faq(results)
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
    local = results != COMMITTED
    metrics = summary.load(results)
    records = _runs(results)
    table = summary.rows(metrics)
    beside = summary.rows(summary.load(COMMITTED)) if local else []
    minutes = answers.minutes_by_profile(records)
    return render(
        "index.html.j2",
        answers=answers.of_index(metrics, results, minutes),
        theirs=[row for row in table if row.claim.origin != OURS],
        ours=[row for row in table if row.claim.origin == OURS],
        by_category=summary.by_category,
        by_verdict=by_verdict,
        working=working(),
        playground=alive.piece("playground", compact=True) if alive.NETWORK.exists() else "",
        committed={row.claim.id: row for row in beside},
        yours={row.claim.id: row for row in own_rows(results, COMMITTED)} if local else {},
        cards=_cards(results),
        starts=STARTS,
        profiles={profile: executed(results / profile) for profile in PROFILES},
        volume=[f"{time} of the {name} profile" for name, time in minutes.items()],
        filter=Markup((TEMPLATES / "filter.js").read_text("utf-8")),
        runs=records,
        metrics=[path.relative_to(results).as_posix() for path in metrics_files(results)],
    )


def faq(results: Path) -> str:
    """The page of frequent questions, each with a link into a notebook's page."""
    questions = [
        {
            "ask": each["ask"],
            "anchor": anchor(each["ask"]),
            "answer": each["answer"],
            "notebook": each["link"],
            "place": anchor(each["heading"]),
        }
        for each in tomllib.loads((TEMPLATES / "faq.toml").read_text("utf-8"))["question"]
    ]
    return render("faq.html.j2", questions=questions, cards=_cards(results))


def by_verdict(table: list[summary.Row]) -> dict[str, list[summary.Row]]:
    """The rows of each outcome that occurs, the best first."""
    found = {word: [row for row in table if row.outcome == word] for word in summary.OUTCOMES}
    return {word: rows for word, rows in found.items() if rows}


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
    """Facts of each run record in the folder: numbers are traced by this list."""
    paths = sorted((results / "runs").rglob("*-seed*.json"))
    return [
        runs.read_record(path) | {"file": path.relative_to(results).as_posix()} for path in paths
    ]


if __name__ == "__main__":
    build(Path(sys.argv[1]).resolve())
