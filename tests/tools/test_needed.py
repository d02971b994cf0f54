"""What is trained beforehand is what the notebooks ask for."""

import matplotlib
import nbformat
import pytest
import torch

from study import recipes
from study.train import runner
from tools import needed, run_notebooks

PATHS = {path.stem: path for path in run_notebooks.find()}


def sources(notebook: str) -> list[str]:
    cells = nbformat.read(PATHS[notebook], 4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


@pytest.fixture
def still(tmp_path, monkeypatch):
    """Cells may be executed here: what they save goes to a folder, what they set is set back."""
    monkeypatch.setenv("BNN_RESULTS", str(tmp_path))
    threads, backend = torch.get_num_threads(), matplotlib.get_backend()
    matplotlib.use("agg")
    yield
    torch.set_num_threads(threads)
    matplotlib.use(backend)


@pytest.mark.parametrize("notebook", needed.SEEDS)
def test_a_notebook_asks_for_the_seeds_that_are_listed(notebook, monkeypatch, still):
    """Its cells are executed up to the last one that asks, with nothing trained."""
    asked: dict[str, int] = {}

    def obtain(recipe, profile, seeds, retrain):
        if retrain and seeds:
            asked[recipe.name] = max(seeds, asked.get(recipe.name, 0))
        return []

    monkeypatch.setattr(runner, "obtain", obtain)
    first, *others = sources(notebook)
    names: dict = {}
    exec(first, names)
    names |= run_notebooks.parameters(PATHS[notebook], "smoke", True)
    given = {name: value for name, value in names.items() if name != "__builtins__"}
    last = max(place for place, source in enumerate(others) if "obtain(" in source)
    for source in others[: last + 1]:
        exec(source, names)
    listed: dict[str, int] = {}
    for recipe, seed in needed.needed("smoke", {notebook: given}):
        listed[recipe.name] = max(seed + 1, listed.get(recipe.name, 0))
    assert listed == asked


@pytest.mark.parametrize("notebook", sorted(PATHS.keys() - needed.SEEDS.keys()))
def test_other_notebooks_train_nothing(notebook):
    assert ", retrain)" not in "".join(sources(notebook))


def test_the_most_seeds_that_any_notebook_wants_come_in_the_order_of_value():
    values = {"04_mnist": {"seeds": 1, "torch7_seeds": 1}, "07_results_table": {"mnist_seeds": 2}}
    pairs = needed.needed("quick", values)
    assert pairs[0] == (recipes.at_profile(recipes.CIFAR10_THEANO, "quick"), 0)
    assert [s for r, s in pairs if r.name == "mnist-theano"] == [0, 1]
    assert [s for _, s in pairs] == sorted(s for _, s in pairs)
    assert not any(r.name.startswith("gradients") for r, _ in pairs)


def test_a_changed_recipe_is_left_to_its_notebook():
    values = {"04_mnist": {"seeds": 1, "torch7_seeds": 1}}
    assert needed.needed("quick", values, {"seeds"}) == needed.needed("quick", values)
    assert needed.needed("quick", values, {"seeds", "epochs"}) == []


@pytest.mark.parametrize("there", [True, False])
def test_house_numbers_are_trained_on_where_they_can_be_had(there, monkeypatch):
    monkeypatch.setattr(needed.runner, "has_data", lambda recipe, profile: there)
    pairs = needed.needed("quick", {"06_svhn": {"seeds": 1}, "04_mnist": {"seeds": 1}})
    house_numbers = {"svhn-no-extra", "svhn-part"} if there else set()
    assert {recipe.dataset for recipe, _ in pairs} == {"mnist"} | house_numbers
