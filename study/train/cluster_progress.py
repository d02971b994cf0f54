"""Progress of runs on several workers in one place: what each last said, and a line for what ended.

Where Dask carries it, it is used here by what it hands over alone.
"""

import re
import threading
from typing import TextIO

from tqdm import tqdm

TOPIC = "bnnlib"  # of the events by which workers tell how far they are
# What study.train.loop prints after an epoch, and what is kept of it
EPOCH = re.compile(r"^\S+ (epoch \d+/\d+): .+, (\d+ s left)$")
COUNTED = re.compile(r"^epoch (\d+)/(\d+)")


def shortened(name: str, said: str) -> str:
    """What a run said last, without its name, and an epoch's line without loss and error."""
    return EPOCH.sub(r"\1, \2", said.splitlines()[-1]).removeprefix(name).strip()


class Said:
    """Standard output of a run on a worker, Dask's own object: its lines go to who looks on."""

    def __init__(self, worker, name: str):
        self.worker, self.name = worker, name

    def isatty(self) -> bool:
        """No: a line an epoch is wanted, not a bar."""
        return False

    def write(self, text: str) -> None:
        if said := text.strip():
            event = {"name": self.name, "said": shortened(self.name, said)}
            self.worker.loop.add_callback(self.worker.log_event, TOPIC, event)

    def flush(self) -> None:
        pass


class Overview:
    """How far many runs are: on a terminal one line that lives, with the time left.

    names: of the runs, each with the work in it, in any unit that grows as the time does.
    """

    def __init__(self, names: dict[str, float]):
        self.work, self.said = names, dict.fromkeys(names, "")
        self.begun: dict[str, float] = {}  # the part of its work that a run has done
        self.ended = 0.0
        self.lock = threading.RLock()
        self.bar = tqdm(total=sum(names.values()), dynamic_ncols=True, disable=None, smoothing=0)
        self.bar.bar_format = "{desc} {elapsed}<{remaining}{postfix}"

    def __enter__(self) -> "Overview":
        self._draw()
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()

    def hear(self, name: str, said: str) -> None:
        """Show what a run said last; of one that has ended nothing more is shown."""
        with self.lock:
            if name in self.said:
                self.said[name] = shortened(name, said)
                if counted := COUNTED.match(self.said[name]):
                    epoch, epochs = map(int, counted.groups())
                    self.begun[name] = self.work[name] * epoch / epochs
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
