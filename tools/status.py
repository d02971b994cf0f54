"""One live line while a notebook is executed; nothing where there is no terminal."""

import sys
import threading
from typing import TextIO

from nbformat import NotebookNode
from tqdm import tqdm

from study.train.progress import shortened

WITH_TIME_LEFT = "{desc}{bar:10} {elapsed}<{remaining}{postfix}"
WITHOUT = "{desc}{elapsed}{postfix}"
REDRAWN_AFTER = 0.5  # seconds


class Status:
    """The line that shows how far a notebook is: time spent < time left, then its last output.

    Also the file that the kernel's standard output goes to, all of which is kept in `log`.
    `expected`: the seconds that the notebook took before, 0 if that is not known.
    """

    def __init__(self, name: str, log: TextIO, expected: float = 0):
        self.log = log
        self.expected = expected
        self.cells = 0
        self.ended = threading.Event()
        self.bar = tqdm(
            desc=f"  {name} ",
            total=expected or None,
            bar_format=WITHOUT,
            postfix="the kernel starts",
            leave=False,
            file=sys.stdout,
            dynamic_ncols=True,
            disable=None,  # where it is no terminal
        )

    def __enter__(self):
        self.ticking = threading.Thread(target=self._tick, daemon=True)
        self.ticking.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.ticking.join()
        self.bar.close()

    def _tick(self) -> None:
        """Let the clock run where the kernel says nothing for long."""
        while not (self.bar.disable or self.ended.wait(REDRAWN_AFTER)):
            self._draw()

    def _draw(self) -> None:
        self.bar.n = self.bar.format_dict["elapsed"]
        self.bar.bar_format = WITH_TIME_LEFT if self.bar.n < self.expected else WITHOUT
        self.bar.refresh()

    def begin(self, notebook: NotebookNode) -> None:
        """Called by nbclient as the notebook begins."""
        self.cells = len(notebook.cells)

    def begin_cell(self, cell: NotebookNode, cell_index: int) -> None:
        """Called by nbclient as a cell begins."""
        self.bar.set_postfix_str(f"cell {cell_index + 1} of {self.cells}", refresh=False)

    def write(self, text: str) -> None:
        """Called by papermill with what the kernel prints."""
        self.log.write(text)
        if said := text.strip():
            self.bar.set_postfix_str(shortened(said), refresh=False)
            self._draw()

    def flush(self) -> None:
        self.log.flush()
