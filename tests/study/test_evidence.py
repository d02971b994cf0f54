"""What may earn a verdict, and how strong evidence is said to be."""

import pytest
from hand_made import record, seeds

from study import claims, recipes, verdicts
from study.evidence import PAPER, SMALL, WORKING, Result, answer

ALL = list(claims.load().values())


def test_the_papers_settings_on_real_data_earn_one():
    result = answer("mnist_theano", seeds(recipes.MNIST_THEANO, "paper", 0.9, 1.0, 1.1))
    assert result.verdict == verdicts.REPRODUCED
    assert (result.n, result.mean) == (3, pytest.approx(1.0))
    assert result.std == pytest.approx(0.1)
    assert result.difference == pytest.approx(0.04)


@pytest.mark.parametrize("profile", ["smoke", "quick", "evening"])
def test_other_profiles_do_not(profile):
    result = answer("mnist_theano", seeds(recipes.MNIST_THEANO, profile, 0.9))
    assert result.verdict == verdicts.OTHER_SETTINGS


def test_one_run_at_other_settings_spoils_the_rest():
    mixed = [
        record(recipes.MNIST_THEANO, "paper", 0, 0.9),
        record(recipes.MNIST_THEANO, "evening", 1, 0.9),
    ]
    assert answer("mnist_theano", mixed).verdict == verdicts.OTHER_SETTINGS


@pytest.mark.parametrize("profile", recipes.PROFILES)
@pytest.mark.parametrize("made", ALL, ids=lambda made: made.id)
def test_the_stand_in_never_earns_one(made, profile):
    records = [
        {"profile": profile, "provenance": {"stand_in": stand_in, "device": "cpu"}}
        for stand_in in (False, True)
    ]
    result = Result(made.id, [made.value] * 3, records, [made.value] * 3)
    assert result.verdict == verdicts.STAND_IN


@pytest.mark.parametrize("made", ALL, ids=lambda made: made.id)
def test_smoke_never_earns_one(made):
    smoke = {"profile": "smoke", "provenance": {"stand_in": False, "device": "cpu"}}
    for records in ([], [smoke]):
        result = Result(made.id, [made.value] * 3, records, [made.value] * 3, profile="smoke")
        assert result.verdict not in verdicts.JUDGED
        assert result.grade == ""


def test_an_altered_recipe_does_not():
    altered = record(recipes.MNIST_THEANO, "paper", 0, 0.9)
    altered["recipe"]["epochs"] = 5
    assert answer("mnist_theano", [altered]).verdict == verdicts.OTHER_SETTINGS


def test_values_without_runs_behind_them_do_not():
    assert Result("mnist_theano", [0.9], profile="paper").verdict == verdicts.NOT_RUN
    assert Result("cancellation", [2.0] * 3, [], [1.0] * 3, "paper").verdict == verdicts.NOT_RUN
    assert Result("swar", [5.3]).verdict == verdicts.NOT_RUN


def test_nothing_run():
    result = answer("mnist_theano", [])
    assert (result.verdict, result.n, result.mean) == (verdicts.NOT_RUN, 0, None)
    assert result.std is None and result.difference is None


def test_one_value_has_no_spread():
    assert answer("mnist_theano", seeds(recipes.MNIST_THEANO, "paper", 1.0)).std is None


def ablation(baseline, changed, profile="evening", name="cancellation"):
    """A claim's result from the test errors of its reference and of what is judged."""
    judged, reference = map(recipes.by_name, claims.load()[name].recipes)
    runs = seeds(reference, profile, *baseline) + seeds(judged, profile, *changed)
    return answer(name, runs)


def test_ablations_are_judged_on_networks_that_work_with_three_runs_of_each():
    changed = seeds(recipes.GRADIENTS_NO_CANCELLATION, "quick", 5.0, 5.1, 5.2)
    baseline = seeds(recipes.GRADIENTS_BASELINE, "quick", 2.0, 2.1, 2.2)
    other = seeds(recipes.GRADIENTS_NO_CLIPPING, "quick", 3.0)
    result = answer("cancellation", other + baseline + changed)
    assert (result.grade, result.verdict) == (WORKING, verdicts.REPRODUCED)
    assert result.values == [5.0, 5.1, 5.2] and result.reference == [2.0, 2.1, 2.2]
    assert result.difference == pytest.approx(3.0)
    assert result.interval == "95 % interval +2.77 to +3.23"
    assert answer("cancellation", changed + baseline[:2]).verdict == verdicts.TOO_FEW
    assert answer("cancellation", changed).verdict == verdicts.NOT_RUN


def test_small_networks_show_a_value_and_no_verdict():
    result = ablation([7.0, 7.1, 7.2], [12.0, 12.1, 12.2], "quick")
    assert (result.grade, result.verdict) == (SMALL, verdicts.TOO_SMALL)
    assert result.difference == pytest.approx(5.0)
    # More runs would not help, so their number is not what is told.
    assert ablation([7.0], [12.0]).verdict == verdicts.TOO_SMALL


@pytest.mark.parametrize(
    ("baseline", "grade"),
    [([2.4, 2.5, 2.6], WORKING), ([2.4, 2.5, 2.601], SMALL), ([2.6, 2.6, 2.3], WORKING)],
)
def test_a_network_works_up_to_the_limit_of_its_mean_error(baseline, grade):
    assert ablation(baseline, [9.0, 9.1, 9.2]).grade == grade


def test_each_data_set_has_its_own_limit():
    for error, grade in ((30.0, WORKING), (30.1, SMALL)):
        result = ablation([error] * 3, [60.0] * 3, name="shift_both_cifar10")
        assert result.grade == grade


def test_the_better_arm_says_whether_networks_work_whichever_is_the_reference():
    """Else a comparison in which one arm breaks the training could never be made."""
    better, worse = [2.0, 2.1, 2.2], [9.0, 9.1, 9.2]
    result = ablation(worse, better, name="deterministic_weights")
    assert (result.grade, result.verdict) == (WORKING, verdicts.FOUND)
    assert ablation(better, worse, name="deterministic_weights").verdict == verdicts.OPPOSITE


def test_a_claim_on_other_values_than_errors_is_graded_by_errors_all_the_same():
    runs = seeds(recipes.OPEN_FLOAT, "evening", 7.0, 7.1, 7.2)
    runs += seeds(recipes.OPEN_BOTH, "evening", 8.0, 8.1, 8.2)
    assert answer("gap_of_both", runs, lambda run: run["seed"] / 100).grade == SMALL


def test_values_of_networks_that_no_run_has_made_earn_no_verdict():
    origin = {"profile": "quick", "provenance": {"stand_in": False, "device": "cpu"}}
    result = Result("codes_mnist", [0.1] * 3, [origin])
    assert (result.grade, result.verdict) == ("", verdicts.NOT_RUN)


def test_accuracies_are_graded_too_and_judged_at_the_paper_s_settings_alone():
    graded = [
        (profile, answer("mnist_theano", seeds(recipes.MNIST_THEANO, profile, error)))
        for profile, error in (("quick", 9.0), ("evening", 1.4), ("paper", 9.0))
    ]
    assert [(profile, result.grade) for profile, result in graded] == [
        ("quick", SMALL),
        ("evening", WORKING),
        ("paper", PAPER),
    ]
    assert graded[1][1].verdict == verdicts.OTHER_SETTINGS
    assert graded[2][1].verdict == verdicts.NOT


def test_ablations_have_no_paper_s_settings():
    assert ablation([2.0, 2.1, 2.2], [9.0, 9.1, 9.2], "paper").grade == WORKING


def test_an_altered_recipe_is_not_at_the_paper_s_settings():
    altered = record(recipes.MNIST_THEANO, "paper", 0, 0.9)
    altered["recipe"]["epochs"] = 5
    assert answer("mnist_theano", [altered]).grade == WORKING


def test_data_without_a_limit_have_no_grade_below_the_paper_s():
    assert answer("svhn_theano", seeds(recipes.SVHN_THEANO, "evening", 5.0)).grade == ""


def test_what_takes_no_training_says_how_it_was_obtained():
    made = {"profile": "quick", "provenance": {"stand_in": False, "device": "cpu"}}
    names = ("xnor_over_cublas", "memory_size", "same_accuracy")
    grades = [Result(name, [1.0], [made]).grade for name in names]
    assert grades == ["timed", "computed", "counted"]


@pytest.mark.parametrize("changed", ["epochs", "train_images"])
def test_a_twin_of_another_length_gives_no_value(changed):
    binary = seeds(recipes.CIFAR10_THEANO, "paper", 11.0, 12.0)
    floats = seeds(recipes.CIFAR10_THEANO_FLOAT, "paper", 10.0, 10.5)
    assert answer("figure1_gap_theano", binary + floats).values
    for run in floats:
        run["recipe"][changed] = 100
    result = answer("figure1_gap_theano", binary + floats)
    assert result.verdict == verdicts.LENGTHS_DIFFER
    assert (result.n, result.mean, result.difference, result.grade) == (0, None, None, "")
    assert len(result.records) == 4


def test_two_groups_of_other_lengths_give_no_value():
    changed = seeds(recipes.GRADIENTS_NO_CANCELLATION, "evening", 5.0, 5.1, 5.2)
    baseline = seeds(recipes.GRADIENTS_BASELINE, "quick", 2.0, 2.1, 2.2)
    result = answer("cancellation", changed + baseline)
    assert (result.verdict, result.values, result.reference) == (verdicts.LENGTHS_DIFFER, [], [])


def test_a_reference_of_a_claim_on_one_group_is_subtracted_by_seed():
    binary = seeds(recipes.CIFAR10_THEANO, "paper", 11.0, 12.0, 13.0)
    floats = seeds(recipes.CIFAR10_THEANO_FLOAT, "paper", 10.0, 10.5)
    last = [*binary, *reversed(floats)]
    result = answer("figure1_gap_theano", last, lambda r: r["history"][-1]["validation_error"])
    assert result.values == pytest.approx([1.0, 1.5])
    assert len(result.records) == 4
    assert result.verdict == verdicts.REPRODUCED


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
