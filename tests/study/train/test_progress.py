"""Training shows its bar in Jupyter, as text, where somebody may look on."""

import io
import sys
from contextlib import redirect_stdout

import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from tqdm import tqdm

from study import ROOT
from study.train import progress

TRAIN = """
from study import recipes
from study.train import runner
_ = runner.run(recipes.at_profile(recipes.MNIST_THEANO, "smoke"), "smoke", 0)
"""


@pytest.mark.parametrize("executed_by_make", [False, True])
def test_a_run_in_jupyter(executed_by_make, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("BNN_RUNS", str(tmp_path))
    monkeypatch.delenv("BNN_COMMAND", raising=False)
    if executed_by_make:
        monkeypatch.setenv("BNN_COMMAND", "make reproduce")
    notebook = new_notebook(cells=[new_code_cell(TRAIN)])
    patience = {"startup_timeout": 300, "iopub_timeout": 300}
    NotebookClient(notebook, kernel_name="python3", **patience).execute()
    outputs = notebook.cells[0].outputs
    assert {output.get("name") for output in outputs} == {"stdout"}  # text alone, no widget
    text = "".join(output.text for output in outputs)
    ended = text.rstrip().rpartition("\r")[2]
    assert ("mnist-theano seed 0: 100%|" in ended) != executed_by_make
    assert ("mnist-theano epoch 1/" in text) == executed_by_make
    assert "validation error" in ended


def test_steps_have_a_bar_on_a_terminal_alone(monkeypatch):
    for is_terminal in (True, False):
        screen = io.StringIO()
        screen.isatty = lambda answer=is_terminal: answer
        monkeypatch.setattr(sys, "stderr", screen)
        assert list(progress.steps([1, 2], "counting")) == [1, 2]
        assert ("counting:   0%|" in screen.getvalue()) == is_terminal


def test_elsewhere_standard_error_stays_as_it_is():
    before = sys.stderr
    with redirect_stdout(io.StringIO()) as printed, progress.shown():
        assert sys.stderr is before
        with tqdm(total=1, disable=not sys.stderr.isatty()) as bar:
            bar.update()
    assert printed.getvalue() == ""
