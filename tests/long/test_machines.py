"""Other machines and clocks, and two at once: no home, network, programs or GPU."""

import os
import random
import shutil
import subprocess
import sys
import time

import faults
from faults import SEED, anew, contents, numbers, reproduce, require_success
from machines import clock_backwards, path_with, with_only, without_network

from study import data

PAIRS = 20
YEAR = 365 * 86_400  # seconds
ENOUGH = ("git", "sh", "mount")  # the programs that are there: no npm among them
SAME = "the numbers of an undisturbed reproduction"


def fresh(undisturbed, folder):
    """A copy of the copy in which nothing was made yet."""
    shutil.copytree(undisturbed.folder, folder)
    anew(folder)
    return folder


def test_two_at_once(tmp_path, report):
    folder = faults.small_copy(tmp_path / "copy")
    began = time.monotonic()
    require_success(reproduce(folder))
    seconds, expected = time.monotonic() - began, numbers(folder)
    chance, refused = random.Random(SEED), 0
    for _ in range(PAIRS):
        anew(folder)
        both = [faults.start(folder)]
        time.sleep(chance.choice([0, chance.uniform(0, seconds)]))
        both.append(faults.start(folder))
        ends = [(*process.communicate(), process.wait()) for process in both]
        for _, stderr, status in ends:
            said = "another make is executing notebooks here: wait for it\n" if status else ""
            assert (status in (0, 1), stderr) == (True, said)
        refused += sum(status for *_, status in ends)
        assert sum(status for *_, status in ends) < 2
        assert numbers(folder) == expected
    report(
        "Two reproductions in one checkout, the second begun at once or at a random moment",
        PAIRS,
        f"{refused} times one said so and stopped, else both ended; always {SAME}",
    )


def test_clock_goes_backwards(undisturbed, tmp_path, report):
    folder = fresh(undisturbed, tmp_path / "copy")
    clock_backwards(folder)
    require_success(reproduce(folder))
    assert numbers(folder) == undisturbed.numbers
    report("A clock that falls by an hour each time that it is read", 1, SAME)


def test_files_from_the_future(undisturbed, tmp_path, report):
    """As if the clock had been set back since they were made."""
    folder = shutil.copytree(undisturbed.folder, tmp_path / "copy")
    before = contents(folder / "results" / "local")
    for path in folder.rglob("*"):
        os.utime(path, (time.time() + YEAR,) * 2)
    stdout = require_success(reproduce(folder))
    notebooks = len(list((folder / "notebooks").glob("*.ipynb")))
    assert stdout.count("up to date") == notebooks
    assert contents(folder / "results" / "local") == before
    report("All files a year younger than the clock", 1, f"{notebooks} notebooks up to date")


def test_only_the_checkout_can_be_written(undisturbed, tmp_path, report):
    folder = fresh(undisturbed, tmp_path / "copy")
    (folder / "build" / "temporary").mkdir(parents=True)
    places = {"TMPDIR": str(folder / "build" / "temporary")}
    require_success(reproduce(folder, before=with_only(folder), **places))
    assert numbers(folder) == undisturbed.numbers
    report(
        "A home, and everything else but the checkout, on a read-only file system",
        1,
        f"{SAME}, and no word about it",
    )


def test_a_home_that_is_no_folder(undisturbed, tmp_path, report):
    folder = fresh(undisturbed, tmp_path / "copy")
    require_success(reproduce(folder, HOME="/proc/nonexistent"))
    assert numbers(folder) == undisturbed.numbers
    report("A home that can't even be made", 1, f"{SAME}, and no word about it")


def test_no_npm_network_or_gpu(undisturbed, tmp_path, report):
    folder = fresh(undisturbed, tmp_path / "copy")
    lacking = {
        "PATH": path_with(*ENOUGH, folder=tmp_path / "programs"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    require_success(reproduce(folder, before=without_network(), **lacking))
    assert numbers(folder) == undisturbed.numbers
    report("No npm, no network, no GPU: the smoke profile", 1, SAME)


def test_no_data_npm_or_network_at_quick(tmp_path, report):
    """The real data can't be had: that is said, and no verdict is given on the stand-in."""
    folder = faults.small_copy(tmp_path / "copy")
    (tmp_path / "data").mkdir()
    lacking = {
        "PATH": path_with(*ENOUGH, folder=tmp_path / "programs"),
        "BNN_DATA": str(tmp_path / "data"),
        "PYTHONPATH": str(folder),
    }
    before = without_network()
    fetched = subprocess.run(
        [*before, sys.executable, "-m", "study.data", "mnist"],
        cwd=folder,
        env=os.environ | lacking,
        capture_output=True,
        text=True,
        check=False,
    )
    assert fetched.returncode == data.UNAVAILABLE and fetched.stdout == ""
    assert fetched.stderr.count("\n") == 2 and "npm is not installed" in fetched.stderr
    status, stdout, stderr = reproduce(folder, before=before, profile="quick", **lacking)
    assert status == 0, stderr
    assert "Going on with stand-in data" in stdout and "1 stand-in data" in stdout
    assert "mnist could not be had" in stderr
    assert list((tmp_path / "data").iterdir()) == []
    report(
        "No data, no npm, no network: the quick profile",
        1,
        "says which sources it asked and how to go on; trains on the stand-in without a verdict",
    )
