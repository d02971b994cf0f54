"""Pages with what runs on them: committed results in today's words, built anew."""

import shutil
from pathlib import Path

import nbformat

from bnnlib import ROOT
from tools import site

RESULTS = ROOT / "results"


def build(folder: Path) -> Path:
    """A copy of the committed results whose notebooks have the markdown of today's, with pages."""
    made = folder / "results"
    shutil.copytree(RESULTS, made, ignore=shutil.ignore_patterns("local"))
    for profile in site.PROFILES:
        for path in site.executed(made / profile):
            refresh(path, ROOT / "notebooks" / path.name)
    site.build(made)
    return made


def refresh(path: Path, source: Path) -> None:
    executed = nbformat.read(path, as_version=4)
    words = {cell.id: cell.source for cell in nbformat.read(source, as_version=4).cells}
    for cell in executed.cells:
        if cell.cell_type == "markdown" and cell.id in words:
            cell.source = words[cell.id]
    nbformat.write(executed, path)
