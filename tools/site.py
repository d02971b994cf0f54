"""All pages of a results folder; `python -m tools.site results/local` rebuilds them."""

import json
import sys
from pathlib import Path

import nbformat

from bnnlib import ROOT, runs
from tools import summary
from tools.files import replace_all
from tools.pages import image, page, render, title

COMMITTED = ROOT / "results"
PROFILES = (*summary.FAITHFUL, "smoke")


def build(results: Path) -> None:
    """Write the page of every executed notebook, and the index; all of them or none."""
    contents = {}
    for profile in PROFILES:
        notebooks = executed(results / profile)
        contents |= {path.with_suffix(".html"): page(path, notebooks) for path in notebooks}
    contents[results / "index.html"] = index(results)
    replace_all({path: text.encode() for path, text in contents.items()})


def executed(folder: Path) -> list[Path]:
    """The executed notebooks of a profile, in number order."""
    return sorted(folder.glob("[0-9][0-9]_*.ipynb"))


def index(results: Path) -> str:
    """The page that sums up all profiles: every claim, a picture per notebook, every run."""
    table = summary.rows(summary.load(results))
    beside = [] if results == COMMITTED else summary.rows(summary.load(COMMITTED))
    return render(
        "index.html.j2",
        rows=table,
        committed=beside,
        tally=summary.tally(table),
        gallery=_gallery(results),
        profiles={profile: executed(results / profile) for profile in PROFILES},
        runs=_runs(results),
        metrics=[path.relative_to(results).as_posix() for path in metrics_files(results)],
    )


def metrics_files(results: Path) -> list[Path]:
    return sorted(results.glob("*/metrics/*.json"))


def _gallery(results: Path) -> list[dict]:
    """For each notebook its most faithful page: address, title and first figure."""
    best: dict[str, Path] = {}
    for profile in PROFILES:
        for path in executed(results / profile):
            best.setdefault(path.stem, path)
    return [
        {
            "address": path.with_suffix(".html").relative_to(results).as_posix(),
            "title": title(nbformat.read(path, as_version=4)),
            "profile": path.parent.name,
            "picture": _first_figure(path, results),
        }
        for _, path in sorted(best.items())
    ]


def _first_figure(path: Path, results: Path) -> str:
    """The first figure that the notebook published, inside the page; empty if there is none."""
    metrics = path.parent / "metrics" / f"{path.stem}.json"
    figures = json.loads(metrics.read_bytes())["figures"] if metrics.exists() else []
    if not figures:
        return ""
    return image((results / figures[0]).read_text("utf-8"), "image/svg+xml", "")


def _runs(results: Path) -> list[dict]:
    """What each run record in the folder says of itself: numbers are traced by this list."""
    paths = sorted((results / "runs").rglob("*-seed*.json"))
    return [
        runs.read_record(path) | {"file": path.relative_to(results).as_posix()} for path in paths
    ]


if __name__ == "__main__":
    build(Path(sys.argv[1]).resolve())
