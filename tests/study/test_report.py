"""Tables, sentences, figures and the metrics file, from records made by hand."""

import json
import os

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hand_made import record, seeds
from matplotlib.font_manager import FontProperties

from bnnlib import binarize
from study import claims, curves, figures, recipes, report
from study.page import Page
from study.report import Result, answer
from study.train import provenance, runs

MNIST = recipes.MNIST_THEANO


@pytest.fixture(autouse=True)
def clean_figures():
    matplotlib.use("agg")
    with plt.rc_context():
        yield
    plt.close("all")


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.setenv("BNN_RESULTS", str(tmp_path))
    return report.start("04_mnist", "paper")


@pytest.fixture
def displayed(monkeypatch):
    """What a notebook would show."""
    shown = []
    monkeypatch.setattr(report, "display", shown.append)
    return shown


def texts(figure) -> str:
    return " | ".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


def test_an_unknown_profile_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match="unknown profile 'fast': choose one of smoke, quick"):
        report.start("04_mnist", "fast")


# Tables and sentences


def test_compare():
    results = [
        answer("mnist_theano", seeds(MNIST, "paper", 0.9, 1.0, 1.1)),
        answer("cifar10_theano", seeds(recipes.CIFAR10_THEANO, "evening", 14.5)),
        answer("svhn_theano", []),
    ]
    rows = report.compare(results).to_dict("records")
    assert rows[0] == {
        "claim": "Test error on MNIST, Theano recipe",
        "paper": "0.96 %",
        "ours": "1.00 ± 0.10 % (n = 3)",
        "difference": "+0.04 points",
        "criterion": "at most 1.16 %",
        "verdict": "reproduced",
        "evidence": "paper's settings, paper profile, A Machine",
    }
    assert rows[1]["ours"] == "14.50 % (n = 1)" and rows[1]["paper"] == "11.40 %"
    assert rows[1]["verdict"] == "not at the paper's settings"
    assert rows[1]["evidence"].startswith("working networks, evening profile")
    assert (rows[2]["ours"], rows[2]["difference"]) == ("not run", "")
    assert (rows[2]["verdict"], rows[2]["evidence"]) == ("not run", "")


def test_a_value_is_withheld_where_the_lengths_differ():
    runs_of_both = seeds(recipes.CIFAR10_THEANO, "quick", 36.0)
    runs_of_both += seeds(recipes.CIFAR10_THEANO_FLOAT, "quick", 30.0)
    result = answer("figure1_gap_theano", runs_of_both)
    row = report.compare([result]).to_dict("records")[0]
    assert (row["ours"], row["verdict"]) == ("lengths differ", "lengths differ")
    assert row["difference"] == ""


def test_compare_two_groups():
    runs_of_both = seeds(recipes.GRADIENTS_NO_CANCELLATION, "quick", 5.0, 5.1, 5.2)
    runs_of_both += seeds(recipes.GRADIENTS_BASELINE, "quick", 2.0, 2.1, 2.2)
    row = report.compare([answer("cancellation", runs_of_both)]).to_dict("records")[0]
    assert row["ours"] == "5.10 ± 0.10 against 2.10 ± 0.10 % (n = 3, 3)"
    assert row["difference"] == "+3.00 points (95 % interval +2.77 to +3.23)"
    assert row["evidence"].startswith("working networks, quick profile")
    assert row["criterion"] == "interval lies above 0"
    assert row["verdict"] == "reproduced"


def test_criteria_name_all_outcomes_and_the_evidence_that_they_take():
    names = ["mnist_theano", "cancellation", "latent_8_nearest", "xnor_over_cublas"]
    rows = report.criteria(names)[["criterion", "judged at"]].values.tolist()
    assert rows[0] == [
        "reproduced if the mean is at most 1.16 %; partly, up to three times that margin",
        "the paper's settings",
    ]
    assert rows[1][0] == (
        "reproduced if the 95 % interval of the difference lies above 0; opposite if it lies "
        "below 0; else undecided"
    )
    assert rows[1][1].startswith("networks that work: a mean error of at most 2.5 % on MNIST")
    assert rows[2][0] == (
        "found if the 95 % interval of the difference ends at or below +0.5 points; opposite if "
        "it begins above +0.5 points; else undecided"
    )
    assert rows[3] == ["reproduced if the mean is at least 3.4 ×", "any machine"]


@pytest.mark.parametrize("name", claims.load())
def test_every_claim_has_a_row_before_it_is_run(name):
    result = answer(name, []) if claims.load()[name].recipes else Result(name, [])
    row = report.compare([result]).to_dict("records")[0]
    assert row["verdict"] == row["ours"] == "not run" and row["evidence"] == ""
    assert row["criterion"] and claims.load()[name].criterion.endswith(row["criterion"][8:])


def test_show_hides_the_index_escapes_and_cuts_nothing_off(displayed):
    report.show(report.criteria(["mnist_theano", "clipping"]))
    html = displayed[0].data
    assert "<th>0</th>" not in html and "..." not in html
    assert claims.load()["mnist_theano"].selection in html


def test_show_source_shows_the_real_source(displayed):
    report.show_source(binarize.sign, Page)
    assert "def sign(x: Tensor) -> Tensor:" in displayed[0].data
    assert "# study.page\n@dataclass(frozen=True)\nclass Page:" in displayed[0].data


def test_table_one_is_the_papers():
    table = report.table_one().set_index("method")
    assert list(table.loc["BNN (Theano)", ["MNIST", "SVHN", "CIFAR-10"]]) == [
        "0.96",
        "2.80",
        "11.40",
    ]
    assert table.loc["Network in Network", "MNIST"] == "-"
    assert len(table) == 11


def test_recipe_table_says_what_the_profile_changes():
    table = report.recipe_table([MNIST], "quick").set_index("hyperparameter")
    assert table.loc["epochs", "paper"] == "1000"
    assert table.loc["epochs", "ours (quick)"].endswith(" (paper profile: 1000)")
    assert table.loc["cancel saturated", "ours (quick)"] == "yes"
    untouched = report.recipe_table([MNIST], "paper").set_index("hyperparameter")
    assert not untouched["ours (paper)"].str.contains("paper profile").any()


def test_recipe_table_sets_recipes_side_by_side_that_share_their_sources():
    words, code = recipes.MNIST_TORCH7, recipes.MNIST_TORCH7_CODE
    table = report.recipe_table([words, code], "paper").set_index("hyperparameter")
    halving = table.loc["halve every", ["mnist-torch7 (paper)", "mnist-torch7-code (paper)"]]
    assert list(halving) == ["10", "20"]
    with pytest.raises(ValueError, match="citations of their own"):
        report.recipe_table([MNIST, words], "paper")


def test_history_is_long():
    table = report.history(seeds(MNIST, "paper", 0.9, 1.0))
    assert len(table) == 6
    assert list(table.columns[:4]) == ["recipe", "profile", "seed", "epoch"]


def test_provenance_merges_seeds_and_marks_what_differs(monkeypatch):
    records = seeds(MNIST, "paper", 0.9, 1.0, 1.1)
    for run in records:
        run["provenance"]["started"] = "2026-11-10T00:00:00+00:00"
    monkeypatch.setattr(runs, "same_numbers", lambda: [])
    records[2]["provenance"] |= {"sources": "f" * 64, "dirty": True, "processes": 4}
    table = report.provenance(records)
    assert list(table["seeds"]) == ["0, 1", "2"]
    assert table["sources"][0] == provenance.source_hash()[:8]
    assert table["sources"][1] == f"ffffffff (now {provenance.source_hash()[:8]})"
    assert table["commit"][1] == "0123456 (dirty)"
    assert table["device"][1] == f"{table['device'][0]}, 4 processes"
    assert list(table["minutes"]) == ["3.0", "3.0"]
    pairs = [{"before": "f" * 64, "now": provenance.source_hash()}]
    monkeypatch.setattr(runs, "same_numbers", lambda: pairs)
    same = f"ffffffff (same numbers as {provenance.source_hash()[:8]})"
    assert report.provenance(records)["sources"][1] == same


def test_cost_is_that_of_the_median_epoch():
    still = seeds(MNIST, "paper", 0.9)
    still[0]["history"][1]["seconds"] = 5000.0  # stopped while something else was timed
    runs = still + seeds(MNIST, "paper", 1.0, 1.1)
    (row,) = report.cost(runs).to_dict("records")
    assert (row["epochs"], row["seconds an epoch"], row["minutes a run"]) == (3, "2.0", "0.1")


@pytest.mark.parametrize(
    "table", [report.history, report.provenance, report.cost, report.compare, report.criteria]
)
def test_tables_of_nothing_are_empty(table):
    assert len(table([])) == 0


# Figures


def test_learning_curves_of_several_recipes_and_seeds():
    records = seeds(MNIST, "paper", 0.9, 1.0) + seeds(recipes.MNIST_THEANO_FLOAT, "paper", 0.8)
    figure = report.learning_curves(records)
    assert "Theano (n = 2)" in texts(figure)
    assert "float twin (n = 1)" in texts(figure)
    assert "paper profile; thin line: one seed" in texts(figure)
    errors, losses = figure.axes
    assert len(errors.lines) == 3 + 1  # two seeds and their mean, one seed
    assert {line.get_linestyle() for line in losses.lines} == {"--"}


def test_learning_curves_of_two_profiles_name_them_in_the_legend():
    figure = report.learning_curves(seeds(MNIST, "quick", 2.0) + seeds(MNIST, "paper", 0.9, 1.0))
    assert "Theano, quick profile (n = 1)" in texts(figure)
    assert "Theano, paper profile (n = 2)" in texts(figure)


def test_points_of_the_paper_stand_beside_the_runs():
    points = {"theano": {"epochs": [1, 100], "validation_error": [3, 2]}}
    axes = curves.beside_the_paper(seeds(MNIST, "paper", 0.9), points).axes[0]
    ours, theirs = axes.lines
    assert list(theirs.get_xdata()) == [1, 100] and list(theirs.get_ydata()) == [3, 2]
    assert ours.get_color() == theirs.get_color() == figures.COLOURS["theano"]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["Theano (n = 1)", "the paper's Figure 1, Theano"]
    assert axes.get_xscale() == "log"


def test_a_long_name_in_a_legend_takes_two_lines():
    assert figures.in_lines("AMD EPYC (znver4): 8192x8192x8192").count("\n") == 0
    broken = figures.in_lines("A Processor of Many Words (some-model), here: MNIST MLP, batch 200")
    assert broken.count("\n") == 1
    assert max(map(len, broken.splitlines())) <= figures.ENTRY_WIDTH


def test_one_colour_means_one_thing():
    for name in ("mnist-theano", "cifar10-theano", "mnist-theano-first-epoch", "shift-baseline"):
        assert figures.colour(name, [name]) == figures.COLOURS["theano"]
    assert figures.colour("cifar10-theano-float", []) == figures.COLOURS["float"]
    assert figures.colour("mnist-torch7", []) != figures.colour("mnist-torch7-code", [])
    assert figures.colour("a", ["a", "b"]) != figures.colour("b", ["a", "b"])


def test_curves_cope_with_errors_of_zero_and_runs_of_one_epoch():
    run = record(MNIST, "smoke", 0, 0.0, stand_in=True)
    run["history"] = run["history"][:1]
    figure = report.learning_curves([run])
    assert figures.STAND_IN in texts(figure)
    assert figure.axes[0].get_yscale() == "linear"


def test_effects_puts_the_baseline_first():
    records = seeds(recipes.GRADIENTS_NO_GLOROT, "quick", 9.0, 9.5, 10.0)
    records += seeds(recipes.GRADIENTS_BASELINE, "quick", 2.0, 2.1, 2.2)
    figure = report.effects(records, "gradients-baseline", [])
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["baseline", "no glorot"]
    assert "9.50 ± 0.50 (n = 3)" in texts(figure) and "log scale" in texts(figure)
    assert "linear classifier on pixels: not run" in texts(figure)


def test_effects_has_the_line_of_the_linear_classifier_at_the_profile_that_it_shows():
    records = seeds(recipes.GRADIENTS_BASELINE, "evening", 1.7, 1.8)
    linear = seeds(recipes.MNIST_LINEAR, "evening", 8.0, 8.2)
    linear += seeds(recipes.MNIST_LINEAR, "quick", 9.0)
    linear += seeds(recipes.CIFAR10_LINEAR, "evening", 60.0)
    figure = report.effects(records, "gradients-baseline", linear)
    assert "linear classifier on pixels: 8.10 % (n = 2)" in texts(figure)
    (axes,) = figure.axes
    places = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"]
    assert places == [pytest.approx(8.1)] and axes.get_xlim()[1] > 8.1


def test_figures_of_nothing_say_so():
    nothing = [report.learning_curves([]), report.effects([], "gradients-baseline", [])]
    for figure in [*nothing, curves.beside_the_paper([], {})]:
        assert "not run" in texts(figure)


def test_the_smallest_text_of_a_figure_can_be_read_on_a_phone():
    figures.style()
    room = 355  # pixels for a figure on a page that is 390 wide
    points = FontProperties(size="small").get_size_in_points()
    assert points / 72 * room / figures.WIDTH >= 9


def test_saved_figures_have_the_same_bytes_each_time(page, tmp_path):
    contents = set()
    for _ in range(2):
        figure = report.learning_curves(seeds(MNIST, "paper", 0.9, 1.0))
        path = report.save(page, figure, "learning-curves")
        contents.add(path.read_bytes())
    assert path == tmp_path / "paper" / "figures" / "04_mnist-learning-curves.svg"
    assert len(contents) == 1
    text = contents.pop().decode()
    assert "validation error" in text  # text as text
    assert "<dc:date>" not in text


# Metrics


def test_publish(page, tmp_path):
    records = seeds(MNIST, "paper", 0.9, 1.0, 1.1)
    figure = report.save(page, report.learning_curves(records), "learning-curves")
    results = [answer("mnist_theano", records), answer("mnist_torch7", [])]
    path = report.publish(page, results, records, {"gap": np.float64(0.5)}, [figure])
    assert path == tmp_path / "paper" / "metrics" / "04_mnist.json"
    content = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert {key: content[key] for key in ("schema", "notebook", "profile")} == {
        "schema": 1,
        "notebook": "04_mnist",
        "profile": "paper",
    }
    assert content["sources"] == provenance.source_hash()
    assert content["findings"] == {"gap": 0.5}
    assert content["figures"] == ["paper/figures/04_mnist-learning-curves.svg"]
    assert content["records"][0] == {
        "recipe": "mnist-theano",
        "profile": "paper",
        "seed": 0,
        "device": "cpu",
        "digest": records[0]["digest"],
    }
    first, second = content["claims"]
    assert first["values"] == [0.9, 1.0, 1.1] and first["n"] == 3
    assert (first["grade"], second["grade"]) == ("paper's settings", "")
    assert (first["verdict"], first["device"]) == ("reproduced", "cpu")
    assert (first["device_name"], first["date"]) == ("A Machine", "2026-11-12")
    assert first["records"] == [f"mnist-theano/paper/cpu-seed{seed}" for seed in range(3)]
    assert (second["verdict"], second["mean"], second["n"]) == ("not run", None, 0)
    assert second["device"] is None and second["stand_in"] is False


def test_publish_one_value_has_a_null_spread(page):
    path = report.publish(page, [answer("mnist_theano", seeds(MNIST, "paper", 1.0))], [])
    assert json.loads(path.read_text())["claims"][0]["std"] is None


def test_publish_a_measurement(page):
    bench = {"profile": "paper", "provenance": provenance.gather("cpu")}
    result = Result("xnor_over_cublas", (np.float64(4.0),), [bench])
    entry = json.loads(report.publish(page, [result], []).read_text())["claims"][0]
    assert (entry["verdict"], entry["values"], entry["records"]) == ("reproduced", [4.0], [])
    assert entry["device"] == "cpu"


def test_publish_writes_all_or_nothing(page, monkeypatch):
    path = report.publish(page, [], [], {"first": 1})
    before = path.read_bytes()
    with pytest.raises(ValueError):
        report.publish(page, [], [], {"second": float("nan")})

    def crash(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError):
        report.publish(page, [], [], {"second": 2})
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["04_mnist.json"]
