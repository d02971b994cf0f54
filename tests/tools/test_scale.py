"""docs/scale.md has the estimate that committed runs give."""

from dataclasses import replace

import pytest

from study import recipes
from study.train.runs import read_record
from tools import scale


def test_the_page_has_the_estimate_of_now():
    page = scale.PAGE.read_text("utf-8")
    assert scale.updated(page) == page, "python -m tools.scale"
    with pytest.raises(ValueError, match="needs the lines"):
        scale.updated(page.replace(scale.END, ""))


def test_every_recipe_is_counted_once():
    counted = [recipe for group in scale.GROUPS.values() for recipe in group]
    assert sorted(r.name for r in counted) == sorted(r.name for r in recipes.RECIPES)


def test_work_is_counted_by_hand():
    small = replace(recipes.MNIST_THEANO, hidden=(3, 2, 2), epochs=7, train_images=100)
    connections = 784 * 3 + 3 * 2 + 2 * 2 + 2 * 10
    assert scale.work(small) == connections * 7 * (3 * 100 + 10_000)


def test_hours_are_those_of_a_run_that_was_made_at_this_size():
    (path,) = scale.runs.COMMITTED.glob("mnist-theano-first-epoch/paper/cpu-seed0.json")
    record, recipe = read_record(path), recipes.MNIST_THEANO_FIRST_EPOCH
    made = record["provenance"]
    (own,) = scale.rates(recipe.name)
    assert own.seconds * scale.work(recipe) == pytest.approx(made["seconds"] * made["threads"])
    assert scale.hours(recipe, own) * 3600 == pytest.approx(made["seconds"] * made["threads"])
