import ast
import json
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from study.recipes import MNIST_THEANO
from study.train import runs

RECORD = {"schema": runs.SCHEMA, "seed": 0, "test_error": 1.5, "history": [{"epoch": 1}]}


def test_a_record_survives_writing_and_reading(tmp_path):
    path = tmp_path / "deep" / "cpu-seed0.json"
    runs.write_record(path, RECORD)
    assert runs.read_record(path) == {**RECORD, "digest": runs.digest(RECORD)}


def test_a_record_older_than_a_field_has_the_fields_default(tmp_path):
    """What the recipe was before there was the field: committed records stay those of a recipe."""
    resolved = json.loads(runs.canonical(vars(MNIST_THEANO)))
    younger = {"latent_bits", "gradient_bits", "rounding"}
    old = {name: value for name, value in resolved.items() if name not in younger}
    assert len(old) == len(resolved) - len(younger)
    path = tmp_path / "record.json"
    runs.write_record(path, {**RECORD, "recipe": old})
    record = runs.read_record(path)
    assert record["recipe"] == resolved
    assert record["digest"] == runs.digest({**RECORD, "recipe": old})  # of what the file holds
    changed = {**old, "latent_bits": 8, "train_images": 5}
    assert runs.complete(changed) == {**resolved, "latent_bits": 8, "train_images": 5}


@pytest.mark.parametrize("damage", ["edited", "cut", "not json", "no digest", "other schema"])
def test_a_damaged_or_edited_record_is_refused_in_one_sentence(damage, tmp_path):
    path = tmp_path / "record.json"
    runs.write_record(path, RECORD)
    text = path.read_text()
    changed = {
        "edited": text.replace("1.5", "0.9"),
        "cut": text[:-20],
        "not json": "hello",
        "no digest": json.dumps(RECORD),
        "other schema": text.replace('"schema": 1', '"schema": 99'),
    }[damage]
    assert changed != text
    path.write_text(changed)
    with pytest.raises(ValueError, match="record.json in .* is no intact run record"):
        runs.read_record(path)


def test_a_number_that_is_not_finite_never_reaches_a_record(tmp_path):
    with pytest.raises(ValueError):
        runs.write_record(tmp_path / "record.json", {**RECORD, "test_error": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    runs.write_record(path, RECORD)

    def disk_full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space"):
        runs.write_record(path, {**RECORD, "seed": 1})
    assert runs.read_record(path)["seed"] == 0
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_comments_docstrings_and_blank_lines_do_not_count_as_source():
    plain = 'def f(x):\n    return x + 1\n\nNAME = "a"\n'
    dressed = (
        '"""Module."""\n\n# why\ndef f(x):\n    """Doc."""\n    # because\n\n'
        '    return x + 1  # here\n\n\nNAME = "a"\n'
    )
    assert runs._significant_source(plain) == runs._significant_source(dressed)


def test_the_hash_does_not_depend_on_how_a_python_version_cuts_f_strings():
    spaced, tight = 'f"{epoch + 1} of"', 'f"{epoch+1} of"'
    assert runs._significant_source(f"x = {spaced}") == runs._significant_source(f"x = {tight}")


def imported(source: Path) -> set[Path]:
    """Our modules that one of its modules imports, at its top or in a function."""
    found = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.ImportFrom) and re.match("bnnlib|study", node.module or ""):
            module = runs.ROOT.joinpath(*node.module.split("."))
            found |= {module, *(module / alias.name for alias in node.names)}
    return {path for name in found if (path := name.with_suffix(".py")).exists()}


def test_every_module_that_training_imports_is_hashed_or_bound_otherwise():
    # by the data's hash, by the resolved recipe; no numbers; tested to change none
    bound = {"recipe", "runs", "checkpoints", "cache_folder"}
    hashed = runs.determining_sources()
    assert runs.ROOT / "study" / "train" / "loop.py" in hashed
    for source in hashed:
        missing = {path for path in imported(source) if path.stem not in bound} - set(hashed)
        assert not missing, source.name


def test_every_hashed_module_exists():
    for module in runs.DETERMINING:
        assert list(runs.ROOT.glob(f"{module}.py")), module


def test_what_runs_are_bound_to_is_json():
    binding = runs.binding(MNIST_THEANO, "hash", 2, "cpu")
    assert json.loads(json.dumps(binding))["recipe"]["name"] == "mnist-theano"
    assert binding["threads"] == runs.provenance("cpu")["threads"]
    assert binding["arithmetic"] == runs.provenance("cpu")["arithmetic"]


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
    assert runs._significant_source(plain) != runs._significant_source(changed)


def test_a_runs_place_depends_on_recipe_device_and_seed():
    other = replace(MNIST_THEANO, epochs=5)
    paths = {
        runs.fresh_path(MNIST_THEANO, "cpu", 0),
        runs.fresh_path(MNIST_THEANO, "cpu", 1),
        runs.fresh_path(MNIST_THEANO, "cuda", 0),
        runs.fresh_path(other, "cpu", 0),
    }
    assert len(paths) == 4


def test_provenance_names_no_path_and_no_machine():
    text = json.dumps(runs.provenance("cpu"))
    assert str(runs.ROOT) not in text
    assert os.uname().nodename not in text


def test_without_git_the_commit_is_a_stamp_or_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert runs.commit.__wrapped__() == ("unknown", True)
    subprocess.run(["git", "init", "-q", str(tmp_path / "outer")], check=True)
    monkeypatch.setattr(runs, "ROOT", tmp_path / "outer" / "unpacked")
    runs.ROOT.mkdir()
    assert runs.commit.__wrapped__() == ("unknown", True)
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    (tmp_path / "COMMIT").write_text("abc123\n")
    assert runs.commit.__wrapped__() == ("abc123", False)
