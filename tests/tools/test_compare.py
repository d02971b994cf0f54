"""Your results beside the committed ones, on results folders made here."""

import io
import json
import runpy
from dataclasses import asdict, replace
from statistics import fmean

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from study import evidence, page, recipes
from study.page import Page
from study.train import runs
from tools import compare, findings, noise, site
from tools.findings import Results
from tools.noise import Spread

MADE = {
    "sources": "a" * 64,
    "data": "d",
    "device": "cpu",
    "device_name": "a processor",
    "threads": 2,
    "arithmetic": "exact",
    "versions": {"torch": "2.13.0"},
    "started": "2026-01-01T00:00:00+00:00",
    "stand_in": False,
}


def records(name, errors, seconds=1.0, changed=None, **provenance):
    """Runs of a recipe with these test errors, one a seed, as `quick` makes them."""
    recipe = recipes.at_profile(recipes.by_name(name), "quick")
    made = MADE | {"seconds": seconds} | provenance
    return [
        {
            "schema": runs.SCHEMA,
            "recipe": asdict(replace(recipe, **(changed or {}))),
            "profile": "quick",
            "seed": seed,
            "test_error": error,
            "provenance": made,
        }
        for seed, error in enumerate(errors)
    ]


def measured(claim, *values, device="a processor", stand_in=False):
    """A claim's result that no run is behind; device None: it was computed."""
    made = {"profile": "quick", "provenance": MADE | {"stand_in": stand_in, "device_name": device}}
    return evidence.Result(claim, values, [made] if device else [], profile="quick")


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Two results folders to be filled by `fill`; -> (yours, the committed)."""
    monkeypatch.setattr(compare, "ROOT", tmp_path)
    monkeypatch.setattr(site, "COMMITTED", tmp_path / "results")
    monkeypatch.setattr(compare, "LOCAL", tmp_path / "results" / "local")
    return tmp_path / "results" / "local", tmp_path / "results"


@pytest.fixture
def fill(monkeypatch):
    def fill(folder, made=(), answered=(), measurements=()):
        monkeypatch.setattr(runs, "results_folder", lambda: folder)
        written = []
        for record in made:
            name = f"{record['recipe']['name']}/quick/cpu-seed{record['seed']}"
            path = folder / "runs" / f"{name}.json"
            runs.write_record(path, record)
            written.append(runs.read_record(path))
        results = [evidence.answer(claim, written) for claim in answered] + list(measurements)
        page.publish(Page("04_mnist", "quick"), results, written)

    return fill


def found(folders):
    """(what, finding) of claims and runs."""
    sides = tuple(Results(folder, "quick") for folder in folders)
    lines = compare.claim_lines(sides), compare.run_lines(sides)
    return [[line.finding for line in part] for part in lines]


# --- the rule ---------------------------------------------------------------------------------

groups = st.lists(st.floats(0, 100).map(lambda x: round(x, 2)), min_size=2, max_size=6)


@given(groups, groups)
def test_one_mean_is_judged_as_by_students_t_test(here, there):
    assume(np.std(here) > 0.01 and np.std(there) > 0.01)
    p = ttest_ind(here, there).pvalue
    assume(abs(p - noise.CHANCE) > 1e-6)
    most = noise.limit([(noise.pooled([here, there]), len(here), len(there))])
    assert (abs(fmean(here) - fmean(there)) <= most) == (p >= noise.CHANCE)


@given(groups, groups)
def test_two_means_of_one_spread_each_are_judged_as_by_welchs_t_test(values, reference):
    assume(np.std(values) > 0.01 and np.std(reference) > 0.01)
    n, m = len(values), len(reference)
    # A second side of so many runs that its share of the standard error is nothing.
    parts = [(noise.pooled([group]), len(group), 10**12) for group in (values, reference)]
    test = ttest_ind(values, reference, equal_var=False)
    error = (np.var(values, ddof=1) / n + np.var(reference, ddof=1) / m) ** 0.5
    low, high = test.confidence_interval(1 - noise.CHANCE)
    assert noise.limit(parts) == pytest.approx((high - low) / 2, rel=1e-6)
    assert noise.limit(parts) >= 1.95 * error


def test_a_spread_comes_from_groups_of_two_or_more_about_their_own_means():
    assert noise.pooled([[1.0], [2.0]]) is None
    assert noise.pooled([[1.0, 3.0], [101.0, 103.0], [7.0]]) == Spread(pytest.approx(2**0.5), 2)
    assert noise.typical([None, Spread(1, 2), Spread(5, 2), Spread(2, 3)]) == Spread(2, 7)
    assert noise.typical([None]) is None


def test_without_a_spread_there_is_no_limit_and_without_any_variation_it_is_zero():
    assert noise.limit([(Spread(1, 2), 1, 1), (None, 1, 1)]) is None
    assert noise.limit([(noise.pooled([[1.0, 1.0]]), 2, 1)]) == 0


# --- runs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "here", "finding"),
    [
        ([2.08, 2.23], {"seconds": 9.0}, findings.SAME),
        ([2.08, 2.24], {"seconds": 9.0}, findings.DIFFERS),
        ([2.08, 2.23], {}, findings.COPIED),
        ([2.08], {}, findings.COPIED),
        ([2.02, 2.31], {"threads": 1}, findings.NOISE),
        ([3.02, 3.31], {"threads": 1}, findings.NOT_NOISE),
        ([2.08, 2.23], {"threads": 1}, findings.SAME),
        ([2.02], {"threads": 1}, findings.NOISE),
        ([5.02], {"sources": "b" * 64}, findings.NOT_NOISE),
        ([2.08, 2.23], {"seconds": 9.0, "changed": {"epochs": 1}}, findings.SETTINGS),
        ([2.08, 2.23], {"stand_in": True}, findings.STAND_IN),
    ],
)
def test_runs_and_the_claim_they_answer(errors, here, finding, folders, fill):
    name, claim = "mnist-theano", ["mnist_theano"]
    fill(folders[1], records(name, [2.08, 2.23]), claim)
    fill(folders[0], records(name, errors, **here), claim)
    assert found(folders) == [[finding], [finding]]


def test_single_runs_are_judged_by_similar_ones_if_there_are_any(folders, fill):
    fill(folders[1], records("mnist-torch7", [3.59]), ["mnist_torch7"])
    fill(folders[0], records("mnist-torch7", [3.65], threads=1), ["mnist_torch7"])
    assert found(folders) == [[findings.UNKNOWN], [findings.UNKNOWN]]
    others = records("gaps-mnist-baseline", [11.0, 11.1, 11.2])
    unlike = records("gaps-cifar10-baseline", [67.0, 60.0, 50.0])
    for errors, finding in (([3.65], findings.NOISE), ([4.59], findings.NOT_NOISE)):
        fill(folders[1], records("mnist-torch7", [3.59]) + others + unlike, ["mnist_torch7"])
        fill(folders[0], records("mnist-torch7", errors, threads=1), ["mnist_torch7"])
        assert found(folders) == [[finding], [finding]]


def test_a_claim_on_two_groups_is_judged_by_the_spread_of_both(folders, fill):
    def pair(changed, baseline, **made):
        names = "gradients-no-cancellation", "gradients-baseline"
        return records(names[0], changed, **made) + records(names[1], baseline, **made)

    fill(folders[1], pair([12.3, 12.2, 12.0], [7.0, 7.2, 7.5]), ["cancellation"])
    fill(folders[0], pair([12.5, 12.4, 12.1], [7.1, 7.2, 7.2], threads=1), ["cancellation"])
    assert found(folders)[0] == [findings.NOISE]
    fill(folders[0], pair([14.5, 14.4, 14.1], [7.1, 7.2, 7.2], threads=1), ["cancellation"])
    assert found(folders) == [[findings.NOT_NOISE], [findings.NOISE, findings.NOT_NOISE]]


def test_a_withheld_value_is_compared_with_nothing(folders, fill):
    for folder, error in zip(folders, (36.0, 37.0), strict=True):
        twins = records("cifar10-theano", [error]) + records("cifar10-theano-float", [30.0])
        fill(folder, twins, ["figure1_gap_theano"])
    assert found(folders)[0] == []


# --- measurements -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "here", "finding"),
    [
        (("swar", 5.3), ("swar", 5.3), findings.SAME),
        (("first_layer_exact", 0), ("first_layer_exact", 0), findings.SAME),
        (("first_layer_exact", 0), ("first_layer_exact", 1), findings.DIFFERS),
        (("client_file", 7.6), ("client_file", 7.7), findings.UNKNOWN),
        (("stochastic_cost", 9.6, 9.8, 9.1), ("stochastic_cost", 9.5, 9.9, 9.2), findings.NOISE),
        (("stochastic_cost", 9.6, 9.8, 9.1), ("stochastic_cost", 4, 4.1, 4.2), findings.NOT_NOISE),
        (("client_latency", 3.7), ("client_latency", 3.8), findings.UNKNOWN),
        (("client_latency", 3.7), ("client_latency", 3.7), findings.COPIED),
    ],
)
def test_measurements_on_one_machine(there, here, finding, folders, fill):
    fill(folders[1], measurements=[measured(*there)])
    fill(folders[0], measurements=[measured(*here)])
    assert found(folders)[0] == [finding]


def test_what_is_computed_must_be_equal_and_times_of_two_machines_are_not_judged(folders, fill):
    computed = measured("swar", 5.3, device=None), measured("swar", 5.4, device=None)
    timed = measured("client_latency", 3.7), measured("client_latency", 3.8, device="another")
    for side, *both in zip(folders, computed, timed, strict=True):
        fill(side, measurements=both)
    assert found(folders)[0] == [findings.DIFFERS, findings.MACHINE]


def test_a_value_on_stand_in_data_is_set_beside_none(folders, fill, capsys):
    fill(folders[1], measurements=[measured("client_file", 7.6)])
    fill(folders[0], measurements=[measured("client_file", 7.7, stand_in=True)])
    assert found(folders)[0] == [findings.STAND_IN]
    assert compare.main([]) == 0
    assert "7.7" not in capsys.readouterr().out


# --- what is printed --------------------------------------------------------------------------


def filled(folders, fill, here=(2.02, 2.31)):
    extra = records("gaps-mnist-baseline", [11.0, 11.1, 11.2])
    fill(folders[1], records("mnist-theano", [2.08, 2.23]) + extra, ["mnist_theano"])
    fill(folders[0], records("mnist-theano", here, threads=1), ["mnist_theano"])


def test_tables_conditions_and_one_sentence_at_the_end(folders, fill, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")
    filled(folders, fill)
    assert compare.main(["--profile", "quick"]) == 0
    out = capsys.readouterr().out
    assert "Test error on MNIST, Theano recipe" in out
    row = next(line for line in out.splitlines() if line.startswith("mnist-theano "))
    assert row.split() == "mnist-theano 2.16 ± 0.11 2.17 ± 0.21 2 +0.01 noise".split()
    assert "threads (2 there, 1 here)" in out
    assert "Not run here: 0 claims and 1 recipes" in out
    last = out.splitlines()[-1]
    assert last == "Of 2 results 2 noise: nothing that can be judged differs by more than noise."


def test_what_is_more_than_noise_is_named_with_what_chance_alone_makes(folders, fill, capsys):
    filled(folders, fill, here=(4.02, 4.31))
    assert compare.main([]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert "2 not noise: more than noise are Test error on MNIST, Theano recipe; mnist" in last
    assert "of 2 judged, chance alone makes about 0.1 so" in last


@pytest.mark.parametrize("columns", [80, 120])
def test_tables_fit_the_terminal(columns, folders, fill, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    wide = [measured("xnor_over_baseline", 18.70295, 18.9), measured("client_latency", 3.716552)]
    fill(folders[1], records("gaps-cifar10-baseline", [67.0, 60.0]), measurements=wide)
    wide = [measured("xnor_over_baseline", 28.70295, 28.9), measured("client_latency", 4.716552)]
    fill(folders[0], records("gaps-cifar10-baseline", [67.1, 60.0]), measurements=wide)
    assert compare.main([]) == 0
    tables = capsys.readouterr().out.rpartition("\n\n")[0].splitlines()
    assert len(tables) > 5 and max(map(len, tables)) <= columns


def test_what_a_terminal_cannot_show_is_replaced(monkeypatch):
    """Tables have a ± in them, terminals may know ASCII alone."""
    terminal = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr("sys.argv", ["compare", "--help"])
    with pytest.raises(SystemExit):
        runpy.run_path(compare.__file__, run_name="__main__")
    print("±", flush=True)
    assert terminal.buffer.getvalue().endswith(b"?\n")


def test_nothing_of_your_own(folders, fill, capsys):
    for folder in folders:
        fill(folder, records("mnist-theano", [2.08, 2.23]), ["mnist_theano"])
    assert compare.main([]) == 0
    assert capsys.readouterr().out.endswith("there is nothing of your own to compare.\n")


def test_without_results_of_your_own_there_is_a_sentence(folders, fill, capsys):
    fill(folders[1], records("mnist-theano", [2.08]), ["mnist_theano"])
    assert compare.main([]) == 1
    shown = capsys.readouterr()
    assert not shown.out and len(shown.err.splitlines()) == 1
    assert "results/local" in shown.err and "make reproduce PROFILE=quick" in shown.err


@pytest.mark.parametrize("spoiled", ["runs/mnist-theano/quick/cpu-seed0.json", None])
def test_a_damaged_or_missing_run_is_named(spoiled, folders, fill, capsys):
    filled(folders, fill)
    if spoiled:
        path = folders[0] / spoiled
        path.write_text(json.dumps(json.loads(path.read_text()) | {"test_error": 0.5}))
    else:
        (folders[0] / "runs" / "mnist-theano" / "quick" / "cpu-seed0.json").unlink()
    assert compare.main([]) == 1
    err = capsys.readouterr().err
    assert "cpu-seed0" in err and len(err.splitlines()) == 1


def test_yours_is_only_what_was_made_here(folders, fill):
    """Committed runs and times that a page shows again are not; what is counted anew is."""
    mine, committed = folders
    shown = [measured("xnor_over_cublas", 5.0), measured("swar", 16 / 3, device=None)]
    made = records("mnist-theano", [1.4])
    fill(committed, made, ["mnist_theano"], shown)
    fill(mine, made, ["mnist_theano"], shown)
    assert {row.claim.id for row in findings.own_rows(mine, committed) if row.entry} == {"swar"}
    anew = [measured("xnor_over_cublas", 5.1), shown[1]]
    fill(mine, records("mnist-theano", [1.4], seconds=2.0), ["mnist_theano"], anew)
    own = {row.claim.id: row for row in findings.own_rows(mine, committed) if row.entry}
    assert own.keys() == {"swar", "mnist_theano", "xnor_over_cublas"}
    assert own["xnor_over_cublas"].value == 5.1
