import pytest
from hand_made import record, seeds

from study import ROOT, ablation_tables, claims, recipes, verdicts
from study.evidence import answer
from study.train import averaged


def shift(one, other, base=(2.0, 2.1, 2.2)):
    """Sentences on notebooks 03 and 07 with these errors and their baselines'."""
    results = []
    for claim, name, errors in (
        ("shift_both", "shift-both", one),
        ("gap_mnist_shift", "gaps-mnist-shift", other),
    ):
        group = name.rpartition("-")[0]
        runs = seeds(recipes.by_name(name), "evening", *errors)
        runs += seeds(recipes.by_name(f"{group}-baseline"), "evening", *base)
        results.append(answer(claim, runs))
    return ablation_tables.disagreement(*results)


def test_opposite_effects_are_told_and_clear_ones_disagree():
    (line,) = shift((1.5, 1.6, 1.7), (4.0, 4.1, 4.2))
    assert "disagree." in line
    assert "-0.50 points" in line and "+2.00 points" in line
    assert "notebook 03" in line and "notebook 07" in line
    assert "verdict: found" in line


def test_what_chance_allows_is_no_disagreement():
    (line,) = shift((1.0, 2.0, 3.0), (2.0, 2.1, 2.4))
    assert "may be chance" in line and "disagree." not in line


def test_what_can_not_be_judged_can_not_disagree():
    assert shift((1.5, 1.6), (4.0, 4.1, 4.2)) == []  # too few runs
    assert shift((11.5, 11.6, 11.7), (14.0, 14.1, 14.2), (12.0, 12.1, 12.2)) == []  # too small


def test_effects_of_one_sign_need_no_sentence():
    assert shift((2.5, 2.6, 2.7), (2.6, 2.7, 2.8)) == []
    assert shift((), (4.0, 4.1, 4.2)) == []


def test_effects_of_one_sign_disagree_where_their_intervals_are_apart():
    (line,) = shift((2.5, 2.6, 2.7), (4.0, 4.1, 4.2))
    assert "disagree about the size" in line


def test_both_notebooks_tell_it():
    for name in ("03_shift_based", "07_results_table"):
        code = (ROOT / "notebooks" / f"{name}.ipynb").read_text()
        assert "report.tell(disagreement(" in code and "gap_mnist_shift" in code
        assert "shift_both" in code


def test_stochastic_recipes_are_shown_both_ways():
    arm = recipes.GRADIENTS_STOCHASTIC_WEIGHTS
    averaged = {"averaged_test_error": 3.5, "averaged_draws": 16}
    runs = [record(arm, "evening", seed, 4.0) | averaged for seed in (0, 1)]
    runs.append(record(recipes.GRADIENTS_BASELINE, "evening", 0, 2.0))
    (row,) = ablation_tables.both_ways(runs).to_dict("records")
    assert row["tested by signs (%)"].startswith("4.00")
    assert row["by the mean of draws (%)"].startswith("3.50")
    assert (row["draws"], row["n"]) == (16, 2)
    assert ablation_tables.both_ways([]).empty


def weights_averaged(baseline, *averaged):
    """The claim on deterministic weights from errors of the baseline, and by draws of the other."""
    arm = recipes.GRADIENTS_STOCHASTIC_WEIGHTS
    runs = seeds(recipes.GRADIENTS_BASELINE, "evening", *baseline)
    stochastic = seeds(arm, "evening", *(9.0 for _ in averaged))
    runs += [
        run | ({} if error is None else {"averaged_test_error": error, "averaged_draws": 16})
        for run, error in zip(stochastic, averaged, strict=True)
    ]
    return ablation_tables.by_draws("deterministic_weights_averaged", runs)


def test_a_claim_on_draws_is_judged_by_draws():
    result = weights_averaged((1.8, 1.8, 1.9), 1.8, 1.9, 2.0)
    assert list(result.reference) == [1.8, 1.9, 2.0]
    assert result.verdict == verdicts.FOUND
    assert weights_averaged((2.3, 2.3, 2.4), 1.8, 1.8, 1.9).verdict == verdicts.OPPOSITE


def test_runs_that_were_not_tested_by_draws_do_not_count_as_such():
    assert weights_averaged((1.8, 1.8, 1.9), 1.8, None, None).verdict == verdicts.TOO_FEW
    result = weights_averaged((1.8, 1.8, 1.9), None, None, None)
    assert (result.verdict, result.reference) == (verdicts.NOT_RUN, [])


@pytest.mark.parametrize(
    ("by_signs", "by_draws"),
    [
        ("deterministic_weights", "deterministic_weights_averaged"),
        ("deterministic_activations", "deterministic_activations_averaged"),
        ("deterministic_both", "deterministic_both_averaged"),
        ("gap_mnist_stochastic", "stochastic_mnist_averaged"),
        ("gap_cifar10_stochastic", "stochastic_cifar10_averaged"),
    ],
)
def test_a_claim_on_draws_asks_what_the_one_on_signs_asks(by_signs, by_draws):
    """The same recipes, criterion and margin: only the test of the stochastic network differs."""
    signs, draws = claims.load()[by_signs], claims.load()[by_draws]
    asked = [(c.recipes, c.kind, c.margin, c.evidence, c.notebook) for c in (signs, draws)]
    assert asked[0] == asked[1]
    assert "sixteen draws" in draws.selection and averaged.DRAWS == 16


def test_both_claims_name_the_changed_recipe_first():
    for name in ("shift_both", "gap_mnist_shift"):
        assert answer(name, []).claim.recipes[1].endswith("-baseline")
