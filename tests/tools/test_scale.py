"""docs/scale.md has the estimate that committed runs give."""

from dataclasses import replace

import pytest
from hand_made import record

from study import recipes
from study.recipes import paper
from study.train.runs import read_record
from tools import scale, scale_runs


def test_the_page_has_the_estimate_of_now():
    page = scale.PAGE.read_text("utf-8")
    assert scale.updated(page) == page, "python -m tools.scale"
    with pytest.raises(ValueError, match="needs the lines"):
        scale.updated(page.replace("<!-- runs:end -->", ""))


def rows_of(page):
    """(recipe, profile) -> the cells of its row in the table of runs."""
    lines = page.split("<!-- runs:begin -->")[1].split("<!-- runs:end -->")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[3:]]
    return {(row[0], row[1]): row for row in rows if len(row) > 2}


def test_every_committed_run_of_the_papers_recipes_is_in_the_table():
    """At a profile on one kind of machine there is one row, with what its records say."""
    rows = rows_of(scale.PAGE.read_text("utf-8"))
    folders = [scale_runs.runs.COMMITTED / recipe.name for recipe in paper.PAPER]
    assert rows.keys() == {(f.name, each.name) for f in folders for each in f.glob("*")}
    for path in scale_runs.runs.COMMITTED.glob("mnist-theano/evening/cpu-seed0.json"):
        found, cells = read_record(path), rows["mnist-theano", "evening"]
        shortest = min(epoch["seconds"] for epoch in found["history"])
        assert cells[2] == "the paper's" and cells[4].startswith(f"{shortest:.1f} to ")
        assert cells[6].startswith(f"{shortest * 1000 / 3600:,.3g} to ")
        assert cells[9] == f"{found['test_error'] - 0.96:+.2f}"


def test_hours_of_a_smaller_network_grow_with_the_work_of_an_epoch():
    recipe = recipes.MNIST_TORCH7
    made = record(recipe, "quick", 0, 4.0)
    for epoch, seconds in zip(made["history"], (10.0, 30.0, 20.0), strict=True):
        epoch["seconds"] = seconds
    small = scale_runs.sized(made)
    cells = scale_runs._row(recipe, "quick", [made])
    more = scale_runs.work(replace(recipe, epochs=1)) / scale_runs.work(replace(small, epochs=1))
    shortest, middle = (each * more * recipe.epochs / 3600 for each in (10, 20))
    assert cells[4] == "10.0 to 20.0"
    assert cells[6] == f"about {shortest:,.3g} to {middle:,.3g}" and cells[9] == "+2.60"
    assert f"{more:.3g} times" in cells[2]


def test_what_rests_on_very_small_networks_is_called_a_guess(monkeypatch):
    recipe = recipes.MNIST_THEANO
    monkeypatch.setattr(scale, "GROUPS", {"one": (recipe,)})
    connections = scale.connections(recipe)
    for run, told in ((connections, []), (connections // 200, ["100 of the 400 core-hours"])):
        rate = scale.Rate(recipe.name, "quick", run, 36000 / scale.work(recipe), "")
        monkeypatch.setattr(scale, "rate_of", lambda _, rate=rate: rate)
        found = scale._guessed(400.0)
        assert len(found) == 2 * len(told) and all(words in found[1] for words in told)


def test_every_recipe_is_counted_once():
    counted = [recipe for group in scale.GROUPS.values() for recipe in group]
    assert sorted(r.name for r in counted) == sorted(r.name for r in recipes.RECIPES)


def test_work_is_counted_by_hand():
    small = replace(recipes.MNIST_THEANO, hidden=(3, 2, 2), epochs=7, train_images=100)
    connections = 784 * 3 + 3 * 2 + 2 * 2 + 2 * 10
    assert scale.work(small) == connections * 7 * (3 * 100 + 10_000)


def test_hours_are_those_of_a_run_that_was_made_at_this_size():
    (path,) = scale_runs.runs.COMMITTED.glob("mnist-theano-first-epoch/paper/cpu-seed0.json")
    found, recipe = read_record(path), recipes.MNIST_THEANO_FIRST_EPOCH
    made = found["provenance"]
    (own,) = scale.rates(recipe.name)
    assert own.seconds * scale.work(recipe) == pytest.approx(made["seconds"] * made["threads"])
    assert scale.hours(recipe, own) * 3600 == pytest.approx(made["seconds"] * made["threads"])
