"""The cached form: altered, cut off, refused; full disks, interruptions, two at once."""

import errno
import os
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tiny_sets
from tiny_sets import (
    CONTENTS,
    PIPES,
    assert_right,
    child,
    child_command,
    flip,
    leftovers,
    put,
    send_good,
    send_half,
    serve,
)

from bnnlib import files
from study import data
from study.data import __main__ as command
from study.data import sources, store


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    return tiny_sets.install(monkeypatch, tmp_path)


@pytest.mark.parametrize("key", store.KEYS)
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
    monkeypatch.setattr(store, "atomic_write", refuse)
    assert_right(data.load("svhn"), "published files")
    with serve(send_good) as (address, _):
        monkeypatch.setitem(sources.URLS, "mnist", [address])
        with pytest.raises(data.DataUnavailable, match="download: the data folder can't be"):
            data.load("mnist")


def test_a_cached_set_needs_numpy_alone(folder):
    put(folder, "cifar10")
    data.load("cifar10")
    heavy = ("scipy", "PIL", "pooch", "requests", "matplotlib", "tqdm", "torch")
    check = f"data.load('cifar10'); print([m for m in {heavy} if m in sys.modules])"
    assert child(check).stdout == "[]\n"


# Full disks, interruptions, neighbours


@pytest.mark.parametrize("ask", [data.load, data.load_or_stand_in])
@pytest.mark.parametrize("at", [1, 3])
def test_a_full_disk_ends_with_one_sentence(at, ask, folder, monkeypatch):
    def fill(_):
        written.append(1)
        if len(written) >= at:
            raise OSError(errno.ENOSPC, "No space left on device")

    written = []
    monkeypatch.setattr(files.os, "fsync", fill)
    with serve(send_good) as (address, _):
        monkeypatch.setitem(sources.URLS, "mnist", [address])
        with pytest.raises(OSError, match="the disk that holds the data folder is full") as caught:
            ask("mnist")
    assert caught.value.errno == errno.ENOSPC
    assert not leftovers(folder) and len(list(folder.iterdir())) == at - 1


def test_a_full_disk_while_caching(folder, monkeypatch, capsys):
    put(folder, "svhn")
    monkeypatch.setattr(
        files.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, ""))
    )
    assert command.main(["svhn"]) == 1
    error = capsys.readouterr().err
    assert error == "the disk that holds the data folder is full: free some space and try again\n"
    assert not list(folder.rglob("*.npy")) and not leftovers(folder)


def test_an_interruption_leaves_nothing(folder, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", interrupt)
    with serve(send_good) as (address, _), pytest.raises(KeyboardInterrupt):
        monkeypatch.setitem(sources.URLS, "mnist", [address])
        data.load("mnist")
    assert not list(folder.iterdir())


def test_two_processes_that_fetch_at_once(folder):
    def answer_late(handler, file):
        meet.wait(300)  # both ask for each file before either gets it
        send_good(handler, file)

    meet = threading.Barrier(2)
    with serve(answer_late) as (address, asked):
        command = child_command(
            "d = data.load('mnist'); print(d.source, d.sha256)", urls={"mnist": [address]}
        )
        both = [subprocess.Popen(command, **PIPES) for _ in range(2)]
        said = [process.communicate(timeout=600)[0] for process in both]
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
        stop.wait(300)

    reached, stop = threading.Event(), threading.Event()
    with serve(stall) as (address, _):
        command = child_command("data.load('mnist')", urls={"mnist": [address]})
        process = subprocess.Popen(command, **PIPES)
        assert reached.wait(300)
        process.kill()
        process.communicate()
        stop.set()
    assert not (folder / "train-images-idx3-ubyte.gz").exists()
    put(folder, "mnist")
    assert_right(data.load("mnist"), "published files")


def test_what_a_killed_process_left_goes_after_a_day(folder):
    old, new, another = ".a.npy.0123456789abcdef", ".a.npy.fedcba9876543210", ".a.npy.mine"
    for name, age in ((old, 90_000), (new, 80_000), (another, 90_000)):
        (folder / name).touch()
        os.utime(folder / name, (time.time() - age,) * 2)
    with store.atomic_write(folder / "a.npy"):
        assert (folder / old).exists()
    assert {path.name for path in folder.iterdir()} == {new, another, "a.npy"}
