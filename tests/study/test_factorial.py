"""Effects of a 2 x 2 experiment, from records made by hand."""

import math

import pytest
from hand_made import seeds

from study import factorial, figures, recipes

LINES = {
    "exact": ["shift-baseline", "shift-adamax"],
    "shift-based": ["shift-bn", "shift-both"],
}
FACTORS = ("batch normalization", "optimizer")


def runs_of(**errors: tuple[float, ...]) -> list[dict]:
    """Quick records of shift-<name>, one a test error."""
    named = {name: recipes.by_name(f"shift-{name}") for name in errors}
    return [run for name in errors for run in seeds(named[name], "quick", *errors[name])]


def test_effects_are_contrasts_of_means_with_their_standard_errors():
    records = runs_of(baseline=(2.0, 2.2), adamax=(3.0, 3.2), bn=(2.5, 2.7), both=(4.5, 4.7))
    table = factorial.effects(records, LINES, FACTORS)
    assert table["difference"].tolist() == pytest.approx([1.0, 1.5, 1.0])
    spread = 2 * 0.1**2 / 2  # of every cell's mean: s^2 / n
    assert table["standard error"].tolist() == pytest.approx(
        [math.sqrt(spread), math.sqrt(spread), 2 * math.sqrt(spread)]
    )
    assert table["effect"].tolist() == [*FACTORS, "batch normalization × optimizer"]
    assert set(table["runs"]) == {8}


def test_without_one_of_the_four_there_is_no_effect():
    assert factorial.effects([], LINES, FACTORS).empty
    assert factorial.effects(runs_of(baseline=(2.0,), bn=(2.1,)), LINES, FACTORS).empty


def test_one_run_each_has_no_standard_error():
    records = runs_of(baseline=(2.0,), adamax=(3.0,), bn=(2.5,), both=(4.5,))
    assert factorial.effects(records, LINES, FACTORS)["standard error"].isna().all()


def test_its_figure_joins_the_means_and_says_what_is_missing():
    figure = figures.interaction(runs_of(baseline=(2.0, 2.2), adamax=(3.0,)), LINES, ["a", "b"])
    means = [line for line in figure.axes[0].lines if line.get_linestyle() == "-"]
    assert list(means[0].get_ydata()) == pytest.approx([2.1, 3.0])
    assert [line.get_label() for line in means] == ["exact", "shift-based (not run)"]
    empty = figures.interaction([], LINES, ["a", "b"])
    assert "not run" in empty.axes[0].texts[0].get_text()
