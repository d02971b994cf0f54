"""Networks for somebody's own pictures, from recipe to the files that they leave."""

import numpy as np
import pytest
import torch

from bnnlib import network_file, packed
from study import recipes
from study.data import own as pictures
from study.train import own, runs


@pytest.fixture
def mine():
    """Three classes of twenty pictures: a bright row each, in noise."""
    rng = np.random.default_rng(0)
    images = rng.integers(100, size=(60, 3, 8, 8), dtype=np.uint8)
    labels = np.arange(60) % 3
    images[np.arange(60), :, 2 * labels] += 150
    return pictures.Pictures(images, labels, ("a", "b", "ć"), (), "the folder rows")


@pytest.mark.parametrize("convnet", [False, True])
def test_a_network_is_trained_packed_and_left_with_its_labels(mine, convnet, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "FRESH", tmp_path / "runs")
    monkeypatch.setattr(own, "FOLDER", tmp_path / "own")
    training = pictures.training_data(mine)
    hidden = (8, 9) if convnet else (64,)
    recipe = own.fitted(own.sized(8, 3, 2, hidden, convnet, epochs=6), training, 3)
    record = own.obtain(recipe, "smoke", training)
    assert own.obtain(recipe, "smoke", training)["digest"] == record["digest"]  # it was kept
    left = own.leave(recipe, record, training, mine.names, "onnx" if convnet else "c")
    assert [path.suffix for path in left] == [".safetensors", ".md", ".onnx" if convnet else ".c"]
    told = network_file.about(left[0])
    assert told.labels == mine.names and told.shape == (3, 8, 8)
    assert (told.error, told.tested) == (record["test_error"], 9)
    read = packed.predict(packed.load(left[0]), training.test.images)
    wrong = 100 * (read != training.test.labels).double().mean().item()
    assert wrong == pytest.approx(record["test_error"])
    assert wrong < 50 or convnet  # chance is 67 %
    assert {path.parts[len(tmp_path.parts)] for path in tmp_path.rglob("*")} == {"runs", "own"}


def test_a_twin_has_the_same_sizes(mine):
    recipe = own.fitted(own.sized(8, 3, 2), pictures.training_data(mine), 3)
    twin = recipes.float_twin(recipe)
    assert (twin.side, twin.channels, twin.classes) == (8, 3, 3) and twin.hidden == recipe.hidden


def test_other_pictures_are_another_run(mine):
    first = pictures.training_data(mine)
    second = pictures.training_data(mine, seed=1)
    names = {own.fitted(own.sized(8, 3, 2), each, 3).name for each in (first, second)}
    assert len(names) == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((9, 3, 2), "even side"),
        ((8, 4, 2), "1 channel"),
        ((8, 3, 1001), "2 to 1000 classes"),
        ((8, 3, 2, [0]), "hidden must be positive"),
        ((8, 3, 2, [4, 4, 4, 4], True), "halved 3 times, not 4"),
        ((8, 3, 2, [4], False, 0), "epochs must be positive"),
        ((8.0, 3, 2), "side must be a whole number, not 8.0"),
        (("big", 3, 2), "side must be a whole number, not 'big'"),
        ((8, True, 2), "channels must be a whole number, not True"),
        ((8, 3, 2, 512), "hidden must be a list, as .* not 512"),
        ((8, 3, 2, "[4]"), "hidden must be a list"),
        ((8, 3, 2, [4.5]), "hidden must be a whole number, not 4.5"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_read(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        own.sized(*arguments)


def test_an_unknown_export_is_refused_by_name(mine):
    training = pictures.training_data(mine)
    assert isinstance(training.test.images, torch.Tensor)
    with pytest.raises(ValueError, match="export must be one of c, js, onnx .* not 'exe'"):
        own.leave(own.sized(8, 3, 3), {}, training, mine.names, "exe")


@pytest.mark.parametrize(("form", "convnet"), [("exe", False), ("js", True)])
def test_an_export_that_cannot_be_made_is_refused_before_anything_is_read(form, convnet):
    with pytest.raises(ValueError, match="export must be one of|computes no convolutions"):
        own.require_form(form, convnet)
    own.require_form("js", False)
    own.require_form("", True)
