"""SIGKILL at random moments: what is made afterwards is what an undisturbed reproduction makes."""

import random
import shutil
import signal
import subprocess
import time

import faults
import pytest
import tiny_sets
from faults import SEED, anew, contents, kernels_of, numbers, reproduce, require_success, survive

from study import data

KILLS = 50
QUICK_KILLS = 3
PAGE_KILLS = 20
KILLS_OF_MAKE_ALONE = 10
DOWNLOAD_KILLS = 50
TRAININGS, EPOCHS = 10, 60
SAME = "a rerun ends with the numbers of an undisturbed one"


def test_smoke_reproduction(undisturbed, tmp_path, report):
    folder = shutil.copytree(undisturbed.folder, tmp_path / "killed")
    anew(folder)
    faults.eager_checkpoints(folder)
    places = survive(folder, KILLS, undisturbed.seconds / 4, undisturbed.numbers)
    report(
        f"SIGKILL of all processes at random moments (seed {SEED}) of the smoke reproduction",
        KILLS,
        f"{SAME}; hit {faults.told(places)}",
    )


def test_training(tmp_path, report):
    """A copy whose only work is a training, so that most of the kills hit one."""
    folder = faults.small_copy(tmp_path / "killed")
    faults.eager_checkpoints(folder)
    parameters = folder / "notebooks" / "params" / "smoke.yaml"
    values = f"{{profile: smoke, seeds: {TRAININGS}, epochs: {EPOCHS}}}"
    parameters.write_text(f"01_small: {values}\n")
    began = time.monotonic()
    require_success(reproduce(folder))
    seconds = time.monotonic() - began
    expected = numbers(folder)
    anew(folder)
    places = survive(folder, KILLS, seconds, expected)
    assert places["training"]
    report(
        f"SIGKILL of all processes at random moments (seed {SEED}) of {TRAININGS} trainings",
        KILLS,
        f"{SAME}; hit {faults.told(places)}",
    )


def test_quick_reproduction(tmp_path, report):
    """With checkpoints as seldom as they are for a reader."""
    folder = faults.copy(tmp_path / "undisturbed")
    options = {"profile": "quick", "BNN_DATA": str(data._folder())}
    killed = shutil.copytree(folder, tmp_path / "killed")
    began = time.monotonic()
    require_success(reproduce(folder, **options))
    seconds = time.monotonic() - began
    places = survive(killed, QUICK_KILLS, seconds / 2, numbers(folder, "quick"), **options)
    report(
        f"SIGKILL of all processes at random moments (seed {SEED}) of the quick reproduction",
        QUICK_KILLS,
        f"{SAME}; hit {faults.told(places)}",
    )


def test_page_building(undisturbed, tmp_path, report):
    """All notebooks are up to date, so that pages are all that is made."""
    folder = shutil.copytree(undisturbed.folder, tmp_path / "killed")
    local = folder / "results" / "local"
    process = at_the_pages(folder)
    began = time.monotonic()
    require_success((process.wait(), *process.communicate()))
    seconds, before = time.monotonic() - began, contents(local)
    chance, killed = random.Random(SEED), 0
    while killed < PAGE_KILLS:
        process = at_the_pages(folder)
        time.sleep(chance.uniform(0, seconds))
        faults.kill_all(process)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        assert contents(local) == before
    require_success(reproduce(folder))
    assert contents(local) == before
    report(
        f"SIGKILL at random moments (seed {SEED}) of building the pages",
        PAGE_KILLS,
        "after each kill every page is whole, and the same after a rerun",
    )


def at_the_pages(folder) -> subprocess.Popen:
    """A reproduction that has come to its pages."""
    process = faults.start(folder)
    while line := process.stdout.readline():
        if line.startswith("  together"):
            return process
    raise AssertionError(process.communicate()[1])


def test_make_alone(tmp_path, report):
    folder = faults.small_copy(tmp_path / "killed")
    began = time.monotonic()
    require_success(reproduce(folder))
    seconds = time.monotonic() - began
    expected = numbers(folder)
    anew(folder)
    chance, killed, left = random.Random(SEED), 0, 0
    while killed < KILLS_OF_MAKE_ALONE:
        process = faults.start(folder)
        kernels = kernels_of(process)
        time.sleep(chance.uniform(0, seconds / 2))
        process.kill()
        process.wait()
        faults.wait_until_gone(kernels)
        if process.returncode == -signal.SIGKILL and kernels:
            killed, left = killed + 1, left + len(kernels)
        else:  # there was no kernel to outlive it: the next begins at the beginning
            anew(folder)
    require_success(reproduce(folder))
    assert numbers(folder) == expected
    report(
        "SIGKILL of make alone, its notebook's kernel not among the killed",
        KILLS_OF_MAKE_ALONE,
        f"each of {left} kernels ends by itself; {SAME}",
    )


def send_slowly(handler, file: str) -> None:
    """As a bad line does: a hundredth of the file at a time."""
    content = tiny_sets.CONTENTS["mnist"][file]
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    for start in range(0, len(content), len(content) // 100 + 1):
        handler.wfile.write(content[start : start + len(content) // 100 + 1])
        time.sleep(0.005)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_download(tmp_path, monkeypatch, report):
    folder = tiny_sets.install(monkeypatch, tmp_path)
    chance, killed = random.Random(SEED), 0
    with tiny_sets.serve(send_slowly) as (address, _):
        urls = {"mnist": [address]}
        command = tiny_sets.child_command("print(data.load('mnist').sha256)", urls)
        began = time.monotonic()
        expected = subprocess.run(command, check=True, **tiny_sets.PIPES).stdout
        seconds = time.monotonic() - began
        while killed < DOWNLOAD_KILLS:
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL, **tiny_sets.PIPES)
            try:
                assert process.communicate(timeout=chance.uniform(0, seconds))[0] == expected
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                killed += 1
                require_whole(folder)
                continue
            shutil.rmtree(folder)  # it ended: the next begins at the beginning
            folder.mkdir()
        assert subprocess.run(command, check=True, **tiny_sets.PIPES).stdout == expected
    tiny_sets.assert_right(data.load("mnist"), "cached form")
    report(
        f"SIGKILL at random moments (seed {SEED}) of a download over a slow line",
        DOWNLOAD_KILLS,
        "after each kill every file with its final name is whole; a rerun has the data set",
    )


def require_whole(folder) -> None:
    for path in folder.glob("*.gz"):
        if not path.name.startswith("."):
            assert path.read_bytes() == tiny_sets.CONTENTS["mnist"][path.name], path.name
