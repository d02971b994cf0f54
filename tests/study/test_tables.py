"""Recipes and profiles side by side, and which factors explain a gap, from records made by hand."""

import json

import pandas as pd
import pytest
from hand_made import record, seeds

from study import recipes, tables, verdicts
from study.train import runs

MNIST = recipes.MNIST_THEANO
WIDTH, BASELINE = recipes.GAPS_MNIST_WIDTH, recipes.GAPS_MNIST_BASELINE


@pytest.fixture
def committed(tmp_path, monkeypatch):
    """A folder of committed records: an evening with two seeds, one of them on two devices."""
    monkeypatch.setattr(runs, "COMMITTED", tmp_path)
    for device, seed, error in (("cpu", 0, 1.2), ("cpu", 10, 1.3), ("cuda", 10, 1.4)):
        path = tmp_path / "mnist-theano" / "evening" / f"{device}-seed{seed}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        made = record(MNIST, "evening", seed % 10, error)
        made["digest"] = runs.digest({k: v for k, v in made.items() if k != "digest"})
        path.write_text(json.dumps(made))


def test_better_runs_are_the_committed_ones_of_more_faithful_profiles(committed):
    found = tables.better_runs("quick", [MNIST, recipes.MNIST_TORCH7])
    assert [run["test_error"] for run in found] == [1.2, 1.4]
    assert tables.better_runs("evening", [MNIST]) == []
    assert tables.better_runs("paper", [MNIST]) == []


def test_a_smoke_page_shows_no_result(committed):
    assert tables.better_runs("smoke", [MNIST]) == []


def test_best_runs_are_of_one_profile():
    quick, evening = seeds(MNIST, "quick", 2.0, 2.1), seeds(MNIST, "evening", 1.2)
    assert tables.best_runs(evening + quick) == evening
    assert tables.best_runs([]) == []


def test_answers_begin_with_the_page_s_own_run_or_not():
    records = seeds(MNIST, "evening", 1.2) + seeds(MNIST, "paper", 0.9, 1.0)
    own, evening, paper = tables.answers("mnist_theano", records, "quick")
    assert own.verdict == verdicts.NOT_RUN
    assert (evening.values, evening.verdict) == ([1.2], verdicts.OTHER_SETTINGS)
    assert (paper.n, paper.verdict) == (2, verdicts.REPRODUCED)
    (alone,) = tables.answers("mnist_torch7", records, "quick")
    assert alone.verdict == verdicts.NOT_RUN


def test_errors_has_a_row_for_each_recipe_and_profile():
    records = seeds(MNIST, "quick", 2.0, 2.2) + seeds(MNIST, "evening", 1.2)
    rows = tables.errors(records).to_dict("records")
    assert [(row["profile"], row["n"]) for row in rows] == [("quick", 2), ("evening", 1)]
    assert rows[0]["test error (%)"] == "2.10 ± 0.14"
    assert rows[1]["epochs"] == recipes.at_profile(MNIST, "evening").epochs


def test_our_table_one_says_what_was_not_run():
    records = seeds(MNIST, "quick", 2.0, 2.2) + seeds(recipes.MNIST_TORCH7_CODE, "evening", 1.5)
    table = tables.our_table_one(records, "quick").set_index(["method", "profile"])
    assert len(table) == 4 * 2
    assert table.loc[("BNN (Theano)", "quick"), "MNIST"] == "2.10 ± 0.14 (n = 2)"
    assert table.loc[("BNN (Torch7, the code)", "evening"), "MNIST"] == "1.50 (n = 1)"
    assert table.loc[("BNN (Theano)", "evening"), "MNIST"] == verdicts.NOT_RUN
    assert set(table["SVHN"]) == {verdicts.NOT_RUN}


def test_differences_are_welch_s():
    records = seeds(BASELINE, "quick", 1.0, 2.0, 3.0) + seeds(WIDTH, "quick", 4.0, 5.0, 6.0)
    (row,) = tables.differences(records, BASELINE.name).to_dict("records")
    assert row["difference (points)"] == "+3.00"
    # The standard error is sqrt(2 / 3); t(4) exceeds 2.77645 with probability 2.5 %.
    assert row["95 % interval"] == "+0.73 to +5.27"


def test_one_run_is_a_difference_without_an_interval():
    records = seeds(BASELINE, "evening", 1.0, 1.1) + seeds(WIDTH, "evening", 1.5)
    records += seeds(WIDTH, "quick", 9.0)  # its baseline was not run there
    (row,) = tables.differences(records, BASELINE.name).to_dict("records")
    assert (row["difference (points)"], row["n"]) == ("+0.45", "1, 2")
    assert pd.isna(row["95 % interval"])


def test_gap_sentences_name_what_goes_the_way_of_the_gap():
    names = ("gap_mnist_width", "gap_mnist_dropout", "gap_mnist_stochastic")
    records = seeds(BASELINE, "quick", 2.0, 2.1, 2.2) + seeds(WIDTH, "quick", 3.0, 3.1, 3.2)
    records += seeds(recipes.GAPS_MNIST_NO_DROPOUT, "quick", 1.5, 1.6, 1.7)
    records += seeds(recipes.GAPS_MNIST_STOCHASTIC, "quick", 2.0, 2.4, 2.5)
    groups = [tables.answers(name, records, "quick") for name in names]
    (line,) = tables.gap_sentences("MNIST", ("mnist_torch7", "mnist_theano"), groups)
    assert line.startswith("**MNIST.** The paper's error goes from 0.96 % to 1.40 %, by +0.44")
    assert "± 0.15 points" in line  # sqrt(0.96 * 99.04 + 1.40 * 98.60) / 100
    assert "(quick profile), these move it the same way: width (+1.00);" in line
    assert "these move it the other way: no dropout (-0.50);" in line
    assert "undecided by so few runs: stochastic (+0.20)." in line
    assert "make +0.70 points" in line


def test_gap_sentences_say_that_networks_are_too_small():
    records = seeds(BASELINE, "quick", 9.0, 9.1, 9.2) + seeds(WIDTH, "quick", 12.0, 12.1, 12.2)
    groups = [tables.answers("gap_mnist_width", records, "quick")]
    (line,) = tables.gap_sentences("MNIST", ("mnist_torch7", "mnist_theano"), groups)
    assert "(quick profile), on networks too small to tell: width (+3.00)." in line


def test_gap_sentences_turn_differences_of_a_judged_baseline_round():
    names = ("gap_cifar10_zca", "gap_cifar10_batch")
    records = seeds(recipes.GAPS_CIFAR10_BASELINE, "evening", 20.0, 20.1, 20.2)
    records += seeds(recipes.GAPS_CIFAR10_ZCA, "evening", 18.0, 18.1, 18.2)
    groups = [tables.answers(name, records, "quick") for name in names]
    pair = ("cifar10_torch7", "cifar10_theano")
    own, evening = tables.gap_sentences("CIFAR-10", pair, groups)
    assert "(no profile), not run: zca, batch." in own
    assert "(evening profile), these move it the same way: zca (-2.00)." in evening


def test_changes_name_what_differs_from_the_first():
    rows = tables.changes(recipes.GAPS_MNIST).set_index("recipe")["settings"]
    assert rows["gaps-mnist-width"] == "hidden (2048, 2048, 2048)"
    assert rows["gaps-mnist-stochastic"] == "activations stochastic"
    assert "epochs 1000" in rows["gaps-mnist-baseline"]


@pytest.mark.parametrize("table", [tables.errors, lambda none: tables.differences(none, "a")])
def test_tables_of_nothing_are_empty(table):
    assert len(table([])) == 0
