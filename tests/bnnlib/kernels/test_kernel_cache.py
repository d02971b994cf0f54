"""Compiled kernels are kept under a name that every source of theirs goes into, or not at all."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bnnlib.kernels import cache_folder
from study import ROOT

SHOW = "import bnnlib.kernels, os; print(os.environ['NUMBA_CACHE_DIR'])"
# A package of two kernels, the one calling the other
KERNELS = {
    "two": "from numba import njit\n\n\n@njit\ndef two():\n    return 2\n",
    "twice": """from numba import njit
from bnnlib.kernels.two import two


@njit(cache=True)
def twice(x):
    return two() * x
""",
}
TWICE = "from bnnlib.kernels.twice import twice; print(twice(21))"


def python(code: str, package: Path, **environment: str | None) -> str:
    """What `code` prints in a new process that imports the package of this folder."""
    variables = {**os.environ, "PYTHONPATH": str(package), **environment}
    variables = {name: value for name, value in variables.items() if value is not None}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd="/", env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def folder(package: Path, before: str = "", **environment: str | None) -> Path:
    """The cache folder in a new process that imports the package of this folder."""
    return Path(python(before + SHOW, package, **environment))


@pytest.fixture
def small(tmp_path) -> Path:
    """A package that keeps its kernels as ours does, which are compiled in no time."""
    kernels = tmp_path / "small" / "bnnlib" / "kernels"
    kernels.mkdir(parents=True)
    (kernels.parent / "__init__.py").touch()
    for name in ("__init__", "cache_folder"):
        shutil.copy(ROOT / "bnnlib" / "kernels" / f"{name}.py", kernels)
    for name, source in KERNELS.items():
        (kernels / f"{name}.py").write_text(source)
    return tmp_path / "small"


def test_the_name_follows_from_the_sources_also_of_folders_below(small):
    own = small / "bnnlib" / "kernels"
    first = folder(small, NUMBA_CACHE_DIR=None)
    assert re.fullmatch(r"bnnlib-[0-9a-f]{16}", first.name)
    assert first.parent == own / "__pycache__"
    assert folder(small, NUMBA_CACHE_DIR=None) == first
    with (own / "two.py").open("a") as file:
        file.write("# changed\n")
    second = folder(small, NUMBA_CACHE_DIR=None)
    (own / "below").mkdir()
    (own / "below" / "more.py").write_text("# more")
    assert len({first, second, folder(small, NUMBA_CACHE_DIR=None)}) == 3


@pytest.mark.parametrize("name", ["mine", "bnnlib-alice"])
def test_a_users_own_folder_holds_it_and_a_child_process_has_the_same(name, tmp_path):
    mine = folder(ROOT, NUMBA_CACHE_DIR=str(tmp_path / name))
    assert mine.parent == tmp_path / name
    assert folder(ROOT, NUMBA_CACHE_DIR=str(mine)) == mine


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


def test_numba_takes_it_even_if_it_was_imported_before_and_keeps_its_other_settings():
    before = "import numba; numba.config.THREADING_LAYER = 'workqueue'; import bnnlib.kernels;"
    before += "print(numba.core.config.CACHE_DIR, numba.config.THREADING_LAYER);"
    of_numba, layer, of_ours = python(before + SHOW, ROOT).split()
    assert of_numba == of_ours and layer == "workqueue"


def test_a_folder_that_others_may_write_is_not_used(tmp_path):
    name = f"bnnlib-{cache_folder._state()}"
    planted = tmp_path / "shared" / name
    planted.mkdir(parents=True)
    planted.chmod(0o777)
    assert folder(ROOT, NUMBA_CACHE_DIR=str(planted.parent)) != planted
    planted.chmod(0o755)
    assert folder(ROOT, NUMBA_CACHE_DIR=str(planted.parent)) == planted


@pytest.mark.parametrize(("mode", "used"), [(0o777, False), (0o1777, True), (0o755, True)])
def test_a_folder_that_others_may_replace_is_not_used(mode, used, tmp_path):
    """Where others may write, they can move it away, unless it is a folder like /tmp."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(mode)
    found = folder(ROOT, NUMBA_CACHE_DIR=str(tmp_path / "shared" / "alice"))
    assert found.is_relative_to(tmp_path / "shared") == used


def test_a_link_is_followed_once(tmp_path):
    """Its owner may let it lead elsewhere while kernels are read."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    found = folder(ROOT, NUMBA_CACHE_DIR=str(tmp_path / "link"))
    assert found.parent == tmp_path / "mine"


@pytest.mark.parametrize("given", [None, "/proc/none"])
def test_changed_sources_are_compiled_anew_where_the_package_cannot_be_written(
    given, small, tmp_path
):
    """Numba, left alone, would keep them where the name does not follow from the sources."""
    home = {"NUMBA_CACHE_DIR": given, "HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": ""}
    kernels = small / "bnnlib" / "kernels"
    (kernels / "__pycache__").touch()  # so that it can't be a folder, not even for root
    assert python(TWICE, small, **home) == "42"
    assert list((tmp_path / "home" / ".cache" / "bnnlib").glob("bnnlib-*/*/*.nbi"))
    (kernels / "two.py").write_text(KERNELS["two"].replace("return 2", "return 3"))
    assert python(TWICE, small, **home) == "63"


def test_without_any_folder_of_its_own_a_private_one_is_used_and_removed(small, tmp_path):
    (tmp_path / "tmp").mkdir()
    home = {"HOME": "/proc/none", "TMPDIR": str(tmp_path / "tmp"), "XDG_CACHE_HOME": ""}
    home |= {"NUMBA_CACHE_DIR": None}
    (small / "bnnlib" / "kernels" / "__pycache__").touch()
    shown = f"{SHOW}; print(oct(os.stat(os.environ['NUMBA_CACHE_DIR']).st_mode)); {TWICE}"
    place, mode, value = python(shown, small, **home).split()
    assert Path(place).parent == tmp_path / "tmp" and mode == "0o40700" and value == "42"
    assert not Path(place).exists()


def test_where_nothing_can_be_written_one_sentence_names_the_variable(small, monkeypatch):
    def nowhere(**_):
        raise FileNotFoundError("No usable temporary directory")

    monkeypatch.setattr(cache_folder.tempfile, "mkdtemp", nowhere)
    monkeypatch.setattr(cache_folder, "_is_usable", lambda _: False)
    with pytest.raises(OSError, match="NUMBA_CACHE_DIR"):
        cache_folder._first_usable("", "bnnlib-0")
