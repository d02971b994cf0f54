"""The command line: python -m bnnlib.classify."""

import errno
import io
import json
import runpy
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from random_networks import DENSE, random_network

from bnnlib import classify, packed
from bnnlib.layers import Normalization, ScaleInput
from bnnlib.network_file import save_network, trained_on
from bnnlib.pictures import as_mnist
from study import data

EXACT = Normalization.EXACT
DIGITS = data.stand_in("mnist", train=1, test=4).test_images
COLOURS = data.stand_in("cifar10", train=1, test=3).test_images
NAMES = ["cat", "Hund", "鳥", "four", "five", "six", "seven", "eight", "nine", "ten"]


def model(tmp_path, kind="mlp", scale=None, **trained):
    shape = {"network": kind, "hidden": [8], "dense": DENSE, "activations": "deterministic"}
    network = random_network(kind, (8,), EXACT, *([scale] if scale else []))
    path = tmp_path / "network.safetensors"
    path.write_bytes(save_network(network, shape, trained and trained_on(**trained)))
    return str(path)


def written(path, pixels, **options):
    Image.fromarray(np.asarray(pixels)).save(path, **options)
    return str(path)


def asked(capsys, *arguments):
    """-> (status, the objects that --json printed)"""
    status = classify.main([*arguments, "--json"])
    return status, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_pictures_of_a_network_s_size_go_in_as_they_are(tmp_path, capsys):
    path = model(tmp_path, "convnet", dataset="cifar10", labels=NAMES)
    files = [written(tmp_path / f"{i}.png", x.transpose(1, 2, 0)) for i, x in enumerate(COLOURS)]
    assert classify.main([path, *files]) == 0
    scores = packed.load(path)(torch.tensor(COLOURS)).topk(2)
    lines = capsys.readouterr().out.splitlines()
    for file, line, values, places in zip(files, lines, *scores, strict=True):
        best, second = values.tolist()
        expected = f"{file}: class {NAMES[places[0]]}, score {best:.3f}, "
        assert line == expected + f"{best - second:.3f} before the second"


def test_a_digit_is_brought_into_mnist_s_form_by_the_playground_s_function(tmp_path, capsys):
    path = model(tmp_path)  # an older file, which names no data set
    field = np.zeros((200, 300), np.uint8)
    field[50:134, 100:184] = np.kron(DIGITS[0], np.ones((3, 3), np.uint8))
    drawing = written(tmp_path / "drawing.png", 255 - field)
    status, (found,) = asked(capsys, path, drawing)
    expected = packed.load(path)(torch.tensor(as_mnist(field))[None])[0].topk(2)
    assert status == 0 and found["class"] == int(expected.indices[0])
    assert found["score"] == float(expected.values[0])
    assert np.isclose(found["margin"], float(expected.values[0] - expected.values[1]))
    assert found["notes"][0] == "inverted" and "centred" in found["notes"][1]


def test_other_networks_of_28_x_28_are_not_taken_for_digits(tmp_path, capsys):
    path = model(tmp_path, dataset="somebody's leaves", labels=NAMES)
    light = written(tmp_path / "light.png", 255 - DIGITS[0])
    status, (found,) = asked(capsys, path, light)
    scores = packed.load(path)(torch.tensor(255 - DIGITS[:1]))[0]
    assert status == 0 and found["notes"] == [] and found["score"] == scores.max().item()
    assert found["label"] == NAMES[int(scores.argmax())]


def test_a_blank_picture_is_said_to_be_blank(tmp_path, capsys):
    white = written(tmp_path / "white.png", np.full((40, 40), 255, np.uint8))
    assert classify.main([model(tmp_path), white]) == 0
    assert capsys.readouterr().out == f"{white}: blank, nothing is drawn on it\n"
    _, (found,) = asked(capsys, model(tmp_path, "convnet"), white)
    assert found["label"] is found["score"] is found["margin"] is None


def test_a_folder_stands_for_its_files_and_a_dash_for_standard_input(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    files = [written(folder / f"{name}.png", DIGITS[0]) for name in ("b", "a")]
    content = io.BytesIO(Path(files[0]).read_bytes())
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=content))
    status, found = asked(capsys, model(tmp_path), str(folder), "-")
    assert status == 0 and [each["picture"] for each in found] == [files[1], files[0], "-"]
    assert len({each["score"] for each in found}) == 1


def test_it_goes_on_behind_a_bad_picture(tmp_path, capsys):
    good = written(tmp_path / "good.webp", DIGITS[0], lossless=True)
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes(b"\x89PNG")
    bad = [str(tmp_path / f"{name}.png") for name in ("text", "cut", "absent")]
    assert classify.main([model(tmp_path), *bad, good]) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{good}: class ") and printed.out.count("\n") == 1
    lines = printed.err.splitlines()
    assert len(lines) == 3 and all(line.startswith("error: ") for line in lines)
    assert all(path in line for path, line in zip(bad, lines, strict=True))


def test_it_goes_on_behind_a_name_or_a_folder_that_the_system_refuses(
    tmp_path, capsys, monkeypatch
):
    good = written(tmp_path / "good.png", DIGITS[0])
    closed = tmp_path / "closed"
    closed.mkdir()
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: refused(self, closed) or listed(self))
    assert classify.main([model(tmp_path), "a" * 300, str(closed), good]) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{good}: class ")
    first, second = printed.err.splitlines()
    assert first.startswith("error: ") and "a" * 300 in first
    assert second.startswith("error: ") and str(closed) in second


def refused(folder, closed):
    """What a user who isn't root is told of a folder without the permission to read it."""
    if folder == closed:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))


def test_a_picture_of_another_size_is_stretched_and_its_frames_are_counted(tmp_path, capsys):
    frames = [Image.fromarray(np.full((56, 84), value, np.uint8)) for value in (0, 99)]
    frames[0].putpixel((3, 3), 255)
    frames[0].save(moving := tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    _, (found,) = asked(capsys, model(tmp_path, "convnet"), str(moving))
    assert found["notes"] == ["the first of 2 frames", "resized from 84x56"]


def test_it_refuses_a_model_that_reads_no_pictures(tmp_path, capsys):
    path = model(tmp_path, "convnet", ScaleInput(1.0, 0.0))
    assert classify.main([path, "any.png"]) == 2
    assert "whitened" in capsys.readouterr().err
    assert classify.main([str(tmp_path), "any.png"]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path} is no file\n"


def test_the_command_runs_as_a_module(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["classify", "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(classify.__file__, run_name="__main__")
    assert "white digits on black" in " ".join(capsys.readouterr().out.split())
