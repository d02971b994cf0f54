"""The cached form of a data set: written whole or not at all, checked array by array.

It is <data folder>/<name>/<key>.npy, beside the hashes that the arrays had when they were made. No
pickle is read, and what doesn't match its hash never gets a final name. Needs nothing but numpy.
"""

import errno
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bnnlib.files import DECODING, atomic_write

KEYS = ("train_images", "train_labels", "test_images", "test_labels")
SIZES = {  # images to train on, to test on
    "mnist": (60_000, 10_000),
    "cifar10": (50_000, 10_000),
    "svhn": (604_388, 26_032),
    "svhn-no-extra": (73_257, 26_032),
    "svhn-part": (6_419, 10_000),
}
# Of the decoded arrays in the order of KEYS, uint8 and C-contiguous. For the whole of SVHN only the
# files' MD5 are known.
SHA256 = {
    "mnist": (
        "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
        "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
        "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
    ),
    "cifar10": (
        "9d5c2eddadb0deff02c14c350c0385aab7b1d5ff1edfeb4997c8dc8644960111",
        "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
        "177777c33ba79825320efa646ad04a94bdc3c80e4ebe3bd21724f8cdfd4b9d56",
        "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
    ),
    "svhn-part": (
        "253c3e7f2e3affb5d910e0b5e3142caab5d840add066fa69ea4f27400f252c8d",
        "4e497675540aa25a2e81c49ae3ea0c129084746e7854b5a433272e8bb7693269",
        "73091e92b37fdc1f7c3e1f6c8da9d55171356cc7a49e6b860ae6b5102fc22e40",
        "7fe9bcc87dca833901548fff86f3af5d1dccf069e726ecef367b4a1476542ddf",
    ),
}
ROWS = 10_000  # that are copied at once
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
FAILURES = (OSError, ValueError, ImportError)  # what a source may raise; the next one is tried


Parts = list[list[np.ndarray]]  # the arrays of KEYS, each as blocks that follow one another
Checked = tuple[list[np.ndarray], Sequence[str]]  # the arrays of KEYS, their SHA-256


def read(name: str, folder: Path) -> Checked:
    """The four arrays, mapped (copy on write) and checked."""
    hashes = SHA256.get(name) or _recorded(name, folder)
    arrays = []
    for key, shape, expected in zip(KEYS, _shapes(name), hashes, strict=True):
        file = f"{name}/{key}.npy"
        path = present(folder, file)
        with named(file):
            array = _mapped(path)
        arrays.append(np.atleast_1d(np.asarray(array)))  # a lone number has no length to check
        _check(file, arrays[-1:], shape, expected)
    return arrays, hashes


def _mapped(path: Path) -> np.ndarray:
    """An .npy file, copied on write; unlike np.load, which also reads archives and pickles."""
    try:
        return np.lib.format.open_memmap(path, mode="c")
    except MemoryError:  # of Python's parser: mapping takes none
        raise ValueError("its header is nested too deeply") from None


def _recorded(name: str, folder: Path) -> list[str]:
    """The hashes that SVHN's arrays had when they were made from files of the right MD5."""
    path = present(folder, f"{name}/sha256.json")
    with named(f"{name}/{path.name}"):
        hashes = json.loads(path.read_text())
        return [str(hashes[key]) for key in KEYS]  # null would be a hash that fits everything


def keep(name: str, folder: Path, parts: Parts, origin: str) -> Checked:
    """parts, checked -> arrays and hashes, through the cached form if the folder can be written."""
    labels = [f"{key} in {origin}" for key in KEYS]
    known = SHA256.get(name, (None,) * 4)
    hashes = [_check(*each) for each in zip(labels, parts, _shapes(name), known, strict=True)]
    try:
        for key, blocks, shape in zip(KEYS, parts, _shapes(name), strict=True):
            _save(folder / name / f"{key}.npy", blocks, shape)
        with atomic_write(folder / name / "sha256.json") as file:
            file.write(json.dumps(dict(zip(KEYS, hashes, strict=True)), indent=1).encode())
    except OSError as problem:
        if problem.errno not in READ_ONLY:
            raise
        return [np.concatenate(list(_pieces(blocks))) for blocks in parts], hashes
    parts.clear()  # SVHN's 1.9 GB go before as much is mapped
    return read(name, folder)


def _shapes(name: str) -> tuple[tuple[int, ...], ...]:
    image = (28, 28) if name == "mnist" else (3, 32, 32)
    return tuple(shape for n in SIZES[name] for shape in ((n, *image), (n,)))


def _check(
    what: str, blocks: list[np.ndarray], shape: tuple[int, ...], expected: str | None
) -> str:
    """-> SHA-256 of the blocks, which must be uint8 and have this shape and hash (None: any)."""
    found = (sum(map(len, blocks)), *blocks[0].shape[1:])
    if found != shape or any(block.dtype != np.uint8 for block in blocks):
        raise ValueError(f"{what} is {found} {blocks[0].dtype} and should be {shape} uint8")
    digest = sha256(blocks)
    if expected not in (None, digest):
        raise ValueError(f"{what} is altered: its SHA-256 differs")
    return digest


def sha256(blocks: list[np.ndarray]) -> str:
    """SHA-256 of the blocks' bytes, one after another."""
    digest = hashlib.sha256()
    for piece in _pieces(blocks):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(blocks: list[np.ndarray]) -> Iterator[np.ndarray]:
    """C-contiguous pieces of at most ROWS rows, so that transposing SVHN needs no second copy."""
    for block in blocks:
        for start in range(0, len(block), ROWS):
            yield np.ascontiguousarray(block[start : start + ROWS])


def _save(path: Path, blocks: list[np.ndarray], shape: tuple[int, ...]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with atomic_write(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for piece in _pieces(blocks):
            file.write(piece)


def present(folder: Path, *files: str) -> Path:
    """The first of these files that is in the folder."""
    for file in files:
        if (folder / file).is_file():
            return folder / file
    raise FileNotFoundError(f"{files[0]} is not there")


@contextmanager
def named(file: str) -> Iterator[None]:
    """Whatever decoding trips over, the message names the file."""
    try:
        yield
    except (*FAILURES, *DECODING) as problem:
        if getattr(problem, "errno", None) is not None:  # gzip and Pillow raise OSError without
            raise
        reason = " ".join(str(problem).split())  # NumPy's may have lines
        raise ValueError(f"{file} is cut off or altered ({reason})") from problem
