"""The GPU benchmark, rehearsed on the CPU: in Triton's interpreter, with calls for graphs."""

from copy import deepcopy

import pytest
import torch

pytest.importorskip(
    "triton", reason="triton is not installed: no GPU kernels", exc_type=ImportError
)
from test_gpu import INTERPRETED, interpret, outside_the_interpreter  # noqa: E402

from bnnlib import kernels, packed, xnor  # noqa: E402
from bnnlib.kernels import gpu, tensor_cores  # noqa: E402
from study import bench, recipes  # noqa: E402
from study.bench import __main__ as command
from study.bench import baselines, gpu_graphs, products, timing  # noqa: E402
from study.train import runs  # noqa: E402


@outside_the_interpreter
def test_in_the_interpreter():
    interpret(__file__)


@pytest.fixture(autouse=True)
def played(monkeypatch):
    """Instead of a graph, the calls themselves."""
    monkeypatch.setattr(gpu_graphs, "recorded", lambda call: call)


def test_a_graph_s_calls_go_over_more_weights_than_a_cache_holds(monkeypatch):
    monkeypatch.setattr(gpu_graphs, "COLD", 1000)
    seen = []
    way = gpu_graphs.Way("ours", "int32", lambda w: w, lambda w: seen.append(w.data_ptr()))
    side = gpu_graphs.implementation(way, torch.zeros(10), torch.clone)
    side.call()
    assert side.calls == len(seen) == 25 and len(set(seen)) == 25  # of 40 bytes each
    large = gpu_graphs.implementation(way, torch.zeros(1000), torch.clone)
    seen.clear()
    large.call()
    assert large.calls == len(seen) == gpu_graphs.FEWEST_CALLS and len(set(seen)) == 1


def test_what_is_told_is_the_time_of_one_of_the_calls():
    row = timing.Implementation("ours", "int32", lambda: None, 1, calls=20).row([0.1, 0.1, 0.1], {})
    assert row["ms"]["p50"] == pytest.approx(5) and row["calls"] == 20


def test_packed_bytes_count_as_what_they_are(monkeypatch):
    w = torch.randn(64, 128)
    assert gpu_graphs.weight_bytes(w) == 4 * gpu_graphs.weight_bytes(w.to(torch.int8))
    assert gpu_graphs.weight_bytes((w, 64)) == w.nbytes
    assert gpu_graphs.weight_bytes(xnor.pack_weights(w)) < w.nbytes / 8
    network = packed.pack(baselines.network_for(recipes.MNIST_THEANO, "smoke"))
    assert gpu_graphs.weight_bytes(network) == network.packed_bytes()


def in_the_interpreter(test):
    """Collect a test where kernels run on CPU tensors."""
    return test if INTERPRETED else None


@in_the_interpreter
@pytest.mark.parametrize(("m", "n", "k"), [(3, 40, 70), (20, 64, 128)])
def test_every_side_is_exact(m, n, k, monkeypatch):
    """The whole of a shape as a GPU would measure it, but for the graph."""
    monkeypatch.setattr(gpu_graphs, "COLD", 1)
    monkeypatch.setattr(gpu_graphs, "FEWEST_CALLS", 2)
    monkeypatch.setattr(tensor_cores, "available", lambda device: True)
    for name in ("pack_signs", "xnor_matmul", "pack_weights"):
        monkeypatch.setattr(gpu_graphs, name, globals()[f"on_gpu_{name}"])
    monkeypatch.setattr(timing, "_finish", lambda device: None)
    moved = torch.Tensor.to
    monkeypatch.setattr(
        torch.Tensor, "to", lambda t, *a: t if a == ("cuda",) else moved(t, *a)
    )
    rows = products.matmul_rows(m, n, k, 0.0, "cuda")
    assert {row["implementation"] for row in rows} >= {
        "ours",
        "ours, popcount",
        "ours, binary tensor cores",
        "torch float32",
        "torch TF32",
        "torch int8",
        "plain float32",
    }
    assert all(row["exact"] for row in rows if row["implementation"] != "torch bfloat16")
    assert all(row["calls"] == 2 for row in rows)


on_gpu_pack_signs = gpu.pack_signs


def on_gpu_pack_weights(w):
    return xnor.PackedWeights(gpu.pack_weights(w), tuple(w.shape))


def on_gpu_xnor_matmul(x, weights, thresholds=None):
    return gpu.xnor_matmul(x, weights.tensors, weights.shape, thresholds)


@outside_the_interpreter
@pytest.mark.skipif(not kernels.compiles(), reason="times the CPU's kernels, which need Numba")
def test_the_file_so_far_is_there_when_a_measurement_is_cut_off(tmp_path, monkeypatch, capsys):
    plan = bench.Plan((33, 34), (), 0, (), (), "smoke", 0.0)
    monkeypatch.setitem(bench.PLANS, "quick", plan)
    real, shapes = products.matmul_rows, []

    def once(m, *rest):
        shapes.append(m)
        if m == 34:
            raise KeyboardInterrupt
        return real(m, *rest)

    monkeypatch.setattr(products, "matmul_rows", once)
    monkeypatch.setattr(bench, "WARM_UP", bench.Plan((), (), 0, (), (), "smoke", 0.0))
    out = tmp_path / "kernels.json"
    with pytest.raises(KeyboardInterrupt):
        command.main(["--plan", "quick", "--out", str(out)])
    assert not out.exists()
    content = runs.read_record(tmp_path / "kernels.json.partial")
    assert {row["what"] for row in content["rows"]} == {"33x33x33"}
    shapes.clear()
    chosen = ["--plan", "quick", "--only", "squares", "33"]
    assert command.main([*chosen, "--out", str(out)]) == 0
    assert runs.read_record(out)["rows"] and list(tmp_path.iterdir()) == [out]
    assert 34 not in shapes


@outside_the_interpreter
def test_networks_are_copied_for_every_set(monkeypatch):
    monkeypatch.setattr(gpu_graphs, "COLD", 1)
    monkeypatch.setattr(gpu_graphs, "FEWEST_CALLS", 2)
    network = baselines.network_for(recipes.MNIST_THEANO, "smoke")
    images = torch.randint(256, (4, 28, 28), dtype=torch.uint8)
    way = gpu_graphs.Way("ours", "scores", packed.pack, lambda bits: bits(images))
    side = gpu_graphs.implementation(way, network, deepcopy)
    assert torch.equal(side.call(), packed.pack(network)(images))
