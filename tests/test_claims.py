"""The claims file is complete, and verdicts are what its criteria say."""

from dataclasses import replace

import pytest
from hand_made import record, seeds

from bnnlib import claims, recipes
from bnnlib.claims import Result, answer

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
PLANNED = {"mnist-torch7", "cifar10-torch7", "svhn-theano", "svhn-torch7"}
ALL = list(claims.claims().values())


def claim(kind: str, value: float, margin: float, **fields) -> claims.Claim:
    """A claim on MNIST with another criterion."""
    known = claims.claims()["mnist_theano"]
    return replace(known, kind=kind, value=value, margin=margin, **fields)


# The file


@pytest.mark.parametrize("made", ALL, ids=lambda made: made.id)
def test_every_claim_is_complete(made):
    assert made.kind in {"at_most", "at_least", "within", "no_worse", "effect"}
    assert made.evidence in {"paper", "runs", "measurement"}
    assert made.origin in {"paper", "authors", "ours"}
    assert made.notebook in NOTEBOOKS
    assert made.margin >= 0 and made.paper_n >= 0
    assert made.statement and made.where and made.selection
    assert "  " not in made.statement and not made.statement.endswith(".")


@pytest.mark.parametrize("made", ALL, ids=lambda made: made.id)
def test_claims_name_known_recipes_if_runs_answer_them(made):
    assert set(made.recipes) <= {recipe.name for recipe in recipes.RECIPES} | PLANNED
    if made.evidence == "paper":
        assert made.recipes
    if made.evidence == "measurement":
        assert not made.recipes
    if made.kind in claims.TWO_GROUPS:
        assert len(made.recipes) in (0, 2)


def test_the_papers_numbers_keep_their_decimals():
    printed = {name: made.printed for name, made in claims.claims().items()}
    assert printed["cifar10_theano"] == "11.40"
    assert printed["svhn_theano"] == "2.80"
    assert printed["xnor_over_baseline"] == "23"
    assert claims.claims()["cifar10_theano"].value == 11.4


def test_the_margins_of_test_errors_are_those_of_one_test_set():
    margins = {"mnist": 0.2, "cifar10": 0.6, "svhn": 0.3}
    for data, margin in margins.items():
        for recipe in ("theano", "torch7"):
            assert claims.claims()[f"{data}_{recipe}"].margin == margin


def test_no_claim_is_answered_by_a_run_that_is_not_on_the_official_split():
    parts = {recipe.name for recipe in recipes.SVHN_PART}
    assert parts and not any(parts & set(made.recipes) for made in ALL)


def test_statements_hold_no_number_of_their_claim():
    for made in ALL:
        assert made.printed not in made.statement.split()


def test_swar_follows_from_its_context():
    swar = claims.context()["swar"]
    bound = swar["connections"] / sum(swar["cycles"].values())
    assert Result("swar", [bound], profile="quick").verdict == claims.REPRODUCED


def test_figure_1_has_an_error_for_each_epoch():
    curves = claims.context()["figure1"]
    for name in ("float", "theano", "torch7"):
        assert len(curves[name]["epochs"]) == len(curves[name]["validation_error"])


# Criteria


@pytest.mark.parametrize(
    ("mean", "verdict"),
    [
        (0.5, claims.REPRODUCED),
        (0.96, claims.REPRODUCED),
        (0.96 + 0.2, claims.REPRODUCED),
        (1.1601, claims.PARTLY),
        (0.96 + 3 * 0.2, claims.PARTLY),
        (1.5601, claims.NOT),
    ],
)
def test_at_most(mean, verdict):
    assert claims.judge(claim("at_most", 0.96, 0.2), [mean]) == verdict


@pytest.mark.parametrize("id", ["mnist_theano", "cifar10_torch7", "svhn_theano", "svhn_torch7"])
def test_exactly_on_the_margin_is_inside_it(id):
    made = claims.claims()[id]
    limit, last = made.value + made.margin, made.value + 3 * made.margin
    assert claims.judge(made, [limit]) == claims.REPRODUCED
    assert claims.judge(made, [last]) == claims.PARTLY
    assert claims.judge(made, [last + 1e-6]) == claims.NOT


def test_at_least_without_a_margin_is_all_or_nothing():
    made = claims.claims()["xnor_over_cublas"]
    assert claims.judge(made, [3.4]) == claims.REPRODUCED
    assert claims.judge(made, [3.39]) == claims.NOT


def test_within_is_two_sided_and_may_be_relative():
    loss = claims.claims()["first_epoch_train_loss"]
    assert claims.judge(loss, [loss.value * 1.15]) == claims.REPRODUCED
    assert claims.judge(loss, [loss.value * 0.85]) == claims.REPRODUCED
    assert claims.judge(loss, [loss.value * 0.84]) == claims.PARTLY
    assert claims.judge(loss, [loss.value * 1.46]) == claims.NOT


def test_no_worse_allows_the_margin():
    made = claim("no_worse", 0.0, 0.2)
    assert claims.judge(made, [1.2] * 3, [1.0] * 3) == claims.REPRODUCED
    assert claims.judge(made, [1.3] * 3, [1.0] * 3) == claims.PARTLY
    assert claims.judge(made, [1.7] * 3, [1.0] * 3) == claims.NOT
    assert claims.judge(made, [0.1] * 3, [1.0] * 3) == claims.REPRODUCED


def test_effect_needs_a_difference_that_few_runs_can_show():
    made = claim("effect", 0.0, 0.05)
    # Both groups have variance 1 and three runs: the standard error is sqrt(2 / 3), the degrees of
    # freedom are 4, and t(4) exceeds 2.1318 with probability 5 %: it takes more than 1.7406.
    reference = [1.0, 2.0, 3.0]
    assert claims.standard_error([4.0, 5.0, 6.0], reference) == pytest.approx((2 / 3) ** 0.5)
    assert claims.judge(made, [2.741, 3.741, 4.741], reference) == claims.REPRODUCED
    assert claims.judge(made, [2.740, 3.740, 4.740], reference) == claims.NOT
    assert claims.judge(made, reference, [4.0, 5.0, 6.0]) == claims.NOT


def test_effect_of_runs_without_any_spread_is_their_difference():
    made = claim("effect", 0.0, 0.05)
    assert claims.judge(made, [2.0, 2.0, 2.0], [1.0, 1.0, 1.0]) == claims.REPRODUCED
    assert claims.judge(made, [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]) == claims.NOT


def test_no_difference_is_no_effect_even_without_any_spread():
    assert claims.judge(claim("effect", 0.0, 2.0), [1.0] * 3, [1.0] * 3) == claims.NOT


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="unknown kind 'nearly'"):
        claims.judge(claim("nearly", 1.0, 0.1), [1.0])


def test_questions_of_our_own_are_found_not_reproduced():
    made = claim("effect", 0.0, 0.05, origin="ours")
    assert claims.judge(made, [2.0, 2.1, 2.2], [1.0, 1.1, 1.2]) == claims.FOUND
    assert claims.judge(made, [1.0, 1.1, 1.2], [1.0, 1.1, 1.2]) == claims.NOT_FOUND


# What may earn a verdict


def test_the_papers_settings_on_real_data_earn_one():
    result = answer("mnist_theano", seeds(recipes.MNIST_THEANO, "paper", 0.9, 1.0, 1.1))
    assert result.verdict == claims.REPRODUCED
    assert (result.n, result.mean) == (3, pytest.approx(1.0))
    assert result.std == pytest.approx(0.1)
    assert result.difference == pytest.approx(0.04)


@pytest.mark.parametrize("profile", ["smoke", "quick", "evening"])
def test_other_profiles_do_not(profile):
    result = answer("mnist_theano", seeds(recipes.MNIST_THEANO, profile, 0.9))
    assert result.verdict == claims.OTHER_SETTINGS


def test_one_run_at_other_settings_spoils_the_rest():
    mixed = [
        record(recipes.MNIST_THEANO, "paper", 0, 0.9),
        record(recipes.MNIST_THEANO, "evening", 1, 0.9),
    ]
    assert answer("mnist_theano", mixed).verdict == claims.OTHER_SETTINGS


@pytest.mark.parametrize("profile", recipes.PROFILES)
@pytest.mark.parametrize("made", ALL, ids=lambda made: made.id)
def test_the_stand_in_never_earns_one(made, profile):
    records = [
        {"profile": profile, "provenance": {"stand_in": stand_in, "device": "cpu"}}
        for stand_in in (False, True)
    ]
    result = Result(made.id, [made.value] * 3, records, [made.value] * 3)
    assert result.verdict == claims.STAND_IN


@pytest.mark.parametrize("made", ALL, ids=lambda made: made.id)
def test_smoke_never_earns_one(made):
    judged = {claims.REPRODUCED, claims.PARTLY, claims.NOT, claims.FOUND, claims.NOT_FOUND}
    smoke = {"profile": "smoke", "provenance": {"stand_in": False, "device": "cpu"}}
    for records in ([], [smoke]):
        result = Result(made.id, [made.value] * 3, records, [made.value] * 3, profile="smoke")
        assert result.verdict not in judged


def test_an_altered_recipe_does_not():
    altered = record(recipes.MNIST_THEANO, "paper", 0, 0.9)
    altered["recipe"]["epochs"] = 5
    assert answer("mnist_theano", [altered]).verdict == claims.OTHER_SETTINGS


def test_values_without_runs_behind_them_do_not():
    assert Result("mnist_theano", [0.9], profile="paper").verdict == claims.NOT_RUN
    assert Result("cancellation", [2.0] * 3, [], [1.0] * 3, "paper").verdict == claims.NOT_RUN
    assert Result("swar", [5.3]).verdict == claims.NOT_RUN


def test_nothing_run():
    result = answer("mnist_theano", [])
    assert (result.verdict, result.n, result.mean) == (claims.NOT_RUN, 0, None)
    assert result.std is None and result.difference is None


def test_one_value_has_no_spread():
    assert answer("mnist_theano", seeds(recipes.MNIST_THEANO, "paper", 1.0)).std is None


def test_ablations_are_judged_on_real_data_at_any_profile_with_three_runs_of_each():
    changed = seeds(recipes.GRADIENTS_NO_CANCELLATION, "quick", 5.0, 5.1, 5.2)
    baseline = seeds(recipes.GRADIENTS_BASELINE, "quick", 2.0, 2.1, 2.2)
    other = seeds(recipes.GRADIENTS_NO_CLIPPING, "quick", 3.0)
    result = answer("cancellation", other + baseline + changed)
    assert result.verdict == claims.REPRODUCED
    assert result.values == [5.0, 5.1, 5.2] and result.reference == [2.0, 2.1, 2.2]
    assert result.difference == pytest.approx(3.0)
    assert answer("cancellation", changed + baseline[:2]).verdict == claims.TOO_FEW
    assert answer("cancellation", changed).verdict == claims.NOT_RUN


def test_a_reference_of_a_claim_on_one_group_is_subtracted_by_seed():
    binary = seeds(recipes.CIFAR10_THEANO, "paper", 11.0, 12.0, 13.0)
    floats = seeds(recipes.CIFAR10_THEANO_FLOAT, "paper", 10.0, 10.5)
    last = [*binary, *reversed(floats)]
    result = answer("figure1_gap_theano", last, lambda r: r["history"][-1]["validation_error"])
    assert result.values == pytest.approx([1.0, 1.5])
    assert len(result.records) == 4
    assert result.verdict == claims.REPRODUCED


def test_a_run_counts_once():
    run = record(recipes.MNIST_THEANO, "paper", 0, 0.9)
    with pytest.raises(ValueError, match="counted twice"):
        Result("mnist_theano", [0.9, 0.9], [run, run])


def test_runs_of_another_recipe_are_refused():
    run = record(recipes.MNIST_THEANO_FLOAT, "paper", 0, 0.9)
    with pytest.raises(ValueError, match="not answered by runs of mnist-theano-float"):
        Result("mnist_theano", [0.9], [run])


def test_an_unknown_claim_is_refused():
    with pytest.raises(ValueError, match="no claim 'mnist'"):
        Result("mnist", [0.9])
