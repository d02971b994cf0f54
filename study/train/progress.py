"""Progress in Jupyter, which is no terminal: the same bars, drawn as text in the cell's output.

As text and not as widgets, so that a saved notebook or a page made of it shows how they ended.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, redirect_stderr

from tqdm import tqdm


class _CellOutput:
    """What a cell prints, posing as a terminal: tqdm draws no bar elsewhere."""

    encoding = "utf-8"

    def __init__(self):
        self.cell = sys.stdout

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return self.cell.write(text)

    def flush(self) -> None:
        self.cell.flush()


def shown():
    """A context in which bars on standard error are drawn in Jupyter; elsewhere without effect."""
    return redirect_stderr(_CellOutput()) if _is_watched() else nullcontext()


def steps(items: Sequence, what: str) -> Iterable:
    """The items, with a bar on a terminal and in Jupyter that goes when they are done."""
    file = _CellOutput() if _is_watched() else sys.stderr
    return tqdm(items, desc=what, leave=False, file=file, disable=None)  # None: by isatty()


def _is_watched() -> bool:
    """Whether somebody may look on in Jupyter. Where make executes a notebook nobody does: the page
    has a line an epoch, and make its own status.
    """
    in_jupyter = type(sys.stdout).__module__ == "ipykernel.iostream"
    return in_jupyter and "BNN_COMMAND" not in os.environ
