"""Learning rates of the ablations are the best of three that were tried, and pages say which."""

from dataclasses import asdict

import pytest

from bnnlib.rules import Rule
from study import rates, recipes
from study.recipes import sweeps
from study.train import runs
from tools import choose_rates

ARM = recipes.GRADIENTS_NO_CLIPPING
ARMS = (*recipes.GRADIENTS, *recipes.SHIFT, *recipes.GAPS_MNIST, *recipes.GAPS_CIFAR10)


def sweep_run(recipe, *validation_errors):
    recipe = recipes.at_profile(recipe, rates.PROFILE)
    history = [{"validation_error": error} for error in validation_errors]
    return {"recipe": asdict(recipe), "history": history}


def not_the_best(rates_of, records_of):
    """The arms whose rate isn't the best of their committed runs."""
    return [name for name, rate in rates_of.items() if rate != rates.best(records_of(name))]


def committed(name):
    return [run for r in sweeps.SWEEPS[name] for run in runs.committed(r, rates.PROFILE)]


@pytest.fixture
def made(monkeypatch, tmp_path):
    """Hand-made runs of one arm, and a file of its own for the choice."""
    errors = {"low": (9, 4.0, 5), "middle": (5, 3.0, 3.5), "high": (2.9, 2.5)}
    tried = dict(zip(errors, sweeps.SWEEPS[ARM.name], strict=True))
    found = {r.name: [sweep_run(r, *errors[step])] for step, r in tried.items()}
    monkeypatch.setattr(rates.runner, "obtain", lambda recipe, *_, **__: found.get(recipe.name, []))
    monkeypatch.setattr(sweeps, "FILE", tmp_path / "rates.toml")
    return found


def test_an_arm_differs_from_its_three_recipes_in_the_rate_alone():
    for arm in sweeps.SWEPT:
        for profile in ("smoke", "evening"):
            own = asdict(recipes.at_profile(arm, profile))
            for tried in sweeps.SWEEPS[arm.name]:
                other = asdict(recipes.at_profile(tried, profile))
                changed = {field for field in own if own[field] != other[field]}
                assert changed <= {"name", *sweeps.at_rate(arm, 1.0)}
    assert recipes.by_name(f"{ARM.name}-rate-low") == sweeps.SWEEPS[ARM.name][0]


def test_three_rates_rise_and_shifts_are_powers_of_two():
    for arm in sweeps.SWEPT:
        tried = [recipe.learning_rate for recipe in sweeps.SWEEPS[arm.name]]
        assert tried == sorted(set(tried)) and len(tried) == 3
        if arm.optimizer is not Rule.ADAM:
            assert all(rates.shown(rate).startswith("2^") for rate in tried)


def test_every_arm_is_swept_or_follows_one_that_is():
    for arm in ARMS:
        assert sweeps.FOLLOWS.get(arm.name, arm.name) in sweeps.SWEEPS


def test_an_arm_at_a_chosen_rate_is_the_recipe_that_tried_it():
    for tried in sweeps.SWEEPS[ARM.name]:
        chosen = sweeps.chosen_fields(ARM, {ARM.name: tried.learning_rate})
        assert {field: getattr(tried, field) for field in chosen} == chosen
    baseline = {recipes.GRADIENTS_BASELINE.name: 1e-2}
    assert sweeps.chosen_fields(recipes.GRADIENTS_NO_GLOROT, baseline)["learning_rate"] == 1e-2
    assert sweeps.chosen_fields(ARM, baseline) == {}


def test_the_evening_profile_has_the_chosen_rates():
    for arm in ARMS:
        expected = sweeps.chosen_fields(arm, sweeps.chosen())
        changes = recipes.PROFILES[rates.PROFILE][arm.name]
        assert {field: changes.get(field) for field in expected} == expected


def test_the_best_epoch_counts_and_the_lower_of_equal_rates():
    low, middle, high = sweeps.SWEEPS[ARM.name]
    tried = [sweep_run(low, 3.0, 2.0, 8.0), sweep_run(middle, 2.5, 2.5), sweep_run(high, 2.0, 9.0)]
    assert rates.best(tried) == low.learning_rate
    assert rates.best(tried[:2]) is None


def test_each_chosen_rate_is_the_best_of_its_committed_runs():
    assert not_the_best(sweeps.chosen(), committed) == []


def test_a_rate_that_is_not_the_best_would_be_noticed(made):
    (low,), (middle,), (high,) = made.values()
    runs_of = {ARM.name: [low, middle, high]}.get
    assert not_the_best({ARM.name: high["recipe"]["learning_rate"]}, runs_of) == []
    assert not_the_best({ARM.name: low["recipe"]["learning_rate"]}, runs_of) == [ARM.name]
    assert not_the_best({ARM.name: 1e-2}, lambda name: []) == [ARM.name]


def test_the_tool_writes_what_the_profile_reads(made, capsys):
    assert choose_rates.main() == 1
    assert sweeps.chosen() == {ARM.name: sweeps.SWEEPS[ARM.name][2].learning_rate}
    assert f"{ARM.name}: 0.01\n" in capsys.readouterr().out
    made.pop(f"{ARM.name}-rate-low")
    assert choose_rates.main() == 1
    assert sweeps.chosen() == {}


@pytest.mark.parametrize("line", ["gradients-no-clipping = 0.5", "mnist-theano = 0.003"])
def test_a_rate_that_was_not_tried_is_refused(line, tmp_path):
    file = tmp_path / "rates.toml"
    file.write_text(line)
    with pytest.raises(ValueError, match="was not swept at"):
        sweeps.chosen(file)


def test_the_table_shows_every_rate_and_names_an_edge(made):
    choose_rates.main()
    (row,) = rates.sweep_table([ARM]).to_dict("records")
    assert row["lowest"] == "0.001: 4.00 %" and row["highest"] == "0.01: 2.50 %"
    assert row["chosen"].startswith("0.01") and rates.EDGE in row["chosen"]
    made[f"{ARM.name}-rate-middle"] = [sweep_run(sweeps.SWEEPS[ARM.name][1], 1.0)]
    choose_rates.main()
    assert rates.sweep_table([ARM])["chosen"].tolist() == ["0.003"]


def test_without_runs_the_table_says_so(made):
    made.clear()
    (row,) = rates.sweep_table([ARM]).to_dict("records")
    assert row["lowest"] == "0.001: not run" and row["chosen"] == "not run"
    assert rates.sweep_table([recipes.GRADIENTS_NO_GLOROT]).empty
