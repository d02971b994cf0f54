"""Pages with what runs on them: committed results in today's words, built anew."""

from pathlib import Path

import nbformat

from study import ROOT
from tools import pages, site

RESULTS = ROOT / "results"
NAMES = ("00_playground", "02_gradients", "09_kernels", "10_open_questions")  # they have pieces


def build(folder: Path) -> Path:
    """quick/NAME.html, whose notebooks have the markdown of today's, and index.html."""
    quick = folder / "quick"
    quick.mkdir()
    for name in NAMES:
        _refresh(RESULTS / "quick" / f"{name}.ipynb", quick / f"{name}.ipynb")
    for path in (siblings := site.executed(quick)):
        path.with_suffix(".html").write_text(pages.page(path, siblings), "utf-8")
    (folder / "index.html").write_text(site.index(RESULTS), "utf-8")
    return folder


def _refresh(path: Path, target: Path) -> None:
    """The executed notebook with the words of its source."""
    executed = nbformat.read(path, as_version=4)
    source = nbformat.read(ROOT / "notebooks" / path.name, as_version=4)
    words = {cell.id: cell.source for cell in source.cells if cell.cell_type == "markdown"}
    for cell in executed.cells:
        cell.source = words.get(cell.id, cell.source)
    nbformat.write(executed, target)
