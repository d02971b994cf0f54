"""Data sets small enough to travel with a command: lossless mosaics, checked after the round trip.

MNIST is an .npz in xz; CIFAR-10's images are mosaics in lossless WebP, in two parts.
"""

import io
import lzma
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from bnnlib.files import atomic_write
from study.data import store

SIDE = 32  # pixels of CIFAR-10's images
ACROSS = 100  # images in a row of a mosaic
IN_A_MOSAIC = 2_500  # small enough to fill both parts evenly; 16,383 pixels a side at most
FIRST_PART = 11  # mosaics of training images beside MNIST; the others travel with a second command


def mosaic(images: np.ndarray) -> bytes:
    """images (N, 3, H, W) uint8 -> WebP, lossless, ACROSS a row; the last row is filled with 0."""
    count, _, height, width = images.shape
    rows = -(-count // ACROSS)
    cells = np.zeros((rows * ACROSS, height, width, 3), np.uint8)
    cells[:count] = images.transpose(0, 2, 3, 1)
    grid = cells.reshape(rows, ACROSS, height, width, 3).swapaxes(1, 2)
    picture = Image.fromarray(grid.reshape(rows * height, ACROSS * width, 3))
    out = io.BytesIO()
    picture.save(out, "WEBP", lossless=True, quality=60, method=4, exact=True)
    return out.getvalue()


def images_of(content: bytes, count: int) -> np.ndarray:
    """Images (count, 3, SIDE, SIDE) uint8 of what `mosaic` made."""
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    rows = len(pixels) // SIDE
    cells = pixels.reshape(rows, SIDE, ACROSS, SIDE, 3).swapaxes(1, 2)
    return cells.reshape(-1, SIDE, SIDE, 3)[:count].transpose(0, 3, 1, 2).copy()


def pack_arrays(arrays: Sequence[np.ndarray]) -> bytes:
    """Arrays -> one .npz in xz."""
    out = io.BytesIO()
    np.savez(out, *arrays)
    return lzma.compress(out.getvalue(), preset=6)


def arrays_of(content: bytes) -> list[np.ndarray]:
    """Arrays of what `pack_arrays` made."""
    with np.load(io.BytesIO(lzma.decompress(content)), allow_pickle=False) as file:
        return [file[name] for name in file.files]


def mosaics(images: np.ndarray) -> list[bytes]:
    return [mosaic(images[at : at + IN_A_MOSAIC]) for at in range(0, len(images), IN_A_MOSAIC)]


def pack(name: str, arrays: Sequence[np.ndarray], folders: Sequence[Path]) -> None:
    """Write a data set's four arrays into the folders that travel; then read and compare them.

    Raises ValueError where an array's SHA-256 is another after the round trip.
    """
    if name == "mnist":
        _write(folders[0] / "mnist.npz.xz", pack_arrays(arrays))
    else:
        train, train_labels, test, test_labels = arrays
        for at, content in enumerate(mosaics(train)):
            folder = folders[0] if at < FIRST_PART else folders[1]
            _write(folder / f"{name}-train-{at}.webp", content)
        for at, content in enumerate(mosaics(test)):
            _write(folders[1] / f"{name}-test-{at}.webp", content)
        _write(folders[1] / f"{name}-labels.npz.xz", pack_arrays([train_labels, test_labels]))
    back = unpacked(name, folders)
    for key, ours, theirs in zip(store.KEYS, back, arrays, strict=True):
        if store.sha256([ours]) != store.sha256([theirs]):
            raise ValueError(f"{name}'s {key} are altered by packing")


def unpacked(name: str, folders: Sequence[Path]) -> list[np.ndarray] | None:
    """The four arrays, or None while a part is missing."""
    files = {path.name: path for folder in folders for path in sorted(folder.glob(f"{name}*"))}
    if name == "mnist":
        found = files.get("mnist.npz.xz")
        return arrays_of(found.read_bytes()) if found else None
    if f"{name}-labels.npz.xz" not in files:
        return None
    labels = arrays_of(files[f"{name}-labels.npz.xz"].read_bytes())
    images = []
    for part, some in zip(("train", "test"), labels, strict=True):
        wanted = range(-(-len(some) // IN_A_MOSAIC))
        names = [f"{name}-{part}-{at}.webp" for at in wanted]
        if not all(each in files for each in names):
            return None
        blocks = [
            images_of(files[each].read_bytes(), min(IN_A_MOSAIC, len(some) - at * IN_A_MOSAIC))
            for at, each in enumerate(names)
        ]
        images.append(np.concatenate(blocks))
    return [images[0], labels[0], images[1], labels[1]]


def install(name: str, folders: Sequence[Path], data: Path) -> bool:
    """Put a data set that came whole into the data folder, checked; whether it is there now."""
    if (data / name / "sha256.json").exists():
        return True
    arrays = unpacked(name, folders)
    if arrays is None:
        return False
    store.keep(name, data, [[array] for array in arrays], "the lease's parts")
    return True


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as file:
        file.write(content)
