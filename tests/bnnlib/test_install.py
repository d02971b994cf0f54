"""The library as `pip install .` gives it: its packages, their imports, and life without Numba."""

import ast
import re
import subprocess
import sys
import tomllib

from study import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
LIBRARY = ROOT / "bnnlib"
IMPORTED_AS = {"pillow": "PIL"}
BROUGHT_BY = {"llvmlite": "numba", "triton": "torch"}
WITHOUT_NUMBA = "import sys; sys.modules['numba'] = None; sys.modules['llvmlite'] = None\n"
EVERY_MODULE = """
import importlib, pkgutil, bnnlib
for module in pkgutil.walk_packages(bnnlib.__path__, "bnnlib.", onerror=lambda name: None):
    if not module.name.startswith("bnnlib.kernels.cpu") and "gpu" not in module.name:
        importlib.import_module(module.name)
"""
# Counts of signs are exact in float32, so whatever multiplies them finds the same ones.
TRAINED = """
import torch
from bnnlib.binarize import sign
from bnnlib.layers import BinaryLinear
torch.manual_seed(0)
layer, x = BinaryLinear(784, 100), sign(torch.randn(20, 784))
plain = layer.weight.detach().clone().requires_grad_()
out = layer(x)
assert torch.equal(out, x @ sign(plain).detach().t() + layer.bias)
out.sum().backward()
plain.grad = x.sum(0).expand(100, 784).clone()
assert torch.equal(layer.weight.grad, plain.grad)
torch.optim.Adam([layer.weight], 0.01).step()
torch.optim.Adam([plain], 0.01).step()
assert torch.equal(layer.weight, plain)
"""


def python(script: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def names(requirements: list[str]) -> set[str]:
    """The packages of a list of requirements, as one imports them."""
    found = {re.match(r"[\w-]+", each)[0] for each in requirements}
    return {IMPORTED_AS.get(name, name) for name in found}


def imported() -> set[str]:
    """The packages that the library imports anywhere, but Python's own and ours."""
    found = set()
    for path in LIBRARY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - {"bnnlib"}


def test_every_package_of_the_library_is_installed_and_nothing_else():
    folders = [path.parent.relative_to(ROOT) for path in LIBRARY.rglob("__init__.py")]
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == sorted(
        ".".join(folder.parts) for folder in folders
    )


def test_files_beside_the_modules_are_installed():
    data = PROJECT["tool"]["setuptools"]["package-data"]
    listed = {LIBRARY / name for name in data["bnnlib"]}
    found = {path for path in LIBRARY.rglob("*") if path.is_file() and path.suffix != ".py"}
    assert {path for path in found if "__pycache__" not in path.parts} == listed
    assert data.keys() == {"bnnlib"}


def test_the_library_imports_what_it_requires_or_an_extra_names():
    extras = PROJECT["project"]["optional-dependencies"]
    extra = names(extras["fast"] + extras["pictures"] + extras["onnx"])
    required = names(PROJECT["project"]["dependencies"])
    assert {BROUGHT_BY.get(name, name) for name in imported()} == required | extra


def test_the_readme_names_the_extra_that_makes_it_fast():
    assert names(PROJECT["project"]["optional-dependencies"]["fast"]) == {"numba"}
    assert "pip install '.[fast]'" in (ROOT / "README.md").read_text("utf-8")


def test_without_numba_every_module_is_imported_but_its_kernels():
    done = python(WITHOUT_NUMBA + EVERY_MODULE)
    assert done.returncode == 0, done.stderr


def test_without_numba_a_layer_trains_by_plain_torch():
    shown = "from bnnlib.kernels import dispatch; assert not dispatch.AVAILABLE"
    done = python(WITHOUT_NUMBA + shown + TRAINED)
    assert done.returncode == 0, done.stderr


def test_without_numba_its_kernels_name_the_extra():
    done = python(WITHOUT_NUMBA + "import bnnlib.kernels.cpu.hamming_search")
    said = "ModuleNotFoundError: these kernels need Numba: pip install 'bnnlib[fast]'"
    assert done.stderr.strip().splitlines()[-1] == said


def test_with_what_there_is_a_layer_trains_to_the_same():
    assert python(TRAINED).returncode == 0
