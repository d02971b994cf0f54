"""The claims file is complete, and keeps the rules that its head states."""

import pytest

from study import claims, recipes, verdicts
from study.evidence import Result

NOTEBOOKS = {
    "00_playground",
    "01_binarization",
    "02_gradients",
    "03_shift_based",
    "04_mnist",
    "05_cifar10",
    "06_svhn",
    "07_results_table",
    "08_filters",
    "09_kernels",
    "10_open_questions",
    "11_codes_and_clients",
}
ALL = list(claims.load().values())


@pytest.mark.parametrize("made", ALL, ids=lambda made: made.id)
def test_every_claim_is_complete(made):
    assert made.kind in {"at_most", "at_least", "within", "no_worse", "effect"}
    assert made.evidence in {"paper", "runs", "speed", "arithmetic", "exactness"}
    assert made.origin in {"paper", "authors", "ours"}
    assert made.notebook in NOTEBOOKS
    assert made.margin >= 0 and made.paper_n >= 0
    assert made.statement and made.where and made.selection
    assert "  " not in made.statement and not made.statement.endswith(".")


@pytest.mark.parametrize("made", ALL, ids=lambda made: made.id)
def test_claims_name_known_recipes_if_runs_answer_them(made):
    assert set(made.recipes) <= {recipe.name for recipe in recipes.RECIPES}
    assert bool(made.recipes) == (made.category == claims.TRAINING)
    if made.kind in claims.TWO_GROUPS:
        assert len(made.recipes) == 2 and made.evidence == "runs"


def test_every_category_has_claims_and_every_claim_one_category():
    assert {made.category for made in ALL} == set(claims.CATEGORIES)


def test_networks_must_work_on_every_data_set_whose_ablations_are_judged():
    ablations = {name for made in ALL if made.evidence == "runs" for name in made.recipes}
    datasets = {recipes.by_name(name).dataset for name in ablations}
    assert claims.working() == {"mnist": 2.5, "cifar10": 30.0} and datasets == {"mnist", "cifar10"}


def test_an_effect_is_any_difference_above_zero():
    assert {made.margin for made in ALL if made.kind == "effect"} == {0.0}


def test_arithmetic_claims_have_one_margin():
    arithmetic = [made for made in ALL if made.category == "arithmetic"]
    assert {(made.margin, made.relative) for made in arithmetic} == {(0.01, True)}


def test_ablations_name_their_data_set_where_both_have_one():
    """A loss on one data set says nothing of the other."""
    stated = {name: made.statement for name, made in claims.load().items()}
    for name in ("shift_batchnorm", "shift_adamax", "shift_both"):
        assert stated[name].endswith(" on MNIST")
        assert stated[f"{name}_cifar10"] == stated[name].replace("MNIST", "CIFAR-10")


def test_the_papers_numbers_keep_their_decimals():
    printed = {name: made.printed for name, made in claims.load().items()}
    assert printed["cifar10_theano"] == "11.40"
    assert printed["svhn_theano"] == "2.80"
    assert printed["xnor_over_baseline"] == "23"
    assert claims.load()["cifar10_theano"].value == 11.4


def test_the_margins_of_test_errors_are_those_of_one_test_set():
    margins = {"mnist": 0.2, "cifar10": 0.6, "svhn": 0.3}
    for data, margin in margins.items():
        for recipe in ("theano", "torch7"):
            assert claims.load()[f"{data}_{recipe}"].margin == margin


def test_no_claim_is_answered_by_a_run_that_is_not_on_the_official_split():
    parts = {recipe.name for recipe in recipes.SVHN_PART}
    assert parts and not any(parts & set(made.recipes) for made in ALL)


def test_statements_hold_no_number_of_their_claim():
    for made in ALL:
        assert made.printed not in made.statement.split()


def test_swar_follows_from_its_context():
    swar = claims.context()["swar"]
    bound = swar["connections"] / sum(swar["cycles"].values())
    assert Result("swar", [bound], profile="quick").verdict == verdicts.REPRODUCED


def test_figure_1_has_an_error_for_each_epoch():
    curves = claims.context()["figure1"]
    for name in ("float", "theano", "torch7"):
        assert len(curves[name]["epochs"]) == len(curves[name]["validation_error"])


def test_a_mean_that_misses_the_value_does_not_look_equal_to_it():
    ratio = claims.load()["mlp_speed"]
    assert [ratio.decimals_for(mean) for mean in (6.992, 6.9, 7.0, 8.04)] == [2, 1, 1, 1]
