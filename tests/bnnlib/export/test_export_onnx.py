"""The ONNX model in ONNX Runtime: every bit, score and class of `bnnlib.packed`."""

import numpy as np
import pytest

from bnnlib import network_file, packed
from bnnlib.export.__main__ import main
from bnnlib.export.network import convert
from bnnlib.layers import Normalization
from tests.support.engine import expected, same
from tests.support.random_networks import images, random_network, sized_network

onnx = pytest.importorskip("onnx", reason="onnx, an extra, isn't installed")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime isn't installed")


def run(made, pixels, inner=()):
    """The model's answers to pictures (B, 28, 28), and of tensors inside it, in order."""
    for name in inner:
        made.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(
        made.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"pixels": pixels})


@pytest.mark.parametrize(
    ("network", "hidden"),
    [("mlp", (70, 130)), ("mlp", (64,)), ("mlp", (3, 33, 5)), ("convnet", (9, 70))],
    ids=str,
)
@pytest.mark.parametrize("kind", [Normalization.EXACT, Normalization.SHIFT_CODED])
def test_onnx_runtime_computes_the_same(network, hidden, kind):
    from bnnlib.export.onnx import model

    network = random_network(network, hidden, kind)
    pixels = images(network, 20).numpy()
    exported = convert(network, "n")
    inner = [f"bits_{number + 1}" for number in range(len(exported.hidden))]
    scores, classes, *signs = run(model(exported), pixels, inner)
    found = ([np.moveaxis(each > 0, 1, -1) for each in signs], scores, classes)
    assert all(np.array_equal(np.abs(each), np.ones_like(each)) for each in signs)
    assert same(found, expected(packed.pack(network), pixels.reshape(20, -1)))


@pytest.mark.parametrize(
    "sized",
    [
        ((2, 2), 2, (1,), False),
        ((3, 8, 8), 1000, (31, 33, 1), False),
        ((28, 28), 11, (1000,), False),
        ((1, 8, 8), 2, (1, 31), True),
        ((3, 12, 12), 12, (33,), True),
    ],
    ids=str,
)
def test_networks_of_any_size_are_computed_the_same(sized):
    from bnnlib.export.onnx import model

    shape = sized[0]
    network = sized_network(*sized)
    pixels = np.random.default_rng(0).integers(256, size=(6, *shape), dtype=np.uint8)
    exported = convert(network, "n", shape)
    inner = [f"bits_{number + 1}" for number in range(len(exported.hidden))]
    scores, classes, *signs = run(model(exported), pixels, inner)
    found = ([np.moveaxis(each > 0, 1, -1) for each in signs], scores, classes)
    assert same(found, expected(packed.pack(network, shape), pixels.reshape(6, -1)))


def test_the_file_keeps_weights_packed_and_is_written_by_the_command_line(tmp_path):
    network = random_network("mlp", (512, 512), Normalization.EXACT)
    shape = {"network": "mlp", "hidden": [512, 512], "dense": 0}
    shape |= {"activations": "deterministic", "batch_norm": "exact"}
    path = tmp_path / "small.safetensors"
    path.write_bytes(network_file.save_network(network, shape))
    target = tmp_path / "small.onnx"
    assert main([str(path), "--onnx", "--output", str(target)]) == 0
    made = onnx.load(target)
    tables = 4 * 10 * 513 + 4 * 2 * 512
    assert target.stat().st_size < (784 * 512 + 512 * 512 + 10 * 512) / 8 + tables + 8000
    assert {node.domain for node in made.graph.node} == {""}  # standard operators alone
    pixels = images(network, 5).numpy()
    scores, classes = run(made, pixels)
    assert np.array_equal(scores, packed.pack(network)(images(network, 5)).numpy())
    assert np.array_equal(classes, scores.argmax(1))
