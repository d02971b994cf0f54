"""CONTRIBUTING's list of rooms, made from the tree: python -m tools.rooms writes it.

Every folder of code with what it may import, and every module in it with the first sentence of its
docstring. tests/test_house.py compares the list with the tree, and holds the rules.
"""

import ast
import re
import sys
from pathlib import Path

from study import ROOT
from tools.files import replace_all, with_part

DOCUMENT = ROOT / "CONTRIBUTING.md"
FOLDERS = {  # in the order in which one reads them -> what a module there may import of ours
    "bnnlib": "`bnnlib`; `xnor` knows `kernels` alone; torch.distributed in `parallel` alone",
    "bnnlib/kernels": "`bnnlib.kernels`; Triton here alone",
    "bnnlib/kernels/cpu": "`bnnlib.kernels`; Numba here, and in two yardsticks of the study, alone",
    "bnnlib/export": "`bnnlib`",
    "study": "`bnnlib` and the folders below",
    "study/recipes": "`bnnlib`",
    "study/data": "`bnnlib`, `study.recipes`",
    "study/train": "`bnnlib`, `study.recipes`, `study.data`; Dask in `cluster` alone",
    "study/bench": "`bnnlib`, `study.recipes`, `study.data`, `study.train`",
    "study/playground": "`bnnlib`, `study`",
    "tools": "`study`, `bnnlib`: what make calls",
    "benchmarks": "`study`, `bnnlib`, and programs beside ours",
}


def purpose(path: Path) -> str:
    """The first sentence of a module's docstring, on one line."""
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return re.split(r"(?<=[.?])\s", " ".join(text.partition("\n\n")[0].split()))[0].rstrip(".")


def modules(folder: str) -> list[Path]:
    """The modules that lie in a folder, its face first."""
    return sorted((ROOT / folder).glob("*.py"), key=lambda path: (path.stem != "__init__", path))


def room(folder: str) -> str:
    """A folder's part of the list: its purpose, its rule, its modules in a fold."""
    face, *others = modules(folder)
    lines = [f"- `{path.stem}`: {purpose(path)}" for path in others]
    head = f"<details><summary><code>{folder}/</code>: {purpose(face)}</summary>\n"
    return "\n".join([head, f"May import {FOLDERS[folder]}.\n", *lines, "\n</details>\n"])


def rooms() -> str:
    """The whole list as Markdown."""
    return "\n".join(room(folder) for folder in FOLDERS)


def document() -> str:
    """CONTRIBUTING with the list as the tree has it today."""
    return with_part(DOCUMENT.read_text("utf-8"), "rooms", f"\n{rooms()}")


def main() -> int:
    replace_all({DOCUMENT: document().encode()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
