from dataclasses import fields, replace

import pytest

from bnnlib import recipes
from bnnlib.binarize import Binarization
from bnnlib.recipes import CIFAR10_THEANO, MNIST_THEANO, RECIPES


def test_names_are_unique():
    assert len({recipe.name for recipe in RECIPES}) == len(RECIPES)


def test_the_float_twin_differs_in_binarization_alone():
    float_recipe = recipes.MNIST_THEANO_FLOAT
    changed = {
        f.name
        for f in fields(float_recipe)
        if getattr(float_recipe, f.name) != getattr(MNIST_THEANO, f.name)
    }
    assert changed == {
        "name",
        "weights",
        "activations",
        "cancel_saturated",
        "clip_weights",
        "glorot_multiplier",
    }
    assert float_recipe.weights is Binarization.NONE


def test_each_gradient_experiment_changes_one_thing():
    several = ("gradients-stochastic-both", "gradients-no-glorot-higher-rate")
    for recipe in (r for r in recipes.GRADIENTS[1:] if r.name not in several):
        same = replace(recipe, name=recipes.GRADIENTS_BASELINE.name)
        differing = [
            f.name
            for f in fields(same)
            if getattr(same, f.name) != getattr(recipes.GRADIENTS_BASELINE, f.name)
        ]
        assert len(differing) == 1, recipe.name


@pytest.mark.parametrize("profile", recipes.PROFILES)
def test_profiles_change_existing_fields_of_existing_recipes(profile):
    for name, changes in recipes.PROFILES[profile].items():
        assert recipes.at_profile(recipes.by_name(name), profile) == replace(
            recipes.by_name(name), **changes
        )
    assert all(recipes.at_profile(r, "paper") == r for r in RECIPES)


def test_gradient_experiments_share_their_scale_in_every_profile():
    for changes in recipes.PROFILES.values():
        scales = [changes.get(recipe.name) for recipe in recipes.GRADIENTS]
        assert all(scale == scales[0] for scale in scales)


def test_the_recipe_table_has_a_source_for_every_field_of_the_papers_recipes():
    described = {f.name for f in fields(MNIST_THEANO)} - {"name", "dataset", "train_images"}
    for recipe in (MNIST_THEANO, CIFAR10_THEANO):
        assert described <= recipes.SOURCES[recipe.name].keys()


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": -1},
        {"epochs": 0},
        {"batch_size": 1},
        {"hidden": ()},
        {"hidden": (8, 0)},
        {"learning_rate": 0.0},
        {"hidden_dropout": 1.0},
        {"network": "transformer"},
        {"dense": 5},
        {"train_images": -1},
    ],
)
def test_impossible_recipes_are_refused_by_name(change):
    with pytest.raises(ValueError, match=rf"mnist-theano: {next(iter(change))}"):
        replace(MNIST_THEANO, **change)


def test_unknown_names_are_refused_with_the_choices():
    with pytest.raises(ValueError, match="smoke, quick, evening, paper"):
        recipes.at_profile(MNIST_THEANO, "fast")
    with pytest.raises(ValueError, match="mnist-theano, "):
        recipes.by_name("mnist")


def test_only_an_unaltered_recipe_is_named():
    quick = recipes.at_profile(MNIST_THEANO, "quick")
    assert recipes.is_named(quick, "quick")
    assert not recipes.is_named(replace(quick, epochs=3), "quick")
    assert not recipes.is_named(quick, "paper")
