"""Progress of several runs in one place: what each said last, and a line for each that ended."""

import threading
from typing import TextIO

from tqdm import tqdm

from study.train.progress import Epoch


class Overview:
    """One live line on a terminal that shows how far several runs are, with the time left.

    work: name of each run -> the work in it, in any unit that grows as the time does.
    """

    def __init__(self, work: dict[str, float]):
        self.work = work
        self.said = dict.fromkeys(work, "")
        self.begun: dict[str, float] = {}  # the part of its work that a run has done
        self.ended = 0.0
        self.lock = threading.RLock()
        self.bar = tqdm(total=sum(work.values()), dynamic_ncols=True, disable=None, smoothing=0)
        self.bar.bar_format = "{desc} {elapsed}<{remaining}{postfix}"

    def __enter__(self) -> "Overview":
        self._draw()
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()

    def hear(self, name: str, said: str) -> None:
        """Show the line that a run said last, unless it has ended."""
        with self.lock:
            if name not in self.said:
                return
            self.said[name] = said.removeprefix(name).strip()
            if epoch := Epoch.read(said):
                self.said[name] = epoch.position
                self.begun[name] = self.work[name] * epoch.epoch / epoch.epochs
            self._draw()

    def done(self, name: str) -> None:
        """Count a run as done, however it ended."""
        with self.lock:
            self.said.pop(name, None)
            self.begun.pop(name, None)
            self.ended += self.work[name]
            self._draw()

    def end(self, name: str, line: str, file: TextIO) -> None:
        """Say how a run ended."""
        self.say(line, file)
        self.done(name)

    def say(self, line: str, file: TextIO) -> None:
        self.bar.write(line, file=file)
        file.flush()

    def _draw(self) -> None:
        running = [f"{name} {said}" for name, said in self.said.items() if said]
        self.bar.n = self.ended + sum(self.begun.values())
        self.bar.desc = f"  run {len(self.work) - len(self.said)} of {len(self.work)}"
        self.bar.set_postfix_str(" | ".join(running))
