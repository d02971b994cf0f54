"""Somebody's own pictures: a folder with one sub-folder a class, or scikit-learn's digits.

Pictures are read one after another and kept at the network's size alone. What can't be used is
skipped, with the reason; the same file twice is used once, lest a test image be trained on.
"""

import hashlib
import os
import stat
from collections import Counter
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bnnlib import pictures
from bnnlib.models import require_images
from study.data.class_folders import below, list_files, shown
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
        """How many files were skipped for each reason, the most frequent one first."""
        return dict(Counter(reason for _, reason in self.skipped).most_common())


def read(folder: str, shape: tuple[int, ...]) -> Pictures:
    """The pictures below a folder, stretched to a shape: (S, S) or (1, S, S), grey, or (3, S, S).

    Raises ValueError, before any picture is read, for a shape that no network takes, a folder as
    `list_files` does, and for pictures that take too much memory; and afterwards for a class of
    fewer than 3 pictures.
    """
    _require_shape(shape)
    listing = list_files(folder)
    files = listing.files
    skipped = listing.skipped
    _require_room(len(files), shape)
    images = np.empty((len(files), *shape), np.uint8)
    labels = np.empty(len(files), np.int64)
    seen: dict[bytes, str] = {}
    count = 0
    for path, label in files:
        try:
            content = _content(path)
            _require_new(content, listing.names[label], seen)
            images[count] = _fitted(content, shape)
        except (ValueError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            skipped.append((below(path, listing.top), reason))
            continue
        labels[count] = label
        count += 1
    _require_enough(labels[:count], listing.names, len(skipped))
    source = f"the folder {shown(listing.top.resolve().name)}"
    return Pictures(images[:count], labels[:count], listing.names, tuple(skipped), source)


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

    _require_shape(shape)
    published = load_digits()
    grey = np.round(published.images * (255 / 16)).astype(np.uint8)
    images = np.stack([pictures.fitted(Image.fromarray(digit), shape) for digit in grey])
    names = tuple(map(str, published.target_names.tolist()))
    return Pictures(images, published.target.astype(np.int64), names, (), "scikit-learn's digits")


def _require_shape(shape: tuple[int, ...]) -> None:
    are_numbers = all(isinstance(size, Integral) for size in shape)
    if not are_numbers or len(shape) not in (2, 3) or shape[-1] != shape[-2]:
        raise ValueError(f"images are (S, S), (1, S, S) or (3, S, S) pixels, not {shape}")
    require_images("mlp", 0, shape, classes=2)


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
    images, labels = torch.from_numpy(own.images), torch.from_numpy(own.labels)
    splits = [Images(images[rows], labels[rows]) for rows in parts]
    digest = hashlib.sha256(repr((own.images.shape, own.names, seed)).encode())
    digest.update(np.ascontiguousarray(own.images))
    digest.update(np.ascontiguousarray(own.labels))
    return TrainingData(*splits, 2 / 255, -1.0, own.source, digest.hexdigest(), stand_in=False)


def _content(path: Path) -> bytes:
    """A file's content. Waits for nothing, should a pipe have taken its place."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", getattr(os, "O_BINARY", 0)))
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("no file")
        if found.st_size > LONGEST_FILE:
            raise ValueError(f"a file of more than {LONGEST_FILE} bytes")
        return file.read(found.st_size)


def _require_new(content: bytes, name: str, seen: dict[bytes, str]) -> None:
    """Raise ValueError for a file that was read before, in its own class or in another."""
    digest = hashlib.sha256(content).digest()
    if digest not in seen:
        seen[digest] = name
    elif seen[digest] == name:
        raise ValueError("the same file again in its class")
    else:
        raise ValueError(f"the same file as one of class {seen[digest]}")


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
