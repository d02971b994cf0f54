"""Compiled kernels are kept under a name that every source of theirs goes into."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from bnnlib import ROOT

SHOW = "import bnnlib.kernels, os; print(os.environ['NUMBA_CACHE_DIR'])"


def folder(package: Path, before: str = "", **environment: str) -> Path:
    """The cache folder in a new process that imports the package of this folder."""
    variables = {**os.environ, "PYTHONPATH": str(package), **environment}
    command = [sys.executable, "-c", before + SHOW]
    done = subprocess.run(
        command, cwd=package, env=variables, check=True, capture_output=True, text=True
    )
    return Path(done.stdout.strip())


def test_the_name_follows_from_the_sources(tmp_path):
    (tmp_path / "bnnlib").mkdir()
    (tmp_path / "bnnlib" / "__init__.py").touch()
    copied = tmp_path / "bnnlib" / "kernels"
    shutil.copytree(ROOT / "bnnlib" / "kernels", copied, ignore=lambda *_: ["__pycache__"])
    first = folder(tmp_path)
    assert re.fullmatch(r"bnnlib-[0-9a-f]{16}", first.name)
    assert folder(tmp_path) == first
    with (copied / "threads.py").open("a") as file:
        file.write("# changed\n")
    assert folder(tmp_path).name != first.name


def test_a_users_own_folder_holds_it_and_a_child_process_has_the_same(tmp_path):
    mine = folder(ROOT, NUMBA_CACHE_DIR=str(tmp_path))
    assert mine.parent == tmp_path
    assert folder(ROOT, NUMBA_CACHE_DIR=str(mine)) == mine


def test_numba_takes_it_even_if_it_was_imported_before():
    shown = "import numba; import bnnlib.kernels; print(numba.core.config.CACHE_DIR);"
    command = [sys.executable, "-c", shown + SHOW]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    of_numba, of_ours = done.stdout.split()
    assert of_numba == of_ours


SETTINGS = """
import numba, sys
numba.config.THREADING_LAYER, numba.config.CACHE_DIR = "workqueue", sys.argv[1]
@numba.njit(parallel=True)
def total(n):
    found = 0
    for i in numba.prange(n):
        found += i
    return found
assert total(10) == 45  # now its threads run, and their number is fixed
import bnnlib.kernels
print(numba.config.THREADING_LAYER, numba.config.CACHE_DIR)
"""


def test_somebody_else_s_settings_of_numba_stay(tmp_path):
    command = [sys.executable, "-c", SETTINGS, str(tmp_path)]
    environment = {**os.environ, "NUMBA_NUM_THREADS": "2", "NUMBA_CACHE_DIR": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    layer, cache = done.stdout.split()
    assert layer == "workqueue" and Path(cache).parent == tmp_path
