"""Errors and losses by epoch, drawn from run records; the authors' own curves beside them."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from study import figures

_MEASURED = ("train_loss", "validation_loss", "validation_error", "learning_rate", "seconds")


def history(records: list[dict]) -> pd.DataFrame:
    """One row per epoch of every run: errors in %, seconds of that epoch."""
    rows = [
        {"recipe": r["recipe"]["name"], "profile": r["profile"], "seed": r["seed"]}
        | {name: epoch[name] for name in ("epoch", *_MEASURED)}
        for r in records
        for epoch in r["history"]
    ]
    return pd.DataFrame(rows, columns=["recipe", "profile", "seed", "epoch", *_MEASURED])


def learning_curves(records: list[dict]) -> Figure:
    """Validation error (solid) above training loss (dashed), by epoch.

    A thin line is one seed, a thick one the mean over all seeds.
    """
    if not records:
        return figures.nothing_to_draw()
    figure, (errors, losses) = plt.subplots(
        2, 1, sharex=True, figsize=(figures.WIDTH, 5.6), height_ratios=(3, 2), layout="constrained"
    )
    frame = history(records)
    _curves(errors, frame, "validation_error")
    _curves(losses, frame, "train_loss", linestyle="--")
    _seeds_note(errors, frame)
    figures.scale_axis(errors, "y", frame["validation_error"], "validation error\n(%")
    figures.scale_axis(losses, "y", frame["train_loss"], "training loss\n(squared hinge")
    losses.set_xlabel("epoch")
    losses.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=(1, 2, 5, 10)))
    errors.legend(frameon=False, fontsize="small")
    return figures.stamped(figure, records)


def beside_the_paper(
    records: list[dict], read_off: dict[str, dict], source: str = "the paper's Figure 1"
) -> Figure:
    """Validation error by epoch (log scale), with points of the authors' own curves as diamonds.

    read_off: {"theano": {"epochs": [...], "validation_error": [...]}, ...}, from `source`. Lines as
    in `learning_curves`.
    """
    if not records:
        return figures.nothing_to_draw()
    figure, axes = plt.subplots(figsize=(figures.WIDTH, 3.8), layout="constrained")
    frame = history(records)
    _curves(axes, frame, "validation_error")
    _seeds_note(axes, frame)
    style = {"linestyle": "none", "marker": "D", "markersize": 5, "markerfacecolor": "white"}
    for name, points in read_off.items():
        places = points["epochs"], points["validation_error"]
        label = f"{source}, {figures.words(name).split(',')[0]}"  # not which of our readings it is
        axes.plot(*places, **style, color=figures.COLOURS[name], label=label)
    read = [error for points in read_off.values() for error in points["validation_error"]]
    figures.scale_axis(axes, "y", [*frame["validation_error"], *read], "validation error\n(%")
    axes.set(xlabel="epoch (log scale)")
    figures.logarithmic_axis(axes, "x")
    axes.legend(frameon=False, fontsize="small")
    return figures.stamped(figure, records)


def _curves(axes: Axes, frame: pd.DataFrame, column: str, **line) -> None:
    """Every recipe: each seed, and the mean over the epochs that every seed has."""
    names, profiles = list(frame["recipe"].unique()), frame["profile"].unique()
    for (recipe, profile), group in frame.groupby(["recipe", "profile"], sort=False):
        seeds = group.pivot_table(column, "epoch", "seed")  # (epochs, seeds)
        style = line | {"color": figures.colour(recipe, names)}
        if seeds.shape[1] > 1:
            axes.plot(seeds, linewidth=0.8, alpha=0.45, **style)
        named = figures.words(recipe) + (f", {profile} profile" if len(profiles) > 1 else "")
        style |= {"marker": "o" if len(seeds) < 3 else None, "linewidth": 1.7}
        axes.plot(seeds.dropna().mean(axis=1), label=f"{named} (n = {seeds.shape[1]})", **style)


def _seeds_note(axes: Axes, frame: pd.DataFrame) -> None:
    profiles = frame["profile"].unique()
    of_one = f"{profiles[0]} profile; " if len(profiles) == 1 else ""
    figures.reading_note(axes, f"{of_one}thin line: one seed; thick: mean")
