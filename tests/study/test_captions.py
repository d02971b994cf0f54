"""Findings above captions, from records made by hand."""

import pandas as pd
import pytest
from hand_made import seeds

from study import captions, factorial, recipes

GOOD = (2.0, 2.1, 2.2)  # % on MNIST: networks that work
BASE, WITHOUT = recipes.GRADIENTS_BASELINE, recipes.GRADIENTS_NO_CANCELLATION


def effects(base, other):
    records = seeds(BASE, "evening", *base) + seeds(WITHOUT, "evening", *other)
    return captions.effects(records, BASE.name)


def test_ends_of_curves_are_means_over_seeds_and_lengths_that_differ_are_told():
    records = seeds(recipes.MNIST_THEANO, "evening", 1.0, 2.0)
    told = captions.ends(records)
    assert "Theano 4.5 to 1.5 % (3 epochs, n = 2)" in told
    assert "Lowest at the very end, so perhaps not there yet: Theano." in told
    longer = seeds(recipes.MNIST_TORCH7, "evening", 2.0)
    longer[0]["history"].append(longer[0]["history"][-1] | {"epoch": 4, "validation_error": 5.0})
    told = captions.ends(records + longer)
    assert "The lengths differ, so the ends don't compare." in told
    assert told.endswith("not there yet: Theano.")


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ((4.0, 4.1, 4.2), "a higher error, beyond chance, with no cancellation (+2.00)."),
        ((1.0, 1.1, 1.2), "a lower error, beyond chance, with no cancellation (-1.00)."),
        ((1.9, 2.2, 2.3), "no certain change with no cancellation (+0.03)."),
        ((4.0, 4.1), "too few runs to tell of no cancellation (+1.95)."),
    ],
)
def test_effects_are_told_as_far_as_the_interval_goes(other, told):
    assert effects(GOOD, other) == f"Against the baseline's 2.10 % (n = 3), in points: {told}"


def test_nothing_is_concluded_from_what_is_missing_small_drawn_or_a_test():
    assert effects((), GOOD) == captions.NONE
    small = effects((9.0, 9.1, 9.2), (12.0, 12.1, 12.2))
    assert small == "The best of these networks errs on 9.1 %, too much to conclude from."
    for changed in ({"profile": "smoke"}, {"provenance": {"stand_in": True}}):
        (run,) = seeds(recipes.MNIST_THEANO, "evening", 1.0)
        assert "nothing is concluded" in captions.weak([run | changed])


def test_bits_that_were_not_run_are_said_to_be_missing():
    lines = {"rounded to nearest": {8: WITHOUT.name, 6: "open-latent-6-nearest"}}
    records = seeds(BASE, "evening", *GOOD) + seeds(WITHOUT, "evening", 4.0, 4.1, 4.2)
    told = captions.by_bits(records, lines, BASE.name)
    assert "beyond chance, with 8 bits to nearest (+2.00); not run: 6 bits to nearest." in told


def test_factors_need_all_four_groups():
    lines = {
        "exact": ["shift-baseline", "shift-adamax"],
        "shift-based": ["shift-bn", "shift-both"],
    }
    four = [recipes.by_name(name) for names in lines.values() for name in names]
    records = [run for each in four for run in seeds(each, "evening", *GOOD)]
    frame = factorial.effects(records, lines, ("normalization", "optimizer"))
    assert captions.factors(frame, records).startswith(
        "Changes of the test error, ± two standard errors: normalization +0.00 ± 0.12 points"
    )
    missing = factorial.effects(records[:9], lines, ("normalization", "optimizer"))
    assert captions.factors(missing, records[:9]).endswith("nothing is concluded.")


def test_gaps_are_told_by_what_is_binarized():
    runs = seeds(recipes.OPEN_FLOAT, "evening", 2.0) + seeds(recipes.OPEN_BOTH, "evening", 3.0)
    records = [run | {"selected_train_error": 0.5} for run in runs]
    told = captions.gaps(records)
    assert told.endswith("nothing 1.5 (held-out error 2.0 %); both 2.5 (held-out error 3.0 %).")
    assert captions.gaps([]) == captions.NONE


def test_the_authors_own_points_stand_beside_ours():
    (run,) = seeds(recipes.MNIST_THEANO, "paper", 2.0)
    assert captions.beside_authors([run], 5.0).endswith("log 5.00 %: +1.00 points.")
    assert "not run" in captions.beside_authors([], 5.0)
    read_off = {"theano": {"epochs": [1, 500], "validation_error": [40, 11]}}
    run = seeds(recipes.CIFAR10_THEANO, "evening", 20.0)
    told = captions.beside_figure_one(run, read_off)
    assert told.startswith("Theano: the paper ends at 11 % after 500 epochs, ours 60.0 to 20.0 %")
    assert told.endswith("so its ends are not tested.")
    assert "ours not run" in captions.beside_figure_one([], read_off)
    whole = seeds(recipes.CIFAR10_THEANO, "paper", 11.0)
    assert "not tested" not in captions.beside_figure_one(whole, read_off)


def test_only_the_paper_s_settings_are_held_against_the_paper():
    quick, whole = (seeds(recipes.MNIST_THEANO, name, 2.0) for name in ("quick", "paper"))
    assert captions.at_paper(quick).startswith("None of the 1 runs is at the paper's settings")
    twin = seeds(recipes.MNIST_THEANO_FLOAT, "paper", 1.0)  # not in the figure
    assert captions.at_paper(quick + whole + twin).startswith("1 of 2 runs are")


def test_layers_that_turn_most_and_least_are_named_by_their_places():
    means = pd.DataFrame({0: [9.0, 2.0], 4: [30.0, 1.0]}, index=[1, 7])
    told = captions.turned_signs(means)
    assert "in epoch 1 from 9 % (layer 1) to 30 % (layer 2)" in told
    assert "in epoch 7 from 1 % (layer 2) to 2 % (layer 1)" in told
    assert captions.turned_signs(pd.DataFrame()) == captions.NONE
