"""Whatever a run of `--all` fails of, the others are trained."""

import pytest
import torch

from study import recipes
from study.train import backlog, runner, runs


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB"), "CUDA out of"),
        (RuntimeError("cuDNN error"), "cuDNN error\n"),
        (MemoryError(), "MemoryError\n"),  # Python's gives no reason
    ],
)
def test_a_run_that_finds_no_memory_does_not_keep_the_others_from_training(
    problem, reason, tmp_path, monkeypatch, capsys
):
    def fail_on_mnist(recipe, *_):
        if recipe.name == "mnist-theano":
            raise problem
        return {"test_error": 1.0}

    monkeypatch.setattr(runs, "FRESH", tmp_path)
    monkeypatch.setattr(recipes, "RECIPES", (recipes.GRADIENTS_BASELINE, recipes.MNIST_THEANO))
    monkeypatch.setattr(backlog, "FIRST", ("mnist-theano",))
    monkeypatch.setattr(runner, "run", fail_on_mnist)
    assert backlog.work_through("smoke", 1) == ["mnist-theano seed 0"]
    said = capsys.readouterr()
    assert said.err.startswith(f"mnist-theano seed 0 failed: {reason}")
    assert said.err.count("\n") == 1
    assert said.out == "gradients-baseline seed 0: 1.00 % test error\n"
