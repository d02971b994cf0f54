import json
import os
from dataclasses import replace

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


def test_a_runs_place_depends_on_recipe_device_and_seed():
    other = replace(MNIST_THEANO, epochs=5)
    paths = {
        runs.fresh_path(MNIST_THEANO, "cpu", 0),
        runs.fresh_path(MNIST_THEANO, "cpu", 1),
        runs.fresh_path(MNIST_THEANO, "cuda", 0),
        runs.fresh_path(other, "cpu", 0),
    }
    assert len(paths) == 4
