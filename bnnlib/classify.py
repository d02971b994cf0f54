"""Classify pictures with a network file, on bits: python -m bnnlib.classify MODEL IMAGE...

A line a picture, with its class, that class's score, the lead over the second, and what had to be
done to the picture.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bnnlib.files import print_anywhere
from bnnlib.network_file import About, about
from bnnlib.packed import PackedNetwork, load, require_file
from bnnlib.pictures import Decoded, decode, digit, fitted

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class Answer:
    """Answer of a network to one picture; label, score and margin are None for a blank one."""

    picture: str
    label: str | None
    number: int | None  # of the class, from 0
    score: float | None
    margin: float | None  # to the second class's score
    notes: tuple[str, ...]  # what was done to the picture

    def line(self) -> str:
        """The answer as a terminal shows it."""
        if self.label is None:
            return f"{self.picture}: blank, nothing is drawn on it"
        done = f" ({'; '.join(self.notes)})" if self.notes else ""
        scored = f"score {self.score:.3f}, {self.margin:.3f} before the second"
        return f"{self.picture}: class {self.label}, {scored}{done}"

    def json(self) -> str:
        """The answer as a program reads it, on one line."""
        named = {"picture": self.picture, "class": self.number, "label": self.label}
        scored = {"score": self.score, "margin": self.margin, "notes": self.notes}
        return json.dumps(named | scored, ensure_ascii=False)


def read_picture(content: bytes, network: About) -> tuple[np.ndarray, list[str]]:
    """A picture file's content as a network reads it, uint8 of its shape, and what was done.

    A network of MNIST's digits is given the digit in MNIST's form, other networks the picture
    stretched to their size; the notes of a picture of one colour are just "blank".
    Raises ValueError, in part of a sentence, for what is no picture.
    """
    least = None if network.reads_digits else network.shape[-2:]
    decoded = decode(content, least)
    first = [f"the first of {decoded.frames} frames"] if decoded.frames > 1 else []
    if network.reads_digits:
        pixels, notes = digit(decoded.picture)
    else:
        pixels, notes = _stretched(decoded, network.shape)
    return pixels, notes if notes == ["blank"] else first + notes


def _stretched(decoded: Decoded, shape: tuple[int, ...]) -> tuple[np.ndarray, list[str]]:
    pixels = fitted(decoded.picture, shape)
    if pixels.min() == pixels.max():
        return pixels, ["blank"]
    same = decoded.size == (shape[-1], shape[-2])
    return pixels, [] if same else ["resized from {}x{}".format(*decoded.size)]


def answer(picture: str, content: bytes, network: PackedNetwork, told: About) -> Answer:
    """Classify one picture file. Raises ValueError, naming it, for no picture."""
    try:
        pixels, notes = read_picture(content, told)
    except ValueError as error:
        raise ValueError(f"{picture} cannot be read as a picture: {error}") from error
    if notes == ["blank"]:
        return Answer(picture, None, None, None, None, ("blank",))
    scores = network(torch.tensor(pixels)[None])[0]
    (best, second), (number, _) = (each.tolist() for each in scores.topk(2))
    return Answer(picture, told.labels[number], number, best, best - second, tuple(notes))


def files(name: str) -> list[str]:
    """The pictures' names: a folder's files stand for it, in the order of their names."""
    if name == STANDARD_INPUT or not Path(name).is_dir():
        return [name]
    return [str(path) for path in sorted(Path(name).iterdir()) if path.is_file()]


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: 0; 1 if a picture could not be read, 2 if the model could not."""
    options = _options(arguments)
    try:
        network, told = load(options.model), about(options.model)
        if network.first.dtype != torch.uint8:
            raise ValueError(f"{options.model} reads images as whitened in training, not pictures")
    except (ValueError, OSError) as error:
        return _complain(error, 2)
    status = 0
    names = []
    for named in options.images:
        try:
            names += files(named)
        except OSError as error:
            status = _complain(error, 1)
    for name in names:
        try:
            found = answer(name, _content(name), network, told)
        except (ValueError, OSError) as error:
            status = _complain(error, 1)
            continue
        print(found.json() if options.json else found.line(), flush=True)
    return status


def _content(name: str) -> bytes:
    return sys.stdin.buffer.read() if name == STANDARD_INPUT else require_file(name).read_bytes()


def _complain(error: Exception, status: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return status


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bnnlib.classify",
        description="Classify pictures with a network file, on bits: a line each with the class, "
        "its score, and by how much it leads the second.",
        epilog="For a network of digits (MNIST) a drawing or a photograph is brought into MNIST's "
        "form, white digits on black, centred in 28x28; for other networks pictures are stretched "
        "to the size that they read. What was done stands behind the answer.",
    )
    parser.add_argument("model", metavar="MODEL", help="a .safetensors file of results/models")
    help_text = "a picture that Pillow reads, a folder of them, or - for standard input"
    parser.add_argument("images", metavar="IMAGE", nargs="+", help=help_text)
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    print_anywhere()
    sys.exit(main())
