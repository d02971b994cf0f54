"""How far a network's error on held-out images lies above that on its training images.

Both of the network of the best validation epoch, in evaluation mode, in percent.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from study import figures
from study.tables import spread

ERRORS = {"training error": "%", "validation error": "%", "gap": "points", "test error": "%"}
# What is binarized, by the recipe's name; the same with dropout has "-dropout" behind it.
KINDS = {
    "open-float": "nothing",
    "open-weights": "weights",
    "open-activations": "activations",
    "open-both": "both",
}
TINTS = {"training error": figures.COLOURS["torch7"], "validation error": figures.COLOURS["theano"]}


def gap(record: dict) -> float:
    """Validation less training error in points, of the network that was selected."""
    return _errors(record)["gap"]


def _errors(record: dict) -> dict[str, float]:
    selected = record["history"][record["best_epoch"] - 1]
    training, validation = record["selected_train_error"], selected["validation_error"]
    values = (training, validation, validation - training, record["test_error"])
    return dict(zip(ERRORS, values, strict=True))


def errors(records: Sequence[dict]) -> pd.DataFrame:
    """One row per run of the recipes in KINDS, each without dropout and with it: ERRORS in %."""
    rows = [
        {"binarized": kind, "dropout": dropout, **_errors(record)}
        for name, kind in KINDS.items()
        for dropout, ending in (("without", ""), ("with", "-dropout"))
        for record in records
        if record["recipe"]["name"] == name + ending
    ]
    return pd.DataFrame(rows, columns=["binarized", "dropout", *ERRORS])


def table(records: Sequence[dict]) -> pd.DataFrame:
    """`errors` over seeds: mean ± standard deviation, one row per recipe."""
    rows = [
        {"binarized": kind, "dropout": dropout}
        | {f"{name} ({unit})": spread(group[name]) for name, unit in ERRORS.items()}
        | {"n": len(group)}
        for (kind, dropout), group in errors(records).groupby(["binarized", "dropout"], sort=False)
    ]
    columns = ["binarized", "dropout", *(f"{name} ({unit})" for name, unit in ERRORS.items()), "n"]
    return pd.DataFrame(rows, columns=columns)


def figure(records: Sequence[dict]) -> Figure:
    """One row per recipe: a dot is one seed, the grey bar between the two means is the gap."""
    frame = errors(records)
    if frame.empty:
        return figures.nothing_to_draw()
    groups = list(frame.groupby(["binarized", "dropout"], sort=False))
    drawn, axes = plt.subplots(
        figsize=(figures.WIDTH, 1 + 0.34 * len(groups)), layout="constrained"
    )
    for row, (_, group) in enumerate(groups):
        axes.plot(group[list(TINTS)].mean(), [row, row], color="#bbbbbb", linewidth=4, zorder=1)
        for name, tint in TINTS.items():
            label = name if row == 0 else None
            axes.plot(group[name], [row] * len(group), "o", color=tint, alpha=0.7, label=label)
    labels = [f"{kind}, {dropout} dropout" for (kind, dropout), _ in groups]
    axes.set_yticks(range(len(groups)), labels)
    axes.set(ylim=(len(groups) - 0.5, -0.5), xlim=(0, None), xlabel="error of each seed (%)")
    axes.grid(axis="y", visible=False)
    axes.legend(frameon=False, fontsize="small")
    return figures.stamped(drawn, list(records))
