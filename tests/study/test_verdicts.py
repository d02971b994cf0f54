"""Verdicts are what the criteria of claims.toml say."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from study import claims, verdicts
from study.verdicts import FOUND, NOT, NOT_FOUND, OPPOSITE, REPRODUCED, UNDECIDED, interval, judge


def claim(kind: str, value: float, margin: float, **fields) -> claims.Claim:
    """A claim of the paper on MNIST with another criterion."""
    known = claims.load()["mnist_theano"]
    return replace(known, kind=kind, value=value, margin=margin, **fields)


EFFECT = claim("effect", 0.0, 0.0)
SPREAD = [1.0, 2.0, 3.0]  # variance 1
# Of two groups of three with variance 1 each the standard error is sqrt(2 / 3), the degrees of
# freedom are 4, and t(4) exceeds 2.77645 with probability 2.5 %.
HALF = 2.77645 * (2 / 3) ** 0.5


def shifted(by: float) -> list[float]:
    return [value + by for value in SPREAD]


# The mean


@pytest.mark.parametrize(
    ("mean", "verdict"),
    [
        (0.5, REPRODUCED),
        (0.96, REPRODUCED),
        (0.96 + 0.2, REPRODUCED),
        (1.1601, verdicts.PARTLY),
        (0.96 + 3 * 0.2, verdicts.PARTLY),
        (1.5601, NOT),
    ],
)
def test_at_most(mean, verdict):
    assert judge(claim("at_most", 0.96, 0.2), [mean]) == verdict


@pytest.mark.parametrize("id", ["mnist_theano", "cifar10_torch7", "svhn_theano", "svhn_torch7"])
def test_exactly_on_the_margin_is_inside_it(id):
    made = claims.load()[id]
    limit, last = made.value + made.margin, made.value + 3 * made.margin
    assert judge(made, [limit]) == REPRODUCED
    assert judge(made, [last]) == verdicts.PARTLY
    assert judge(made, [last + 1e-6]) == NOT


def test_at_least_without_a_margin_is_all_or_nothing():
    made = claims.load()["xnor_over_cublas"]
    assert judge(made, [3.4]) == REPRODUCED
    assert judge(made, [3.39]) == NOT


def test_within_is_two_sided_and_may_be_relative():
    loss = claims.load()["first_epoch_train_loss"]
    assert judge(loss, [loss.value * 1.15]) == REPRODUCED
    assert judge(loss, [loss.value * 0.85]) == REPRODUCED
    assert judge(loss, [loss.value * 0.84]) == verdicts.PARTLY
    assert judge(loss, [loss.value * 1.46]) == NOT


def test_arithmetic_passes_within_one_percent():
    for name in ("energy", "memory_size", "memory_accesses"):
        assert judge(claims.load()[name], [32 * 0.99]) == REPRODUCED
        assert judge(claims.load()[name], [32 * 0.99 - 1e-6]) == verdicts.PARTLY
    assert judge(claims.load()["client_file"], [8 * 0.99 - 1e-6]) == NOT_FOUND


def test_a_margin_that_was_changed_with_the_result_known_is_shown_with_the_first_one():
    energy, file = claims.load()["energy"], claims.load()["client_file"]
    assert energy.criterion.startswith("the mean is at least 31.68 × (at least 32 × until 2026-")
    until = "by the criterion until 2026-11-30"
    assert verdicts.earlier(energy, REPRODUCED, [31.9]) == f"not reproduced {until}"
    assert verdicts.earlier(file, NOT_FOUND, [7.6]) == f"found {until}"
    assert verdicts.earlier(energy, REPRODUCED, [32.0]) == ""
    assert verdicts.earlier(energy, verdicts.NOT_RUN, []) == ""
    assert verdicts.earlier(claims.load()["memory_size"], REPRODUCED, [31.9]) == ""


def test_questions_of_our_own_are_found_not_reproduced():
    made = claim("at_least", 1.0, 0.1, origin="ours")
    assert judge(made, [0.9]) == FOUND
    assert judge(made, [0.8]) == NOT_FOUND


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="unknown kind 'nearly'"):
        judge(claim("nearly", 1.0, 0.1), [1.0])


# The interval of a difference

groups = st.lists(st.floats(0, 100).map(lambda x: round(x, 2)), min_size=2, max_size=6)


@given(groups, groups)
def test_the_interval_is_welch_s(values, reference):
    assume(np.std(values) > 0.01 and np.std(reference) > 0.01)
    known = ttest_ind(values, reference, equal_var=False).confidence_interval(0.95)
    assert interval(values, reference) == pytest.approx((known.low, known.high), rel=1e-6, abs=1e-6)


def test_the_interval_of_two_groups_of_three():
    assert interval(shifted(3), SPREAD) == pytest.approx((3 - HALF, 3 + HALF), abs=1e-4)


def test_two_runs_of_each_have_an_interval_and_one_has_none():
    # t(2) exceeds 4.30265 with probability 2.5 %; both variances are 0.5, the standard error is
    # sqrt(0.5).
    half = 4.30265 * 0.5**0.5
    assert interval([2.0, 3.0], [1.0, 2.0]) == pytest.approx((1 - half, 1 + half), abs=1e-4)
    with pytest.raises(ValueError):
        interval([2.0], [1.0, 2.0])
    assert verdicts.interval_text(EFFECT, [2.0], [1.0, 2.0]) == ""


def test_a_group_without_spread_leaves_the_other_s():
    # One variance of 1 in three runs: standard error sqrt(1 / 3), degrees of freedom 2.
    half = 4.30265 * (1 / 3) ** 0.5
    assert interval([5.0] * 3, SPREAD) == pytest.approx((3 - half, 3 + half), abs=1e-4)


def test_without_any_spread_the_interval_is_the_difference():
    assert interval([2.0] * 3, [0.5] * 3) == (1.5, 1.5)


def test_the_interval_in_words_has_the_claim_s_decimals():
    text = verdicts.interval_text(EFFECT, shifted(3), SPREAD)
    assert text == "95 % interval +0.73 to +5.27"


@pytest.mark.parametrize(
    ("by", "verdict"),
    [
        (HALF + 0.001, REPRODUCED),
        (HALF - 0.001, UNDECIDED),
        (0.0, UNDECIDED),
        (-HALF + 0.001, UNDECIDED),
        (-HALF - 0.001, OPPOSITE),
    ],
)
def test_effect(by, verdict):
    assert judge(EFFECT, shifted(by), SPREAD) == verdict


@pytest.mark.parametrize(
    ("by", "verdict"),
    [
        (0.2 - HALF - 0.001, REPRODUCED),
        (0.2 - HALF + 0.001, UNDECIDED),
        (0.2 + HALF - 0.001, UNDECIDED),
        (0.2 + HALF + 0.001, OPPOSITE),
    ],
)
def test_no_worse(by, verdict):
    assert judge(claim("no_worse", 0.0, 0.2), shifted(by), SPREAD) == verdict


def test_an_interval_that_touches_zero_has_no_side():
    low, high = interval(SPREAD, SPREAD)
    assert judge(EFFECT, shifted(-low), SPREAD) == UNDECIDED
    assert judge(EFFECT, shifted(-low + 1e-6), SPREAD) == REPRODUCED
    assert judge(EFFECT, shifted(-high), SPREAD) == UNDECIDED
    assert judge(EFFECT, shifted(-high - 1e-6), SPREAD) == OPPOSITE


def test_an_interval_that_touches_the_margin_is_within_it():
    low, high = interval(shifted(1), SPREAD)
    at = {margin: claim("no_worse", 0.0, margin) for margin in (high, high - 1e-6, low, low - 1e-6)}
    assert judge(at[high], shifted(1), SPREAD) == REPRODUCED
    assert judge(at[high - 1e-6], shifted(1), SPREAD) == UNDECIDED
    assert judge(at[low], shifted(1), SPREAD) == UNDECIDED
    assert judge(at[low - 1e-6], shifted(1), SPREAD) == OPPOSITE


@pytest.mark.parametrize(
    ("kind", "margin", "difference", "verdict"),
    [
        ("effect", 0.0, 0.1, REPRODUCED),
        ("effect", 0.0, 0.0, UNDECIDED),
        ("effect", 0.0, -0.1, OPPOSITE),
        ("no_worse", 0.2, 0.2, REPRODUCED),
        ("no_worse", 0.2, 0.3, OPPOSITE),
        ("no_worse", 0.0, 0.0, REPRODUCED),
    ],
)
def test_runs_without_any_spread_are_judged_by_their_difference(kind, margin, difference, verdict):
    made = claim(kind, 0.0, margin)
    assert judge(made, [1.0 + difference] * 3, [1.0] * 3) == verdict


@pytest.mark.parametrize("kind", claims.TWO_GROUPS)
def test_a_difference_that_we_ask_about_is_found_opposite_or_undecided(kind):
    made = claim(kind, 0.0, 0.0, origin="ours")
    up, down = shifted(9), shifted(-9)
    found, opposite = (up, down) if kind == "effect" else (down, up)
    assert judge(made, found, SPREAD) == FOUND
    assert judge(made, opposite, SPREAD) == OPPOSITE
    assert judge(made, SPREAD, SPREAD) == UNDECIDED
