"""The live line of a notebook that is being executed, and what a notebook is expected to take."""

import io
import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from tqdm import tqdm

from study import recipes
from study.train import progress
from tools import costs
from tools.run_notebooks import Outcome
from tools.status import Status


class Terminal(io.StringIO):
    def isatty(self):
        return True


def follow(output, monkeypatch, expected=0):
    """Ten seconds into a notebook of two cells it prints two lines; -> the log, the screen."""
    monkeypatch.setattr("sys.stdout", output)
    log = io.StringIO()
    with Status("04_mnist", log, expected) as status:
        status.bar._time = lambda: getattr(status.bar, "start_t", 0) + 10
        status.begin(new_notebook(cells=[new_code_cell(), new_code_cell()]))
        status.begin_cell(cell=new_code_cell(), cell_index=0)
        status._draw()
        status.write("mnist epoch 1/3\nmnist epoch 2/3, 7 s left\n")
        status.flush()
    return log.getvalue(), output.getvalue()


def test_without_a_terminal_the_log_is_kept_and_nothing_shown(monkeypatch):
    kept, shown = follow(io.StringIO(), monkeypatch, expected=60)
    assert kept == "mnist epoch 1/3\nmnist epoch 2/3, 7 s left\n" and shown == ""


def test_a_terminal_shows_the_cell_then_what_it_printed_last_and_is_cleared(monkeypatch):
    kept, shown = follow(Terminal(), monkeypatch)
    assert kept.endswith("7 s left\n")
    assert "04_mnist 00:10, cell 1 of 2" in shown
    assert "04_mnist 00:10, mnist epoch 2/3, 7 s left" in shown
    assert shown.endswith("\r") and not shown.rstrip("\r").rpartition("\r")[2].strip()


def test_time_left_is_shown_until_it_is_used_up(monkeypatch):
    assert " 00:10<00:50, mnist epoch 2/3" in follow(Terminal(), monkeypatch, 60)[1]
    overdue = follow(Terminal(), monkeypatch, 5)[1].rpartition("mnist epoch")[0]
    assert "00:10, cell 1 of 2" in overdue and "00:10<" not in overdue


def test_costs_are_noted_here_or_else_those_of_the_committed_page(tmp_path, monkeypatch):
    monkeypatch.setattr(costs, "TIMINGS", tmp_path / "timings")
    monkeypatch.setattr(costs.site, "COMMITTED", tmp_path)
    assert costs.expected("quick", "04_mnist") == 0
    page = new_notebook(metadata={"execution": {"seconds": 72.0}})
    (tmp_path / "quick").mkdir()
    nbformat.write(page, tmp_path / "quick" / "04_mnist.ipynb")
    assert costs.expected("quick", "04_mnist") == 72
    costs.note("quick", Outcome("04_mnist", 33.33, 1.234))
    costs.note("quick", Outcome("05_cifar10", 1, 1))
    assert costs.expected("quick", "04_mnist") == 33.3
    noted = json.loads((tmp_path / "timings" / "quick.json").read_bytes())
    assert noted["04_mnist"] == {"seconds": 33.3, "peak_memory_gb": 1.23} and len(noted) == 2


def test_of_an_epoch_the_time_left_is_shown_before_anything_else(monkeypatch, capsys):
    history = [{"epoch": 1, "train_loss": 0.5, "validation_error": 9.0, "seconds": 4.0}]
    recipe = recipes.MNIST_THEANO
    progress.show_epoch(tqdm(disable=True), history, recipe.name, recipe.epochs)
    line = capsys.readouterr().out
    monkeypatch.setattr("sys.stdout", Terminal())
    with Status("04_mnist", io.StringIO()) as status:
        status.write(line)
        epochs = recipe.epochs
        assert status.bar.postfix == f"mnist-theano epoch 1/{epochs}, {4 * (epochs - 1)} s left"


@pytest.mark.parametrize("text", ["", "\n", "  \n"])
def test_blank_output_leaves_the_last_words(text, monkeypatch):
    monkeypatch.setattr("sys.stdout", Terminal())
    with Status("04_mnist", io.StringIO()) as status:
        status.write("said")
        status.write(text)
        assert status.bar.postfix == "said"
