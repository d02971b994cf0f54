import ast
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from study.recipes import MNIST_THEANO
from study.train import provenance


def test_comments_docstrings_and_blank_lines_do_not_count_as_source():
    plain = 'def f(x):\n    return x + 1\n\nNAME = "a"\n'
    dressed = (
        '"""Module."""\n\n# why\ndef f(x):\n    """Doc."""\n    # because\n\n'
        '    return x + 1  # here\n\n\nNAME = "a"\n'
    )
    assert provenance._significant_source(plain) == provenance._significant_source(dressed)


def test_the_hash_does_not_depend_on_how_a_python_version_cuts_f_strings():
    spaced, tight = 'f"{epoch + 1} of"', 'f"{epoch+1} of"'
    significant = provenance._significant_source
    assert significant(f"x = {spaced}") == significant(f"x = {tight}")


def imported(source: Path) -> set[Path]:
    """Our modules that one of its modules imports, at its top or in a function."""
    found = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.ImportFrom) and re.match("bnnlib|study", node.module or ""):
            module = provenance.ROOT.joinpath(*node.module.split("."))
            found |= {module, *(module / alias.name for alias in node.names)}
    return {path for name in found if (path := name.with_suffix(".py")).exists()}


def test_every_module_that_training_imports_is_hashed_or_bound_otherwise():
    # by the resolved recipe; no numbers; tested to change none; where compiled kernels lie;
    # how many sums are made side by side: test_processors has the same sums for every processor
    bound = {"recipe", "provenance", "progress", "state", "checkpoints", "cache_folder"}
    bound |= {"processor"}
    hashed = provenance.determining_sources()
    assert provenance.ROOT / "study" / "train" / "loop.py" in hashed
    for source in hashed:
        missing = {path for path in imported(source) if path.stem not in bound} - set(hashed)
        assert not missing, source.name


def test_every_hashed_module_exists():
    for module in provenance.DETERMINING:
        assert list(provenance.ROOT.glob(f"{module}.py")), module


def test_what_runs_are_bound_to_is_json():
    binding = provenance.binding(MNIST_THEANO, "hash", 2, "cpu")
    assert json.loads(json.dumps(binding))["recipe"]["name"] == "mnist-theano"
    assert binding["threads"] == provenance.gather("cpu")["threads"]
    assert binding["arithmetic"] == provenance.gather("cpu")["arithmetic"]


@pytest.mark.parametrize(
    "changed",
    [
        'def f(x):\n    return x + 2\n\nNAME = "a"\n',
        'def f(x):\n    return x + 1\n\nNAME = "b"\n',
        'def f(x):\n    return x + 1\n    NAME = "a"\n',
    ],
)
def test_code_strings_and_indentation_count_as_source(changed):
    plain = 'def f(x):\n    return x + 1\n\nNAME = "a"\n'
    assert provenance._significant_source(plain) != provenance._significant_source(changed)


def test_provenance_names_no_path_and_no_machine():
    text = json.dumps(provenance.gather("cpu"))
    assert str(provenance.ROOT) not in text
    assert os.uname().nodename not in text


def test_without_git_the_commit_is_a_stamp_or_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.commit.__wrapped__() == ("unknown", True)
    subprocess.run(["git", "init", "-q", str(tmp_path / "outer")], check=True)
    monkeypatch.setattr(provenance, "ROOT", tmp_path / "outer" / "unpacked")
    provenance.ROOT.mkdir()
    assert provenance.commit.__wrapped__() == ("unknown", True)
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    (tmp_path / "COMMIT").write_text("abc123\n")
    assert provenance.commit.__wrapped__() == ("abc123", False)
