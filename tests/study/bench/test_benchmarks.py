"""The plain networks of the training benchmark compute what this study's networks compute."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks import (
    bench_export,
    bench_page,
    bench_pictures,
    bench_playground,
    bench_rules,
    bench_training,
    plain,
)
from bnnlib import models
from study import ROOT, bench, recipes
from study.train import build, eager, runs


def twins(name: str) -> tuple[nn.Sequential, nn.Sequential]:
    """(plain, ours) with the same numbers in every parameter, dropout off."""
    ours = build.build_network(bench_training.RECIPES[name], 0)
    theirs = plain.mlp() if name == "mlp" else plain.convnet()
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        other.data.copy_(own)
    for layer in [*ours.modules(), *theirs.modules()]:
        if hasattr(layer, "rate") or isinstance(layer, nn.Dropout):
            layer.rate = layer.p = 0.0
        if getattr(layer, "inputs", "") == "dropped":
            layer.inputs = models.InputValues.SIGNS
    return theirs, ours


@pytest.mark.parametrize("name", bench_training.RECIPES)
def test_both_sides_have_the_same_loss_and_gradients(name):
    theirs, ours = twins(name)
    ((images, labels),) = bench_training.batches(name, 1, "cpu")
    images, labels = images[:8], labels[:8]
    loss = eager.squared_hinge(ours(images), labels)
    loss.backward()

    class Still:
        """An optimizer that leaves the network alone."""

        zero_grad = step = lambda self: None

    other = plain.step(theirs, Still(), images, labels)
    torch.testing.assert_close(loss.detach(), other, rtol=1e-4, atol=0)
    for own, twin in zip(ours.parameters(), theirs.parameters(), strict=True):
        scale = twin.grad.abs().max().item()
        assert (own.grad - twin.grad).abs().max().item() <= 1e-4 * scale + 1e-7


def test_both_sides_scale_their_updates_alike():
    network = plain.convnet()
    rates = [group["lr"] for group in plain.adam(network, 1.0).param_groups]
    ours = build.build_network(recipes.CIFAR10_THEANO, 0)
    scales = [layer.update_scale for layer in models.binary_layers(ours).values()]
    assert rates[:-1] == pytest.approx(scales) and rates[-1] == 1.0


def test_it_times_both_sides_and_leaves_its_table(tmp_path, monkeypatch, capsys):
    tiny = recipes.at_profile(recipes.MNIST_THEANO, "smoke")
    monkeypatch.setattr(bench_training, "RECIPES", {"mlp": tiny})
    monkeypatch.setattr(bench, "ROOT", tmp_path)

    def in_a_process(side, name, steps, kept):
        seconds = {("ours", True): 0.125, ("ours", False): 0.1, ("plain", True): 0.3}
        return {"seconds": [seconds.get((side, kept), 0.4)] * steps, "peak_mb": 9 + kept}

    monkeypatch.setattr(bench_training, "in_a_process", in_a_process)
    monkeypatch.setattr("sys.argv", ["bench_training", "--rounds", "1", "--steps", "3"])
    assert bench_training.main() == 0
    assert "ours over the fastest plain one: 3.00 x; memory 1.00 x" in capsys.readouterr().out
    (measured,) = bench.committed("training").values()
    told = "python -m benchmarks.bench_training --rounds 1 --steps 3"
    assert measured["provenance"]["command"] == told
    rows = measured["rows"]
    assert [(row["side"], row["memory_kept"]) for row in rows] == [
        ("plain", False), ("plain", True), ("ours", False), ("ours", True)
    ]  # fmt: skip


def test_a_measurement_is_of_real_steps(monkeypatch):
    tiny = recipes.at_profile(recipes.MNIST_THEANO, "smoke")
    monkeypatch.setattr(bench_training, "RECIPES", {"mlp": tiny})
    result = bench_training.measure("ours", "mlp", 2, "cpu")
    assert len(result["seconds"]) == 2 and min(result["seconds"]) > 0 and result["peak_mb"] > 10


def test_old_and_new_rules_are_timed_in_turn_and_leave_their_table(tmp_path, monkeypatch, capsys):
    asked = []

    def measure(checkout, name, profile, steps):
        asked.append((checkout == ROOT, name, profile))
        return [0.1 if checkout == ROOT else 0.4] * steps

    monkeypatch.setattr(bench_rules, "check_out", lambda commit, folder: None)
    monkeypatch.setattr(bench_rules, "measure", measure)
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["bench_rules", "0123456", "--rounds", "2", "--steps", "3"])
    assert bench_rules.main() == 0
    names = [recipe.name for recipe in bench_rules.PAPER]
    assert asked == [(new, name, "paper") for name in names for new in (False, True) * 2]
    (measured,) = bench.committed("rules").values()
    assert measured["commit"] == "0123456"
    told = "python -m benchmarks.bench_rules 0123456 --rounds 2 --steps 3"
    assert measured["provenance"]["command"] == told
    assert [(row["recipe"], row["steps"], row["ratio"]) for row in measured["rows"]] == [
        (name, 6, pytest.approx(0.25)) for name in names
    ]
    assert capsys.readouterr().out.count(": 0.25\n") == 3


def test_quick_s_shift_based_recipes_are_printed_and_kept_nowhere(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_rules, "check_out", lambda commit, folder: None)
    monkeypatch.setattr(bench_rules, "measure", lambda *_: [0.1, 0.2, 0.3])
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["bench_rules", "0123456", "--profile", "quick"])
    assert bench_rules.main() == 0
    out = capsys.readouterr().out
    wanted = {"mnist-torch7", "shift-both", "shift-adamax-printed", "gaps-cifar10-shift"}
    assert wanted <= {line.split()[0] for line in out.splitlines()}
    assert "shift-baseline" not in out and "svhn" not in out
    assert not list(tmp_path.iterdir())


def test_the_steps_of_old_and_new_rules_are_real_ones():
    assert min(bench_rules.measure(ROOT, "mnist-torch7", "smoke", 2)) > 0


def test_training_s_file_so_far_is_there_when_it_is_cut_off(monkeypatch, tmp_path):
    def in_a_process(side, name, steps, kept):
        if name == "convnet":
            raise KeyboardInterrupt
        return {"seconds": [0.1, 0.1, 0.1], "peak_mb": 1.0}

    monkeypatch.setattr(bench_training, "in_a_process", in_a_process)
    monkeypatch.setattr(bench, "path", lambda kind, what: tmp_path / f"{what}.json")
    monkeypatch.setattr("sys.argv", ["bench_training", "--rounds", "1"])
    with pytest.raises(KeyboardInterrupt):
        bench_training.main()
    rows = runs.read_record(tmp_path / "training.json.partial")["rows"]
    assert {row["network"] for row in rows} == {"mlp"}
    assert {row["memory_kept"] for row in rows} == {False, True}
    assert len(bench_training.compare("mlp", 1, 1, "cuda")) == 2  # nothing is kept by a GPU


def recorded(benchmark, out, monkeypatch) -> str:
    """The command in the record that a benchmark leaves there."""
    name = benchmark.__name__.rpartition(".")[2]
    monkeypatch.setattr("sys.argv", [name, "--output", str(out)])
    assert benchmark.main() == 0
    return runs.read_record(out)["provenance"]["command"]


def test_the_exported_c_s_times_name_their_command(tmp_path, monkeypatch):
    call = lambda image: torch.zeros(1, 10)  # noqa: E731
    images = torch.zeros(1, 28, 28, dtype=torch.uint8).numpy()
    threads = torch.get_num_threads()
    monkeypatch.setattr(bench_export.data, "load", lambda _: SimpleNamespace(test_images=images))
    monkeypatch.setattr(bench_export.packed, "load", lambda _: call)
    monkeypatch.setattr(bench_export, "read", lambda _: SimpleNamespace(name="tiny", bits=8))
    monkeypatch.setattr(bench_export, "Library", lambda *_: call)
    monkeypatch.setattr(bench_export, "differing", lambda *_: 0)
    monkeypatch.setattr(bench_export, "compare", lambda *_: [])
    monkeypatch.setattr(bench_export, "show", lambda _: None)
    out = tmp_path / "export.json"
    told = recorded(bench_export, out, monkeypatch)
    torch.set_num_threads(threads)
    assert told == f"python -m benchmarks.bench_export --output {out}"


def test_a_page_s_times_name_their_command(tmp_path, monkeypatch):
    move = {"answered": 1.0, "shown": 2.0, "changed": True}
    monkeypatch.setattr(bench_page, "PATH", "chromium")
    monkeypatch.setattr(bench_page, "measure", lambda *_: [move] * 30)
    out = tmp_path / "page.json"
    told = recorded(bench_page, out, monkeypatch)
    assert told == f"python -m benchmarks.bench_page --output {out}"


def test_the_times_of_pictures_name_their_command(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_pictures, "measure", lambda *_: {})
    monkeypatch.setattr(bench_pictures, "large", lambda: None)
    out = tmp_path / "pictures.json"
    told = recorded(bench_pictures, out, monkeypatch)
    assert told == f"python -m benchmarks.bench_pictures --output {out}"


def test_the_playground_s_times_name_their_command(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_playground, "PATH", "chromium")
    monkeypatch.setattr(bench_playground, "measure", lambda moves: [1.0] * moves)
    monkeypatch.setattr(bench_playground, "ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["bench_playground", "--moves", "30"])
    assert bench_playground.main() == 0
    record = runs.read_record(tmp_path / "results" / "bench" / "playground-cpu.json")
    assert record["provenance"]["command"] == "python -m benchmarks.bench_playground --moves 30"
