"""Decode the bytes of published files to arrays. Knows formats, and no data set's name or place.

Whatever a file holds, the readers return arrays or raise one of `store.FAILURES`; no pickle is
read, nothing is unpacked to disk, and sizes are limited before anything is unzipped.
"""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from study.data.store import KEYS, Parts, named

LARGEST = 2**26  # bytes of one member or idx file; the largest real one has 50 million
LARGEST_ARCHIVE = 2**28  # bytes of an archive's members together; the largest real one: 184 million


def unzipped(path: Path) -> bytes:
    """Content of an idx file, with or without .gz, up to LARGEST bytes."""
    opener = gzip.open if path.suffix == ".gz" else open
    with named(path.name), opener(path, "rb") as stream:
        return stream.read(LARGEST)


def idx(contents: Sequence[bytes]) -> Parts:
    """Arrays of four idx files in the order of KEYS: a header of 16 or 8 bytes, then the array."""
    parts = []
    for key, content in zip(KEYS, contents, strict=True):
        header, shape = (16, (-1, 28, 28)) if "images" in key else (8, (-1,))
        with named(key):
            parts.append([np.frombuffer(content, np.uint8, offset=header).reshape(shape)])
    return parts


def members(archive: Path, names: Sequence[str]) -> list[bytes]:
    """Contents of a .tar.gz's regular members of exactly these names. Nothing is unpacked to disk,
    so that links, absolute names and `..` lead nowhere, and no more than LARGEST_ARCHIVE is
    unzipped."""
    with gzip.open(archive) as stream:
        content = io.BytesIO(stream.read(LARGEST_ARCHIVE))
    found, last = {}, -1
    with tarfile.open(fileobj=content, mode="r:") as tar:
        for member in tar:
            if member.offset <= last:  # a negative size leads back, again and again
                raise ValueError("a member has a negative size")
            last, whole = member.offset, member.isreg() and not member.issparse()
            if member.name in names and whole and member.size <= LARGEST:
                found[member.name] = tar.extractfile(member).read()
    return [found[name] for name in names]


def npz(path: Path, names: Sequence[str]) -> list[np.ndarray]:
    """The named arrays of an .npz file, of which nothing else is read."""
    with named(path.name):
        try:
            with zipfile.ZipFile(path) as archive:
                return [_npy(archive, f"{name}.npy") for name in names]
        except (zipfile.BadZipFile, RuntimeError) as problem:  # RuntimeError: encrypted, or unknown
            raise ValueError(problem) from problem


def _npy(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is compressed in an unknown way")
    with archive.open(info) as stream:
        content = io.BytesIO(stream.read(LARGEST))
    try:
        return np.atleast_1d(np.lib.format.read_array(content, allow_pickle=False))
    except MemoryError:  # of Python's parser, or for a shape that the file doesn't have
        raise ValueError(f"{name}'s header is false") from None


def mat(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """SVHN's .mat file -> images (N, 3, 32, 32) uint8, a view that `store` transposes, and labels
    (N,) uint8.

    An altered file can crash SciPy's parser, process and all: check its MD5 before.
    """
    from scipy.io import loadmat

    with named(path.name):
        content = loadmat(path, variable_names=("X", "y"))
        labels = (content["y"].ravel() % 10).astype(np.uint8)  # the files call the digit 0 "10"
        return content["X"].transpose(3, 2, 0, 1), labels  # from (row, column, colour, image)


def sheet(content: bytes) -> np.ndarray:
    """PNG with one image of 1,024 RGB pixels a row -> (N, 3, 32, 32) uint8, a view."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            if picture.mode != "RGB" or picture.width != 1024 or picture.height > 10_000:
                raise ValueError(f"a sheet is {picture.mode}, {picture.size}")
            return np.asarray(picture).reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2)
    except Image.DecompressionBombError as bomb:
        raise ValueError(bomb) from bomb
