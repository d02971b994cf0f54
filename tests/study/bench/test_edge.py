"""A client's networks, by kind of number, compute the same; a start is taken apart."""

import json
import pickle

import pytest
import torch
from random_networks import images, random_network

from bnnlib import folding, network_file
from bnnlib.layers import Normalization
from study.bench import edge

SHAPE = {"network": "mlp", "hidden": [64, 32], "dense": 0, "activations": "deterministic"}


@pytest.fixture
def network():
    return random_network("mlp", (64, 32), Normalization.EXACT)


@pytest.fixture
def files(network, tmp_path):
    made = {kind: edge.save(network, kind, tmp_path / kind) for kind in edge.FLOATS}
    made["bits"] = tmp_path / "network.safetensors"
    made["bits"].write_bytes(network_file.save_network(network, SHAPE))
    return made


def test_every_kind_gives_the_scores(network, files):
    pixels = images(network, 40)
    *_, scores = folding.reference(network, pixels)
    assert set(files) == set(edge.kinds_for(network)) == set(edge.KINDS)
    for kind, file in files.items():
        found = edge.load(kind, file)(pixels)
        if kind == "int8":  # activations are rounded
            assert (found.argmax(1) == scores.argmax(1)).float().mean() > 0.8
        else:
            assert torch.equal(found, scores), kind


class Harmful:
    """Unpickled without care, it runs a function of its writer's choice."""

    def __reduce__(self):
        return pytest.fail, ("something in the file was run",)


def test_a_file_runs_nothing(tmp_path):
    torch.save([Harmful()], tmp_path / "foreign")
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        edge.load("float32", tmp_path / "foreign")


def test_the_narrower_the_smaller(network, files):
    sizes = {kind: file.stat().st_size for kind, file in files.items()}
    assert sizes["bits"] < sizes["int8"] < sizes["float32"]
    assert edge.weight_bytes("float32", network) == 4 * edge.weight_bytes("int8", network)


def test_a_convnet_has_bits_and_float32():
    network = random_network("convnet", (4, 5), Normalization.EXACT)
    assert edge.kinds_for(network) == ("bits", "float32")


def test_latencies_tell_which_scores_are_exact(network):
    image = images(network, 2)[:1]
    *_, scores = folding.reference(network, image)
    kinds = {"right": lambda x: scores, "wrong": lambda x: scores + 1}
    rows = edge.latencies(kinds, image, scores, 0.0)
    assert {(row["implementation"], row["exact"]) for row in rows} == {
        ("right", True),
        ("wrong", False),
    }


def test_a_start_is_taken_apart(files, monkeypatch, capsys):
    def run(command, **_):
        edge.main(command[3:])
        return type("Done", (), {"stdout": capsys.readouterr().out})

    monkeypatch.setattr(edge.subprocess, "run", run)
    taken = edge.start("float32", files["float32"], (28, 28))
    assert set(taken) == {"imports", "load", "first image", "all"}
    assert min(taken.values()) >= 0 and json.dumps(taken)
    parts = taken["imports"] + taken["load"] + taken["first image"]
    assert taken["all"] == pytest.approx(parts)
