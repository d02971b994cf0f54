"""The gap between training and validation error, from records made by hand."""

import matplotlib.pyplot as plt
import pytest
from hand_made import seeds

from study import figures, generalization_gap, recipes
from study.evidence import answer

NAMES = [name + end for name in generalization_gap.KINDS for end in ("", "-dropout")]


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def runs_of(name: str, *validation_errors: float, training: float = 1.0) -> list[dict]:
    """Quick records; the second of the three epochs is the best one."""
    records = seeds(recipes.by_name(name), "quick", *validation_errors)
    for record, error in zip(records, validation_errors, strict=True):
        for entry, shift in zip(record["history"], (2.0, 0.0, 1.0), strict=True):
            entry["validation_error"] = error + shift
        record |= {"best_epoch": 2, "selected_train_error": training, "test_error": error + 0.5}
    return records


def test_the_gap_is_that_of_the_selected_epoch():
    (record,) = runs_of("open-float", 7.0, training=1.5)
    assert generalization_gap.gap(record) == 5.5


def test_the_table_has_a_row_for_every_network_with_runs_in_a_fixed_order():
    records = [run for name in reversed(NAMES) for run in runs_of(name, 5.0, 6.0)]
    records += runs_of("open-latent-8-nearest", 9.0)  # of another question
    table = generalization_gap.table(records)
    assert table["binarized"].tolist()[::2] == ["nothing", "weights", "activations", "both"]
    assert table["dropout"].tolist() == 4 * ["without", "with"]
    assert table.iloc[0].tolist()[2:] == ["1.00 ± 0.00", "5.50 ± 0.71", "4.50 ± 0.71",
                                          "6.00 ± 0.71", 2]  # fmt: skip
    assert len(generalization_gap.table(runs_of("open-weights", 5.0))) == 1
    assert generalization_gap.table([]).empty


def test_the_claim_on_the_gap_is_judged_by_gaps():
    narrow = runs_of("open-both", 3.0, 3.1, 3.2, training=2.5)
    wide = runs_of("open-float", 1.9, 2.0, 2.1, training=0.0)
    found = answer("gap_of_both", narrow + wide, generalization_gap.gap)
    assert found.difference == pytest.approx(1.4)
    assert found.verdict == "found"


def test_the_figure_has_a_bar_as_long_as_the_gap_or_says_that_there_is_none():
    drawn = generalization_gap.figure(runs_of("open-float", 7.0, 9.0))
    bar = drawn.axes[0].lines[0]
    assert list(bar.get_xdata()) == [1.0, 8.0]
    assert [label.get_text() for label in drawn.axes[0].get_yticklabels()] == [
        "nothing, without dropout"
    ]
    assert "not run" in generalization_gap.figure([]).axes[0].texts[0].get_text()


def test_errors_by_bits_join_the_means_over_seeds():
    records = [run for bits, error in ((8, 3.0), (6, 5.0)) for rule in ("nearest", "stochastic")
               for run in seeds(recipes.by_name(f"open-latent-{bits}-{rule}"), "quick",
                                error, error + 1)]  # fmt: skip
    records += seeds(recipes.by_name("open-baseline"), "quick", 2.0, 2.2)
    lines = {
        rule: {bits: f"open-latent-{bits}-{rule}" for bits in (8, 6)}
        for rule in ("nearest", "stochastic")
    }
    axes = figures.by_bits(records, lines, "open-baseline").axes[0]
    means = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert means["nearest"] == means["stochastic"] == [3.5, 5.5]
    assert means["float32"] == pytest.approx([2.1, 2.1])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["8", "6"]
    assert "not run" in figures.by_bits([], lines, "open-baseline").axes[0].texts[0].get_text()
