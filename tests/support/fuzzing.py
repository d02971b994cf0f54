"""Readers tried on what is no such file: it is read as it was, or refused in a sentence."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from random import Random

from trials import Trials


@dataclass(frozen=True)
class Reader:
    """Something that reads files of a folder; `read` asserts that what it took is right."""

    name: str
    files: dict[str, bytes]  # as they should be
    read: Callable[[Path], str | None]  # -> another word for "read", or None
    refusals: tuple[type[Exception], ...]  # that it documents
    spoil: Callable[[Random], tuple[str, bytes]]  # -> a file, and what is in it instead
    traps: tuple[tuple[str, bytes], ...] = ()  # likewise, tried first

    def case(self, number: int) -> dict[str, bytes]:
        """What differs from the right files in a trial."""
        if number == 0:
            return {}
        known = self.traps[number - 1 : number]
        return dict(known or [self.spoil(Random(f"{self.name} {number}"))])


def attempt(reader: Reader, number: int, folder: Path) -> str:
    """A trial, see `trials`: "read", or the kind of refusal."""
    if number == 0:
        put(folder, reader.files)
        assert reader.read(folder) is None
        return "read"
    changed = reader.case(number)
    put(folder, changed)
    try:
        return reader.read(folder) or "read"
    except reader.refusals as refusal:
        assert str(refusal).strip() and "\n" not in str(refusal), f"no sentence: {refusal!r}"
        return f"refused ({type(refusal).__name__})"
    finally:
        put(folder, {file: reader.files[file] for file in changed if file in reader.files})


def put(folder: Path, files: dict[str, bytes]) -> None:
    for file, content in files.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@dataclass(frozen=True)
class Attempt:
    """`attempt` of a reader that a child process can find by its place."""

    module: str
    place: int

    def __call__(self, number: int, folder: Path) -> str:
        return attempt(import_module(self.module).READERS[self.place], number, folder)


def trials_of(module: str, readers: tuple[Reader, ...], count: int) -> list[Trials]:
    """All traps and `count` random trials of each."""
    return [
        Trials(reader.name, Attempt(module, place), len(reader.traps) + count)
        for place, reader in enumerate(readers)
    ]
