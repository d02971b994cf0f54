"""The benchmark times what it says, checks every result, and what is committed of it is whole."""

import json

import numpy as np
import pytest
import torch

from benchmarks import bench_peer, peer
from bnnlib import folding
from bnnlib.kernels import reference
from bnnlib.kernels.cpu import processor
from study import ROOT, bench, recipes
from study.bench import __main__ as command
from study.bench import baselines, networks, plain_kernels, products, timing
from study.bench.timing import Implementation, compare
from study.train import provenance, runs

TINY = bench.Plan((33, 64), (1, 16), 65, (17, 1), (2,), "smoke", 0.0)
COMMITTED = sorted((ROOT / "results" / "bench").glob("*.json"))
KEYS = {"what", "kind", "implementation", "output", "packing", "threads", "ms", "repeats", "exact"}


@pytest.fixture(scope="module")
def measured() -> dict:
    return bench.run(TINY, "cpu")


def named(rows: list[dict], implementation: str) -> list[dict]:
    return [row for row in rows if row["implementation"] == implementation]


def check_rows(rows: list[dict]) -> None:
    for row in rows:
        assert row.keys() >= KEYS
        assert 0 < row["ms"]["p20"] <= row["ms"]["p50"] <= row["ms"]["p80"]
        assert row["repeats"] >= 1 and row["threads"] >= 1


def test_rows_have_their_entries_and_are_exact(measured):
    check_rows(measured["rows"])
    for row in measured["rows"]:
        if "bfloat16" not in row["implementation"]:  # its numbers may need more bits
            assert row["exact"] is (None if row["implementation"].startswith("bound") else True)
        assert (row["kind"] == "matmul") == ("k" in row) == ("same_classes" not in row)


def test_every_side_is_there(measured):
    sides = {row["implementation"] for row in measured["rows"] if row["kind"] == "matmul"}
    assert sides >= {"ours", "plain float32", "plain on words", "torch float32", "NumPy float32"}
    assert sides >= {"torch bfloat16", "torch int8", "ours, the kernel alone"}
    for name in ("ours", "ours, the kernel alone", "torch float32"):
        own = named(measured["rows"], name)
        assert {row["threads"] for row in own} == {1, torch.get_num_threads()}
    shapes = {row["what"] for row in measured["rows"] if row["kind"] == "matmul"}
    assert {row["what"] for row in named(measured["rows"], "ours, the kernel alone")} == shapes
    ours = {(row["output"], row["packing"]) for row in named(measured["rows"], "ours")}
    assert ours >= {("int32", False), ("int32", True), ("bits", False), ("bits", True)}
    assert {"mlp", "convnet"} <= {row["kind"] for row in measured["rows"]}
    assert measured["processor"]["cores"] >= 1 and measured["processor"]["path"]


def test_a_wrong_product_is_not_exact(monkeypatch):
    real = products.xnor_matmul
    monkeypatch.setattr(products, "xnor_matmul", lambda *given: real(*given) + 1)
    rows = products.matmul_rows(5, 70, 66, 0.0, "cpu")
    assert [row["exact"] for row in named(rows, "ours")] == [False] * len(named(rows, "ours"))
    assert all(row["exact"] for row in named(rows, "torch float32"))


def test_a_wrong_network_is_not_exact(monkeypatch):
    real = networks.packed.pack
    monkeypatch.setattr(networks.packed, "pack", lambda network: lambda x: -real(network)(x))
    rows = networks.network_rows(recipes.MNIST_THEANO, 4, "smoke", 0.0, "cpu")
    (ours,), (other,) = named(rows, "ours"), named(rows, "torch float32")
    assert not ours["exact"] and ours["same_classes"] < 1
    assert other["exact"] and other["same_classes"] == 1


def test_the_median_is_of_the_fastest_as_numbers_on_all_threads():
    def row(implementation, ms, threads=2, output="int32", packing=False):
        own = {"what": "a", "implementation": implementation, "output": output}
        return own | {"packing": packing, "threads": threads, "ms": {"p50": ms}}

    rows = [row("x", 5), row("y", 4), row("x", 1, threads=1), row("x", 2, output="bits")]
    rows += [row("x", 3, packing=True)]
    assert timing.milliseconds(rows, "a", "x", "y") == 4
    assert timing.milliseconds(rows, "a", "z") is None
    assert timing.milliseconds(rows, "b", "x") is None


def test_the_command_leaves_a_whole_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(bench.PLANS, "quick", bench.Plan((33,), (), 0, (), (), "smoke", 0.0))
    out = tmp_path / "kernels.json"
    assert command.main(["--plan", "quick", "--out", str(out)]) == 0
    content = runs.read_record(out)
    check_rows(content["rows"])
    assert content["provenance"]["device"] == "cpu" and content["provenance"]["seconds"] > 0
    assert "33x33x33" in capsys.readouterr().out

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(products, "matmul_rows", interrupted)
    with pytest.raises(KeyboardInterrupt):
        command.main(["--plan", "quick", "--out", str(out)])
    assert runs.read_record(out) == content and list(tmp_path.iterdir()) == [out]


def test_one_size_is_kept_in_a_file_of_its_own_that_names_the_command(tmp_path, monkeypatch):
    measured = []

    def run(plan, *_):
        measured.append((plan.squares, plan.rows, plan.mlp, plan.convnet))
        return {"schema": runs.SCHEMA, "provenance": {}, "rows": []}

    monkeypatch.setattr(command, "run", run)
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    only = ["--plan", "quick", "--only", "squares", "512"]
    assert command.main([*only, "--out", str(tmp_path / "own.json")]) == 0
    assert measured == [((512,), (), (), ())]
    told = runs.read_record(tmp_path / "own.json")["provenance"]["command"]
    assert told == "python -m study.bench --plan quick --only squares 512 --out own.json"
    assert list(tmp_path.iterdir()) == [tmp_path / "own.json"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--only", "squares", "512"], "say with --out where"),
        (["--only", "foo", "64", "--out", "f"], "KIND is one of squares, rows, mlp, convnet, not"),
        (["--only", "width", "64", "--out", "f"], "KIND is one of squares, rows, mlp, convnet, n"),
        (["--only", "rows", "0", "--out", "f"], "SIZE is a positive whole number, not 0"),
        (["--only", "rows", "many", "--out", "f"], "SIZE is a positive whole number, not many"),
    ],
)
def test_what_can_not_be_timed_is_refused_in_a_sentence(arguments, sentence, monkeypatch, capsys):
    monkeypatch.setattr(command, "run", lambda *_: pytest.fail("measured"))
    with pytest.raises(SystemExit, match="2"):
        command.main(arguments)
    assert sentence in capsys.readouterr().err


def test_sides_take_turns_and_threads_are_put_back():
    called, before = [], torch.get_num_threads()
    note = lambda name: called.append((name, torch.get_num_threads()))  # noqa: E731
    sides = [
        Implementation(name, "int32", lambda name=name: note(name), n)
        for name, n in (("a", 1), ("b", before))
    ]
    rows = compare(sides, lambda timed, result: {"exact": True}, 1e-9, "cpu")
    assert [row["repeats"] for row in rows] == [3, 3]  # however short, longer than their share
    assert called[:2] == [("a", 1), ("b", before)] and set(called) == set(called[:2])
    called.clear()
    rows = compare(sides, lambda timed, result: {"exact": True}, 0.02, "cpu")
    changes = sum(one != other for one, other in zip(called, called[1:], strict=False))
    assert changes == 2 * (1 + rows[0]["repeats"]) - 1
    assert torch.get_num_threads() == before


def test_of_a_call_that_takes_long_the_first_counts(monkeypatch):
    called = []
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(clock)))
    side = Implementation("slow", "int32", lambda: called.append(1), 1)
    (row,) = compare([side], lambda timed, result: {}, 1.0, "cpu")
    assert len(called) == row["repeats"] == 3
    assert row["ms"] == {"p20": 10_000, "p50": 10_000, "p80": 10_000}


@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (16, 16, 64), (17, 33, 1025), (40, 7, 130)])
def test_the_plain_kernel_equals_the_reference(m, n, k):
    generator = torch.Generator().manual_seed(0)
    x, w = (products.signs(rows, k, generator) for rows in (m, n))
    words = reference.pack_signs(x), reference.pack_signs(w)
    wanted = reference.xnor_matmul(words[0], [words[1]], (n, k), None).numpy()
    assert np.array_equal(plain_kernels.multiply_float(x.numpy(), w.numpy()), wanted)
    found = plain_kernels.multiply_words(words[0].numpy(), words[1].numpy(), k)
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("recipe", [recipes.MNIST_THEANO, recipes.CIFAR10_THEANO])
def test_the_float_network_gives_the_references_scores(recipe):
    network = baselines.network_for(recipe, "smoke")
    shape = (28, 28) if recipe.network == "mlp" else (3, 32, 32)
    images = torch.randint(0, 256, (9, *shape), dtype=torch.uint8)
    *hidden, scores = folding.reference(network, images)
    assert all(layer.mean().abs() < 0.9 for layer in hidden)  # no network of constants
    run = baselines.float_network(folding.blocks(network), baselines.DEFAULT, baselines.DEFAULT)
    assert torch.equal(run(images), scores)


def test_the_bound_takes_a_time_that_grows_with_the_work():
    plain_kernels.run_bound(64, 64, 64)  # compiles
    short, long = (
        min(
            timing.seconds_of(lambda m=m: plain_kernels.run_bound(m, 1024, 1024), 1, "cpu")
            for _ in "123"
        )
        for m in (4096, 32 * 4096)
    )
    assert long > 8 * short > 0


def test_both_sides_of_the_peer_benchmark_have_the_same_operands():
    x, w = peer.operands(3, 5, 70)
    assert x.shape == (3, 70) and w.shape == (5, 70) and set(np.unique(x)) == {-1.0, 1.0}
    assert np.array_equal(x, peer.operands(3, 5, 70)[0])
    sums = x @ w.T
    assert peer.digest(sums) == peer.digest(sums.astype(np.int64)) != peer.digest(sums + 1)


def test_the_peer_is_timed_in_turn_with_ours(monkeypatch):
    monkeypatch.setattr(bench_peer, "ROUNDS", 2)
    orders = []

    def ask(process, **order):
        orders.append(order)
        return "another result" if "shape" in order else 0.02

    monkeypatch.setattr(bench_peer, "ask", ask)
    before = torch.get_num_threads()
    rows = bench_peer.rows((16, 64, 64), None, before)
    torch.set_num_threads(before)
    check_rows(rows)
    assert all(row["exact"] for row in named(rows, "ours"))
    theirs = named(rows, bench_peer.PEER)
    assert [row["ms"]["p50"] for row in theirs] == [20.0] * len(theirs)
    assert not any(row["exact"] for row in theirs)
    assert len(orders) == 1 + len(theirs) * (1 + bench_peer.ROUNDS)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_a_committed_benchmark_is_whole_and_of_committed_sources(path):
    content = json.loads(path.read_text())
    assert not content["provenance"]["dirty"]
    if path.stem.startswith("training"):
        return
    assert runs.read_record(path) == content
    if path.stem.startswith("playground"):
        assert 0 < content["ms"]["p50"] <= content["ms"]["most"] and content["moves"] >= 30
        return
    if path.stem.startswith("rules"):
        assert all(row["ratio"] == row["new_ms"] / row["old_ms"] for row in content["rows"])
        return
    if path.stem.startswith("export"):
        assert all(row["exact"] and row["ms"]["p50"] > 0 for row in content["rows"])
        return
    if path.stem.startswith("pictures"):
        assert all(row["skipped"] == 0 < row["seconds"] for row in content["rows"])
        return
    if path.stem.startswith("page"):
        assert content["moves"] > 0 and all(ms["p50"] > 0 for ms in content["ms"].values())
        return
    if path.stem.startswith("cluster"):
        assert content["gain"] > 0 and all(min(row["seconds"]) > 0 for row in content["rows"])
        return
    check_rows(content["rows"])
    inexact = {row["implementation"] for row in content["rows"] if row["exact"] is False}
    assert inexact <= {"torch bfloat16"}


@pytest.mark.parametrize(
    ("features", "quick"),
    [
        ("+avx2,+fma", []),
        ("+avx512f,-amx-int8,+avx512vnni", ["torch int8"]),
        ("+avx512bf16,-avx512vnni", ["torch bfloat16"]),
        ("+amx-int8,+amx-bf16", ["torch bfloat16", "torch int8"]),
    ],
)
def test_large_products_are_timed_in_the_types_that_a_processor_multiplies(
    features, quick, monkeypatch
):
    monkeypatch.setattr(processor, "target", lambda: ("", "", features))
    monkeypatch.setattr(products, "MOST_EMULATED", 0)
    found = {way.name for way in products._others(torch.ones(2, 64), torch.ones(3, 64))}
    assert found & {"torch bfloat16", "torch int8"} == set(quick)


def test_what_was_measured_here_stands_beside_the_committed(measured, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "results_folder", lambda: tmp_path)
    assert bench.here() == {}
    runs.write_record(tmp_path / "bench" / "kernels-cpu.json", measured)
    assert bench.here()["cpu, here"]["rows"] == measured["rows"]
    assert not bench.here().keys() & bench.committed().keys()


@pytest.mark.parametrize(
    ("device", "told"),
    [
        ("Intel(R) Xeon(R) Processor @ 2.80GHz", "Intel Xeon (some-model)"),
        ("Intel(R) Core(TM) i7-8700K CPU @ 3.70GHz", "Intel Core i7-8700K (some-model)"),
        ("AMD EPYC 7763 64-Core Processor", "AMD EPYC 7763 (some-model)"),
        ("NVIDIA H200", "NVIDIA H200 (some-model)"),
    ],
)
def test_a_device_is_named_without_what_its_vendor_adds(device, told):
    measured = {"provenance": {"device_name": device}, "processor": {"model": "some-model"}}
    assert bench.label(measured) == told


def test_every_processor_that_was_measured_is_named_by_its_generation():
    models = {file["processor"].get("model") for file in bench.committed().values()} - {None}
    assert models and models <= bench.GENERATIONS.keys()


def test_the_largest_product_in_short(measured):
    assert "64x64x64 on bits took" in bench.in_short(measured)
