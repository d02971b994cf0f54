"""What a rented GPU's image lacks, training does not ask for: Jupyter, pooch, Numba, tables."""

import subprocess
import sys
from pathlib import Path

from study import ROOT

FLOOR = Path(__file__).with_name("floor.txt")
ABSENT = (
    "IPython ipykernel ipywidgets anywidget jupyter jupyterlab jupyter_client nbformat nbconvert "
    "papermill pooch requests pandas seaborn dask distributed numba llvmlite"
).split()
NEEDED = (
    "study.train.runner study.bench bnnlib.packed study.train.captured bnnlib.one_pass "
    "study.train.estimate tools.lease tools.lease_steps benchmarks.bench_training"
).split()
# Refuses to import what isn't there, whatever this environment has.
BLOCK = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
import importlib.util
found = importlib.util.find_spec
absent = lambda name: name.partition(".")[0] in {ABSENT}
importlib.util.find_spec = lambda name, *rest: None if absent(name) else found(name, *rest)
"""


def without(code: str) -> subprocess.CompletedProcess:
    """Run code in a process of its own, where ABSENT modules can't be imported."""
    command = [sys.executable, "-c", BLOCK + code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_all_that_training_needs_is_imported_without_them():
    done = without(f"import importlib\nfor name in {NEEDED}: importlib.import_module(name)")
    assert done.returncode == 0, done.stderr


def test_a_run_trains_without_them(tmp_path):
    """Every recipe's own numbers come from plain torch then; a short run goes to its end."""
    done = without(
        "from study import recipes\nfrom study.train import loop\n"
        "from study.data.training_data import training_data\n"
        "recipe = recipes.at_profile(recipes.MNIST_THEANO, 'smoke')\n"
        "print(len(loop.fit(recipe, training_data(recipe, 'smoke'), 0)[0]))"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "2"


def test_the_floor_s_tests_are_collected_without_them():
    assert all((ROOT / path).exists() for path in FLOOR.read_text().split())
    code = f"import pytest\nsys.exit(pytest.main(['--co', '-q', '-n0', '@{FLOOR}']))"
    done = without(code)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
