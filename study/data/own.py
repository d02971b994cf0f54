"""Somebody's own pictures: a folder with one sub-folder a class, or scikit-learn's digits.

Pictures are read one after another and kept at the network's size alone. What can't be used is
skipped, with the reason; the same file twice is used once, lest a test image be trained on.
"""

import hashlib
import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bnnlib import pictures
from bnnlib.models import MOST_CLASSES, require_images
from study.data.training_data import Images, TrainingData

LEAST = 3  # pictures of a class: one to train on, one to select by, one to test on
HELD = 0.15  # share of each class that is held out to select by, and again to test on
MOST_BYTES = 2**31  # of all pictures at the network's size
LONGEST_FILE = 2**28  # bytes


@dataclass(frozen=True, eq=False)
class Pictures:
    """Images (N, *shape) uint8 with labels (N,) int64, and what was not used."""

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]  # of the classes
    skipped: tuple[tuple[str, str], ...]  # file or folder below the one that was read, reason
    source: str  # what it is, without a path

    def counts(self) -> dict[str, int]:
        """How many pictures each class has."""
        return dict(zip(self.names, np.bincount(self.labels).tolist(), strict=True))

    def reasons(self) -> dict[str, int]:
        """How many files were skipped for each reason."""
        reasons = [reason for _, reason in self.skipped]
        return {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}


def read(folder: str, shape: tuple[int, ...]) -> Pictures:
    """The pictures below a folder, stretched to a shape: (S, S) or (1, S, S), grey, or (3, S, S).

    Hidden files are passed over. Raises ValueError, before any picture is read, for a shape that no
    network takes, a folder that is none or has fewer than 2 or more than 1000 classes, and for
    pictures that take too much memory; and afterwards for a class of fewer than 3 pictures.
    """
    require_images("mlp", 0, shape, classes=2)
    top = Path(folder).expanduser()
    files, names, skipped = _listed(top)
    _require_room(len(files), shape)
    images = np.empty((len(files), *shape), np.uint8)
    labels = np.empty(len(files), np.int64)
    seen: dict[bytes, Path] = {}
    count = 0
    for path, label in files:
        try:
            content = _content(path)
            _require_new(content, path.relative_to(top), seen)
            images[count] = _fitted(content, shape)
        except (ValueError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            skipped.append((path.relative_to(top).as_posix(), reason))
            continue
        labels[count] = label
        count += 1
    _require_enough(labels[:count], names, len(skipped))
    source = f"the folder {_shown(top.resolve().name)}"
    return Pictures(images[:count], labels[:count], names, tuple(skipped), source)


def _require_room(count: int, shape: tuple[int, ...]) -> None:
    """Raise ValueError if so many pictures of a shape take more memory than is kept for them."""
    size = count * int(np.prod(shape))
    if size > MOST_BYTES:
        raise ValueError(
            f"{count} pictures of {shape[-1]} x {shape[-1]} pixels take {size / 1e9:.1f} GB, "
            f"at most {MOST_BYTES / 1e9:.1f} are kept: take a smaller side or fewer pictures"
        )


def digits(shape: tuple[int, ...]) -> Pictures:
    """The 1797 handwritten digits of 8 x 8 pixels that come with scikit-learn, at a shape."""
    from sklearn.datasets import load_digits

    require_images("mlp", 0, shape, classes=10)
    published = load_digits()
    grey = np.round(published.images * (255 / 16)).astype(np.uint8)
    images = np.stack([pictures.fitted(Image.fromarray(digit), shape) for digit in grey])
    names = tuple(map(str, published.target_names.tolist()))
    return Pictures(images, published.target.astype(np.int64), names, (), "scikit-learn's digits")


def training_data(own: Pictures, seed: int = 0) -> TrainingData:
    """The pictures split by class: 15 % to select by, 15 % to test on, the others to train on.

    A function of the pictures and the seed alone.
    """
    parts: tuple[list, list, list] = ([], [], [])
    for label in range(len(own.names)):
        rows = np.flatnonzero(own.labels == label)
        rows = rows[np.random.default_rng((seed, label)).permutation(len(rows))]
        held = max(1, round(HELD * len(rows)))
        for part, chosen in zip(parts, np.split(rows, [-2 * held, -held]), strict=True):
            part.extend(sorted(chosen.tolist()))
    splits = [Images(torch.tensor(own.images[p]), torch.tensor(own.labels[p])) for p in parts]
    digest = hashlib.sha256(repr((own.images.shape, own.names, seed)).encode())
    digest.update(np.ascontiguousarray(own.images))
    digest.update(np.ascontiguousarray(own.labels))
    return TrainingData(*splits, 2 / 255, -1.0, own.source, digest.hexdigest(), stand_in=False)


def _listed(top: Path) -> tuple[list[tuple[Path, int]], tuple[str, ...], list[tuple[str, str]]]:
    """-> each file with its class's number, the classes' names, what is no file or was met twice"""
    if not top.is_dir():
        raise ValueError(f"{top} is no folder")
    folders = sorted(
        (path for path in top.iterdir() if _is_class(path)), key=lambda path: path.name
    )
    if len(folders) < 2:
        found = f"only {_shown(folders[0].name)}" if folders else "none"
        raise ValueError(
            f"{top.name} must have one sub-folder of pictures a class, 2 or more of them: it has "
            f"{found}"
        )
    if len(folders) > MOST_CLASSES:
        raise ValueError(f"{top.name} has {len(folders)} classes, at most {MOST_CLASSES} are told")
    skipped: list[tuple[str, str]] = []
    visited = {_identity(top)}
    files = [
        (path, label)
        for label, folder in enumerate(folders)
        for path in _walk(folder, top, visited, skipped)
    ]
    return files, tuple(_shown(folder.name) for folder in folders), skipped


def _is_class(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _walk(folder: Path, top: Path, visited: set, skipped: list) -> Iterator[Path]:
    """The files below a folder by name; no folder twice, so that links in a circle end."""
    here = folder.relative_to(top).as_posix()
    try:
        if (identity := _identity(folder)) in visited:
            skipped.append((here, "a link to a folder that was read already"))
            return
        visited.add(identity)
        entries = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        skipped.append((here, error.strerror or "unreadable"))
        return
    for path in entries:
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _walk(path, top, visited, skipped)
        elif path.is_file():
            yield path
        else:  # a pipe would never end, a broken link has no end
            skipped.append((path.relative_to(top).as_posix(), "no file, or a link to none"))


def _identity(folder: Path) -> tuple[int, int]:
    found = os.stat(folder)
    return found.st_dev, found.st_ino


def _content(path: Path) -> bytes:
    if path.stat().st_size > LONGEST_FILE:
        raise ValueError(f"a file of more than {LONGEST_FILE} bytes")
    return path.read_bytes()


def _require_new(content: bytes, path: Path, seen: dict[bytes, Path]) -> None:
    """Raise ValueError for a file that was read before, in its own class or in another."""
    digest = hashlib.sha256(content).digest()
    first = seen.setdefault(digest, path)
    if first == path:
        return
    if first.parts[0] == path.parts[0]:
        raise ValueError("the same file again in its class")
    raise ValueError(f"the same file as one of class {_shown(first.parts[0])}")


def _fitted(content: bytes, shape: tuple[int, ...]) -> np.ndarray:
    decoded = pictures.decode(content, least=shape[-2:])
    if decoded.frames > 1:
        raise ValueError("animated, or of several pages")
    return pictures.fitted(decoded.picture, shape)


def _require_enough(labels: np.ndarray, names: tuple[str, ...], skipped: int) -> None:
    counts = np.bincount(labels, minlength=len(names))
    few = int(counts.argmin())
    if counts[few] < LEAST:
        raise ValueError(
            f"class {names[few]} has {counts[few]} pictures that could be read, and needs {LEAST}; "
            f"{skipped} files were skipped in all"
        )


def _shown(name: str) -> str:
    """A name of any script, composed, on one line; bytes that are no letters become ?."""
    composed = unicodedata.normalize("NFC", name)
    return "".join(letter if letter.isprintable() else "?" for letter in composed)
