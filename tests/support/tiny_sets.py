"""Tiny data sets encoded the way the real files are, and local servers that send them."""

import gzip
import hashlib
import io
import json
import struct
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from study import ROOT, data
from study.data import sources, store

REAL = {  # the constants that the tiny sets replace, by module
    "store": {"SIZES": store.SIZES, "SHA256": store.SHA256},
    "sources": {"FILES": sources.FILES, "TIMEOUT": sources.TIMEOUT},
}
SIZES = {"mnist": (30, 10), "cifar10": (50, 10), "svhn": (37, 7), "svhn-no-extra": (12, 7)}
SIZES["svhn-part"] = (3, 2)  # of the seven test images, the last two left over
CLOSED = "http://127.0.0.1:1/"


def draw_arrays(name: str) -> list[np.ndarray]:
    """The arrays of KEYS: the truth, which `published` and `package` encode."""
    if name == "svhn-part":
        *_, images, labels = draw_arrays("svhn")
        return [images[2:5], labels[2:5], images[:2], labels[:2]]
    rng = np.random.default_rng(list(data.DATASETS).index(name.removesuffix("-no-extra")))
    arrays = []
    for n in SIZES[name.removesuffix("-no-extra")]:
        shape = (n, 28, 28) if name == "mnist" else (n, 3, 32, 32)
        arrays += [rng.integers(256, size=shape, dtype=np.uint8)]
        arrays += [(np.arange(3, 3 + 7 * n, 7) % 10).astype(np.uint8)]
    if name == "svhn-no-extra":
        arrays[0], arrays[1] = arrays[0][:12], arrays[1][:12]
    return arrays


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def batches(images: np.ndarray, labels: np.ndarray) -> list[bytes]:
    rows = [bytes([label]) + image.tobytes() for image, label in zip(images, labels, strict=True)]
    return [b"".join(rows[start : start + 10]) for start in range(0, len(rows), 10)]


def cifar_members(arrays: list[np.ndarray]) -> dict[str, bytes]:
    train = batches(*arrays[:2])
    members = {f"cifar-10-batches-bin/data_batch_{i + 1}.bin": train[i] for i in range(5)}
    return members | {"cifar-10-batches-bin/test_batch.bin": batches(*arrays[2:])[0]}


def mat(images: np.ndarray, labels: np.ndarray) -> bytes:
    """X[row, column, colour, image], label 10 for the digit 0."""
    x = np.empty((32, 32, 3, len(images)), np.uint8)
    for n, image in enumerate(images):
        for colour in range(3):
            x[:, :, colour, n] = image[colour]
    buffer = io.BytesIO()
    savemat(buffer, {"X": x, "y": np.where(labels, labels, 10)[:, None]}, do_compression=True)
    return buffer.getvalue()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def published(name: str) -> dict[str, bytes]:
    """Contents of the published files by name."""
    arrays = draw_arrays(name)
    if name == "mnist":
        packed = [gzip.compress(idx(array)) for array in arrays]
        return dict(zip(REAL["sources"]["FILES"]["mnist"], packed, strict=True))
    if name == "cifar10":
        return {"cifar-10-binary.tar.gz": archive(cifar_members(arrays))}
    if name == "svhn-part":
        return {"test_32x32.mat": mat(*draw_arrays("svhn")[2:])}
    border = SIZES["svhn-no-extra"][0]
    images, labels, *test = arrays
    files = {"train_32x32.mat": mat(images[:border], labels[:border])}
    if name == "svhn":
        files["extra_32x32.mat"] = mat(images[border:], labels[border:])
    return files | {"test_32x32.mat": mat(*test)}


def sheet(images: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(images.transpose(0, 2, 3, 1).reshape(-1, 1024, 3)).save(buffer, "PNG")
    return buffer.getvalue()


def package(name: str) -> bytes:
    """The npm package as an archive."""
    arrays = draw_arrays(name)
    if name == "mnist":
        files = [f"package/data/{file[:-3]}" for file in REAL["sources"]["FILES"]["mnist"]]
        return archive(dict(zip(files, map(idx, arrays), strict=True)))
    parts = {
        f"package/data_batch_{i}.png": sheet(arrays[0][10 * i - 10 : 10 * i]) for i in range(1, 6)
    }
    parts["package/test_batch.png"] = sheet(arrays[2])
    for part, labels in (("train", arrays[1]), ("test", arrays[3])):
        parts[f"package/{part}_lables.json"] = json.dumps(labels.tolist()).encode()
    return archive(parts)


CONTENTS = {name: published(name) for name in data.DATASETS}
PATCH = {  # what makes the study believe in them; JSON, so that a child can have it too
    "store": {
        "SIZES": SIZES,
        "SHA256": {
            name: [hashlib.sha256(array.tobytes()).hexdigest() for array in draw_arrays(name)]
            for name in ("mnist", "cifar10", "svhn-part")
        },
    },
    "sources": {
        "FILES": {
            name: {file: md5(content) for file, content in files.items()}
            for name, files in CONTENTS.items()
        },
        "URLS": {name: [CLOSED] for name in data.DATASETS},
        "NPM": {},
    },
}


def install(monkeypatch, tmp_path: Path) -> Path:
    """An empty data folder, tiny sets, no network, no npm. -> the folder"""
    believe(monkeypatch, PATCH)
    monkeypatch.setattr(sources, "TIMEOUT", (1, 1))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("BNN_DATA", str(tmp_path / "data"))
    data._say_once.cache_clear()
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def believe(monkeypatch, patch: dict[str, dict]) -> None:
    """Replace constants of `study.data`, by module and name."""
    for module, constants in patch.items():
        for name, value in constants.items():
            monkeypatch.setattr(f"study.data.{module}.{name}", value)


def put(folder: Path, name: str, **changed: bytes) -> None:
    """The published files into the data folder."""
    for file, content in (CONTENTS[name] | changed).items():
        (folder / file).write_bytes(content)


def assert_right(dataset: data.Dataset, source: str) -> None:
    expected = draw_arrays(dataset.name)
    for key, array in zip(store.KEYS, expected, strict=True):
        found = getattr(dataset, key)
        assert found.dtype == np.uint8 and np.array_equal(found, array), key
    assert dataset.source == source and not dataset.stand_in


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(".")]


@contextmanager
def serve(
    respond: Callable[[BaseHTTPRequestHandler, str], None],
) -> Iterator[tuple[str, list[str]]]:
    """A web server whose `respond(handler, file)` answers GETs; yields its address, the GETs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path[1:])
            respond(self, self.path[1:])

        def log_message(self, *_):
            pass

    asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", asked
    finally:
        server.shutdown()
        server.server_close()


def send(handler: BaseHTTPRequestHandler, content: bytes, length: int | None = None) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content) if length is None else length))
    handler.end_headers()
    handler.wfile.write(content)


def send_good(handler: BaseHTTPRequestHandler, file: str) -> None:
    contents = {file: content for files in CONTENTS.values() for file, content in files.items()}
    send(handler, contents[file])


def send_half(handler: BaseHTTPRequestHandler, file: str) -> None:
    content = CONTENTS["mnist"][file]
    send(handler, content[: len(content) // 2], len(content))


def flip(content: bytes, place: int | None = None) -> bytes:
    """With one bit changed, by default half way."""
    place = len(content) // 2 if place is None else place
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def send_altered(handler: BaseHTTPRequestHandler, file: str) -> None:
    send(handler, flip(CONTENTS["mnist"][file]))


def send_missing(handler: BaseHTTPRequestHandler, file: str) -> None:
    handler.send_error(404)


PIPES = {"cwd": ROOT, "text": True, "stdout": subprocess.PIPE}


def child(code: str) -> subprocess.CompletedProcess:
    """Run `code` after `from study import data`, with the tiny sets, in a process of its own."""
    return subprocess.run(child_command(code), check=True, **PIPES)


def child_command(code: str, urls: dict[str, list[str]] | None = None) -> list[str]:
    patch = PATCH | {"sources": PATCH["sources"] | ({"URLS": urls} if urls else {})}
    head = "import json, sys\nfrom study import data\n"
    head += f"for module, constants in json.loads({json.dumps(patch)!r}).items():\n"
    head += "    vars(sys.modules[f'study.data.{module}']).update(constants)\n"
    return [sys.executable, "-c", head + code]
