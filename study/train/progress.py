"""Progress of training: what a run says of itself, and where that is shown.

On a terminal a run has a bar. Elsewhere it prints a line an epoch, which those that show several
runs, or a notebook, read here, beside where it is written. Jupyter is no terminal: there the same
bars are drawn as text in the cell's output, so that a saved notebook or a page made of it shows how
they ended.
"""

import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, redirect_stderr
from dataclasses import dataclass

from tqdm import tqdm

from bnnlib import parallel


@dataclass(frozen=True)
class Epoch:
    """The end of an epoch, as a run tells of it in one line."""

    name: str  # the recipe's
    epoch: int  # counted from 1
    epochs: int
    results: str  # loss and error
    seconds_left: int

    @property
    def line(self) -> str:
        """The line that is printed."""
        done = f"{self.name} epoch {self.epoch}/{self.epochs}"
        return f"{done}: {self.results}, {self.seconds_left} s left"

    @property
    def position(self) -> str:
        """The part of the line that tells how far the run is and how long it will go on."""
        return f"epoch {self.epoch}/{self.epochs}, {self.seconds_left} s left"

    @classmethod
    def read(cls, line: str) -> "Epoch | None":
        """The epoch that `line` of a run tells of; None for any other line."""
        found = re.fullmatch(r"(\S+) epoch (\d+)/(\d+): (.+), (\d+) s left", line)
        if found is None:
            return None
        name, epoch, epochs, results, left = found.groups()
        return cls(name, int(epoch), int(epochs), results, int(left))


def shortened(said: str) -> str:
    """The last line of what a run said; results are left out of an epoch's line."""
    last = said.splitlines()[-1]
    epoch = Epoch.read(last)
    return f"{epoch.name} {epoch.position}" if epoch else last


def bar(name: str, steps: int, done: int) -> tqdm:
    """A bar over a run's steps on a terminal; elsewhere disabled."""
    return tqdm(
        total=steps,
        initial=done,
        desc=name,
        unit="step",
        disable=not sys.stderr.isatty() or parallel.rank() > 0,
    )


def show_epoch(bar: tqdm, history: list[dict], name: str, epochs: int) -> None:
    """Show the last epoch of a history: its error behind the bar, or a line where there is none."""
    last = history[-1]
    error = f"validation error {last['validation_error']:.2f} %"
    if not bar.disable:
        bar.set_postfix_str(error)
        return
    left = round((epochs - len(history)) * last["seconds"])
    results = f"loss {last['train_loss']:.4f}, {error}"
    print(Epoch(name, last["epoch"], epochs, results, left).line, flush=True)


class Lines:
    """A file that is no terminal: `tell` gets the last line of all that is written at once."""

    encoding = "utf-8"

    def __init__(self, tell: Callable[[str], None]):
        self.tell = tell

    def isatty(self) -> bool:
        """No: a line an epoch is wanted, not a bar."""
        return False

    def write(self, text: str) -> None:
        if said := text.strip():
            self.tell(said.splitlines()[-1])

    def flush(self) -> None:
        pass


class _CellOutput:
    """A file that prints into the cell and poses as a terminal: tqdm draws no bar elsewhere."""

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
    """True where somebody may look on in Jupyter.

    Nobody does where make executes a notebook: the page has a line an epoch, and make its status.
    """
    in_jupyter = type(sys.stdout).__module__ == "ipykernel.iostream"
    return in_jupyter and "BNN_COMMAND" not in os.environ
