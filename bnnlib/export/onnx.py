"""A network as an ONNX model, in standard operators, for ONNX Runtime and others.

Weights stay packed in the file, eight to a byte; the model unpacks them, which a runtime does once,
when it loads. Products are of float32 numbers, but all of them are integers below 2^24 in size, so
their sums are exact in whatever order they are added up. Scores come from the table that
`bnnlib.export.network` explains. Needs the package onnx: the extra `onnx`.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bnnlib.export.network import HiddenLayer, SignNetwork, pack_rows
from bnnlib.folding import PIXEL

OPSET = 18  # the first with BitwiseAnd
IR_VERSION = 9  # what runtimes of that time read
BYTE = 8
EXACT = 2**24  # up to here float32 holds every integer


class _Graph:
    """Nodes and stored tensors, as they are added."""

    def __init__(self):
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[TensorProto] = []

    def store(self, name: str, values: np.ndarray) -> str:
        """Add a tensor to the file and return its name."""
        self.stored.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def add(self, operator: str, inputs: list[str], output: str, **attributes) -> str:
        """Add a node with one output and return that output's name."""
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output


def model(network: SignNetwork) -> onnx.ModelProto:
    """A model of `pixels` (batch, *shape) uint8 -> `scores` (batch, classes) float32.

    A second output, `class`, is (batch,) int64. Inside, `bits_1`, `bits_2`, ... are the hidden
    layers' signs, float32 +-1. Raises ValueError where a first layer's sums are larger than float32
    holds exactly.
    """
    terms = network.hidden[0].signs[0].size
    if terms * PIXEL >= EXACT:
        raise ValueError(f"{network.name} sums {terms} pixels, too many to be exact in float32")
    graph = _Graph()
    _store_constants(graph)
    x = _integers(graph)
    for number, layer in enumerate(network.hidden, 1):
        x = _hidden(graph, x, layer, str(number))
    _scores(graph, x, network)
    shape = ["batch", *network.shape]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, shape)
    classes = len(network.last.signs)
    outputs = [
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", classes]),
        helper.make_tensor_value_info("class", TensorProto.INT64, ["batch"]),
    ]
    made = helper.make_graph(graph.nodes, network.name, [pixels], outputs, graph.stored)
    opset = helper.make_opsetid("", OPSET)
    complete = helper.make_model(
        made, opset_imports=[opset], ir_version=IR_VERSION, producer_name="bnnlib.export"
    )
    onnx.checker.check_model(complete, full_check=True)
    return complete


def _store_constants(graph: _Graph) -> None:
    for name, value in {"one": 1, "minus_one": -1, "two": 2, "half": 0.5, "pixel": PIXEL}.items():
        graph.store(name, np.float32(value))
    graph.store("places", np.arange(BYTE, dtype=np.uint8))
    graph.store("lowest", np.uint8(1))


def _integers(graph: _Graph) -> str:
    """The integers 2 p - 255 of all pixels."""
    real = graph.add("Cast", ["pixels"], "real", to=TensorProto.FLOAT)
    doubled = graph.add("Mul", [real, "two"], "doubled")
    return graph.add("Sub", [doubled, "pixel"], "integers")


def _hidden(graph: _Graph, x: str, layer: HiddenLayer, end: str) -> str:
    """The signs that a hidden layer makes of x, named bits_END."""
    shape = (-1, 1, 1) if layer.convolves else (-1,)
    thresholds = layer.thresholds.astype(np.float32).reshape(shape)
    multiply = _convolution if layer.convolves else _product
    sums = multiply(graph, x, layer.signs, end)
    stored = graph.store(f"thresholds_{end}", thresholds)
    reached = graph.add("GreaterOrEqual", [sums, stored], f"reached_{end}")
    signs = [reached, "one", "minus_one"]
    if layer.by_and is None:
        return graph.add("Where", signs, f"bits_{end}")
    return _pool(graph, graph.add("Where", signs, f"signs_{end}"), layer.by_and, end)


def _pool(graph: _Graph, signs: str, by_and: np.ndarray, end: str) -> str:
    """2x2: the largest sign of a window (OR), or for some channels the least (AND)."""
    window = {"kernel_shape": [2, 2], "strides": [2, 2]}
    largest = graph.add("MaxPool", [signs], f"largest_{end}", **window)
    turned = graph.add("Neg", [signs], f"negative_{end}")
    pooled = graph.add("MaxPool", [turned], f"pooled_{end}", **window)
    least = graph.add("Neg", [pooled], f"least_{end}")
    chosen = graph.store(f"by_and_{end}", by_and[:, None, None])
    return graph.add("Where", [chosen, least, largest], f"bits_{end}")


def _product(graph: _Graph, x: str, signs: np.ndarray, end: str) -> str:
    """x (batch, ...), K numbers each, times signs (N, K): the sums (batch, N)."""
    flat = graph.add("Flatten", [x], f"flat_{end}")
    weights = _weights(graph, signs, end)
    turned = graph.add("Transpose", [weights], f"turned_{end}", perm=[1, 0])
    return graph.add("MatMul", [flat, turned], f"sums_{end}")


def _convolution(graph: _Graph, x: str, signs: np.ndarray, end: str) -> str:
    """x (batch, C, H, W) convolved with signs (N, C, 3, 3), zeros around: (batch, N, H, W)."""
    weights = _weights(graph, signs.reshape(len(signs), -1), end)
    shape = graph.store(f"kernel_{end}", np.array(signs.shape))
    kernel = graph.add("Reshape", [weights, shape], f"shaped_{end}")
    return graph.add("Conv", [x, kernel], f"sums_{end}", pads=[1] * 4, kernel_shape=[3, 3])


def _weights(graph: _Graph, signs: np.ndarray, end: str) -> str:
    """Signs (N, K), stored packed, as float32 +-1."""
    n, k = signs.shape
    rows = graph.store(f"rows_{end}", pack_rows(signs, BYTE)[:, :, None])  # (N, bytes, 1)
    shifted = graph.add("BitShift", [rows, "places"], f"shifted_{end}", direction="RIGHT")
    bits = graph.add("BitwiseAnd", [shifted, "lowest"], f"unpacked_{end}")
    shape = graph.store(f"shape_{end}", np.array([n, -1]))
    padded = graph.add("Reshape", [bits, shape], f"padded_{end}")
    bounds = {"start": 0, "stop": k, "axis": 1}  # keep the first k columns
    stored = [graph.store(f"{name}_{end}", np.array([at])) for name, at in bounds.items()]
    exact = graph.add("Slice", [padded, *stored], f"sliced_{end}")
    real = graph.add("Cast", [exact], f"real_{end}", to=TensorProto.FLOAT)
    doubled = graph.add("Mul", [real, "two"], f"doubled_{end}")
    return graph.add("Sub", [doubled, "one"], f"weights_{end}")


def _scores(graph: _Graph, x: str, network: SignNetwork) -> None:
    """Look up the scores by how many signs differ, (K - sum) / 2, and choose the largest."""
    sums = _product(graph, x, network.last.signs, "last")
    k = graph.store("k_last", np.float32(network.last.signs.shape[1]))
    less = graph.add("Sub", [k, sums], "less")
    halved = graph.add("Mul", [less, "half"], "halved")
    differing = graph.add("Cast", [halved], "differing", to=TensorProto.INT64)
    table = graph.store("table", network.last.scores.T)
    graph.add("GatherElements", [table, differing], "scores", axis=0)
    graph.add("ArgMax", ["scores"], "class", axis=1, keepdims=0)
