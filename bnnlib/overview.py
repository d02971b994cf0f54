"""Progress of runs on several workers in one place: what each last said, and a line for what ended.

Dask carries it, and is used here by what it hands over alone.
"""

import re
from typing import TextIO

from tqdm import tqdm

TOPIC = "bnnlib"  # of the events by which workers tell how far they are
EPOCH = re.compile(r"^\S+ (epoch \d+/\d+): .+, (\d+ s left)$")  # what bnnlib.fit prints after one


class Said:
    """Standard output of a run on a worker, Dask's own object: its lines go to who looks on."""

    def __init__(self, worker, name: str):
        self.worker, self.name = worker, name

    def isatty(self) -> bool:
        """No: a line an epoch is wanted, not a bar."""
        return False

    def write(self, text: str) -> None:
        if said := text.strip():
            line = EPOCH.sub(r"\1, \2", said.splitlines()[-1]).removeprefix(self.name).strip()
            event = {"name": self.name, "said": line}
            self.worker.loop.add_callback(self.worker.log_event, TOPIC, event)

    def flush(self) -> None:
        pass


class Overview:
    """A line for each run that ends and, on a terminal, one that lives, of all that are running.

    client: Dask's.
    """

    def __init__(self, client, names: list[str]):
        self.client, self.said = client, dict.fromkeys(names, "")
        self.bar = tqdm(total=len(names), unit="run", dynamic_ncols=True, disable=None)

    def __enter__(self) -> "Overview":
        self.client.subscribe_topic(TOPIC, self.hear)
        return self

    def __exit__(self, *_) -> None:
        self.client.unsubscribe_topic(TOPIC)
        self.bar.close()

    def hear(self, event: tuple) -> None:
        """Called by Dask with what a run said; of one that has ended nothing more is shown."""
        name = event[1]["name"]
        if name in self.said:
            self.said[name] = event[1]["said"]
            self._draw()

    def end(self, name: str, line: str, file: TextIO) -> None:
        """Say how a run ended."""
        self.say(line, file)
        self.said.pop(name, None)
        self.bar.update()
        self._draw()

    def say(self, line: str, file: TextIO) -> None:
        self.bar.write(line, file=file)
        file.flush()

    def _draw(self) -> None:
        running = [f"{name} {said}" for name, said in list(self.said.items()) if said]
        self.bar.set_postfix_str(" | ".join(running))
