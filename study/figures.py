"""How the figures look, and those of the effects of one change. No numbers are judged here.

One colour means one thing on every page. Figures are narrow, their panels under each other: so the
smallest text, "small", can be read on a phone too.
"""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bnnlib.files import atomic_write
from study.factorial import Lines, test_errors

# Seaborn's colour-blind palette, by what a colour stands for; other things take the spare ones.
# Blue is also what the Theano code does (the sign, exact batch normalization) and a baseline,
# orange what the Torch7 code does (random signs, shifts).
COLOURS = {"theano": "#0173b2", "torch7": "#de8f05", "float": "#029e73", "code": "#cc78bc"}
CHANGED = "#d55e00"  # a recipe with one thing changed, beside its baseline
GREY = "#555555"  # a formula, an exact value, a note
SPARE = ("#ca9161", "#56b4e9", "#949494", CHANGED)
WIDTH = 4.8  # inches; on a phone 355 pixels, in which the smallest text has 9
ENTRY_WIDTH = 55  # letters of a legend's line
STAND_IN = "stand-in data: not comparable with the paper"
# Text stays text; nothing random or dated is written, and the font comes with Matplotlib: the same
# figure has the same bytes everywhere.
_SVG = {"svg.fonttype": "none", "svg.hashsalt": "bnn"}
_FONTS = ["DejaVu Sans", "Verdana", "Arial", "sans-serif"]
_METADATA = {"Date": None, "Creator": None}
# What recipes' names begin with, and what the main ones are called beside each other.
_STARTS = ("svhn-part-", "gaps-mnist-", "gaps-cifar10-", "mnist-", "cifar10-", "svhn-")
_STARTS += ("gradients-", "shift-", "open-")
_WORDS = {"theano": "Theano", "theano-float": "float twin"}
_WORDS |= {"torch7": "Torch7, the paper's words", "torch7-code": "Torch7, the code"}


def style() -> None:
    """Set the figure style; in a notebook also let figures appear as SVG."""
    import seaborn

    seaborn.set_theme("notebook", "whitegrid", "colorblind", font_scale=0.88)
    plt.rcParams.update(_SVG)
    plt.rcParams.update(
        {"font.sans-serif": _FONTS, "grid.color": "#e4e4e4", "figure.facecolor": "white"}
    )
    if get_ipython():
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg", metadata=_METADATA, bbox_inches=None)


def words(recipe: str) -> str:
    """A recipe's name for a legend: without its data set or experiment, which the page tells."""
    start = next(filter(recipe.startswith, _STARTS), "")
    rest = recipe.removeprefix(start)
    return _WORDS.get(rest, rest.replace("-", " "))


def in_lines(entry: str) -> str:
    """A legend's entry, broken into lines that fit the figure's width."""
    return textwrap.fill(entry, ENTRY_WIDTH)


def colour(recipe: str, others: list[str]) -> str:
    """The fixed colour of a recipe's name, or a spare one by its place among `others`."""
    words = recipe.split("-")
    for thing in ("float", "code", "torch7", "theano"):
        if thing in words:
            return COLOURS[thing]
    if "baseline" in words:
        return COLOURS["theano"]
    return SPARE[others.index(recipe) % len(SPARE)]


def write_svg(figure: Figure, path: Path) -> Path:
    """Write a figure as SVG, atomically and with the same bytes each time."""
    content = io.BytesIO()
    with plt.rc_context(_SVG):
        figure.savefig(content, format="svg", metadata=_METADATA)
    with atomic_write(path) as file:
        file.write(content.getvalue())
    return path


def reading_note(axes: Axes, text: str) -> None:
    """Above the axes, how to read the marks."""
    axes.set_title(text, loc="left", fontsize="small", color=GREY)


def effects(records: list[dict], baseline: str, linear: Sequence[dict]) -> Figure:
    """Test error of every run, one row of dots per recipe, the mean as a bar; the baseline on top.

    The band is the baseline's mean plus and minus its standard deviation over seeds. linear: runs
    of linear classifiers; those on the data and at the profiles of `records` make the dotted line.
    """
    errors: dict[str, list[float]] = {baseline: []}
    for record in records:
        errors.setdefault(record["recipe"]["name"], []).append(record["test_error"])
    if not errors[baseline]:
        return nothing_to_draw()
    figure, axes = plt.subplots(figsize=(WIDTH, 1.1 + 0.42 * len(errors)), layout="constrained")
    _band(axes, *_mean_std(errors[baseline]))
    for row, (name, values) in enumerate(errors.items()):
        _row_of_dots(axes, row, values, COLOURS["theano"] if name == baseline else CHANGED)
    axes.set_yticks(range(len(errors)), map(words, errors))
    axes.set_ylim(len(errors) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    profiles = ", ".join(sorted({record["profile"] for record in records}))
    label = f"test error of each seed, {profiles} profile (%"
    origins = set(map(_origin, records))
    lines = [run for run in linear if _origin(run) in origins]
    _linear_line(axes, lines)
    shown = [v for values in errors.values() for v in values]
    scale_axis(axes, "x", shown + [run["test_error"] for run in lines], label)
    return stamped(figure, records)


def _origin(run: dict) -> tuple[str, str]:
    return run["recipe"]["dataset"], run["profile"]


def _linear_line(axes: Axes, lines: Sequence[dict]) -> None:
    """The mean error of linear classifiers across all rows, with its number; or that none ran."""
    if not lines:
        axes.plot([], [], ":", color=GREY, label="linear classifier on pixels: not run")
    else:
        mean, _ = _mean_std([run["test_error"] for run in lines])
        label = f"linear classifier on pixels: {mean:.2f} % (n = {len(lines)})"
        axes.axvline(mean, linestyle=":", color=GREY, label=label)
    style = {"frameon": False, "fontsize": "small"}
    axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", **style)


def _band(axes: Axes, mean: float, std: float | None) -> None:
    """The baseline across all rows."""
    axes.axvline(mean, color=COLOURS["theano"], linewidth=1)
    note = "bar: mean"
    if std is not None:
        axes.axvspan(mean - std, mean + std, color=COLOURS["theano"], alpha=0.12, lw=0)
        note += "; band: the baseline's ± SD"
    reading_note(axes, note)


def _row_of_dots(axes: Axes, row: int, values: list[float], tint: str) -> None:
    mean, std = _mean_std(values)
    axes.plot(values, [row] * len(values), "o", color=tint, alpha=0.55, markersize=6, mew=0)
    axes.plot([mean], [row], "|", color=tint, markersize=17, markeredgewidth=2.5)
    spread = "" if std is None else f" ± {std:.2f}"
    axes.annotate(
        f"{mean:.2f}{spread} (n = {len(values)})",
        (1.01, row),
        xycoords=("axes fraction", "data"),
        va="center",
        fontsize="small",
    )


def _mean_std(values: list[float]) -> tuple[float, float | None]:
    series = pd.Series(values)
    return float(series.mean()), float(series.std()) if len(values) > 1 else None


def interaction(records: list[dict], lines: Lines, levels: list[str]) -> Figure:
    """Test error of every run of a 2 x 2 experiment: a dot is one seed, a line joins two means.

    Left and right are the second factor's `levels`, each line is one level of the first. Parallel
    lines: neither factor changes what the other does.
    """
    if not records:
        return nothing_to_draw()
    figure, axes = plt.subplots(figsize=(WIDTH, 3.4), layout="constrained")
    for (label, names), tint in zip(lines.items(), ("theano", "torch7"), strict=True):
        _line(axes, label, [test_errors(records, name) for name in names], COLOURS[tint])
    axes.set_xticks(range(len(levels)), levels)
    axes.set(xlim=(-0.4, len(levels) - 0.6), ylabel="test error of each seed (%)")
    axes.grid(axis="x", visible=False)
    axes.legend(frameon=False, fontsize="small")
    return stamped(figure, records)


def by_bits(records: list[dict], lines: dict[str, dict[int, str]], baseline: str) -> Figure:
    """Test error of every run by its bits: a dot is one seed, a line joins means.

    `lines`: how numbers are rounded -> bits -> the recipe's name; all have the same bits. The band
    is the baseline's mean plus and minus its standard deviation over seeds.
    """
    if not (errors := test_errors(records, baseline)):
        return nothing_to_draw()
    figure, axes = plt.subplots(figsize=(WIDTH, 3.4), layout="constrained")
    mean, std = _mean_std(errors)
    axes.axhline(mean, color=GREY, linewidth=1, label="float32")
    axes.axhspan(mean - (std or 0), mean + (std or 0), color=GREY, alpha=0.15, lw=0)
    for (label, names), tint in zip(lines.items(), ("theano", "torch7"), strict=True):
        groups = [test_errors(records, name) for name in names.values()]
        _line(axes, label, groups, COLOURS[tint])
        axes.set_xticks(range(len(names)), list(names))
        errors = errors + [error for group in groups for error in group]
    scale_axis(axes, "y", errors, "test error of each seed\n(%")
    axes.set_xlabel("bits")
    axes.grid(axis="x", visible=False)
    axes.legend(frameon=False, fontsize="small")
    return stamped(figure, records)


def _line(axes: Axes, label: str, groups: list[list[float]], tint: str) -> None:
    for place, values in enumerate(groups):
        axes.plot([place] * len(values), values, "o", color=tint, alpha=0.55, markersize=6, mew=0)
    means = [pd.Series(values, dtype=float).mean() for values in groups]
    axes.plot(means, color=tint, label=label if any(groups) else f"{label} (not run)")


def scale_axis(axes: Axes, which: str, values, label: str) -> None:
    """Label the x or y axis and its scale: logarithmic for positive values over a factor of 4."""
    logarithmic = min(values) > 0 and max(values) > 4 * min(values)
    axes.set(**{f"{which}label": label + (", log scale)" if logarithmic else ")")})
    if logarithmic:
        logarithmic_axis(axes, which)


def logarithmic_axis(axes: Axes, which: str) -> None:
    """A logarithmic axis with plain numbers at 1, 2, 5, 10 and so on."""
    axes.set(**{f"{which}scale": "log"})
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def nothing_to_draw() -> Figure:
    """The figure of an experiment without records: it says so."""
    figure, axes = plt.subplots(figsize=(WIDTH, 1.4), layout="constrained")
    axes.set_axis_off()
    axes.text(0.5, 0.5, "not run: no records", ha="center", color="#666666", fontsize=14)
    return figure


def stamped(figure: Figure, records: list[dict]) -> Figure:
    """Say on the figure itself that some of its data are no real images."""
    if any(record["provenance"]["stand_in"] for record in records):
        figure.suptitle(STAND_IN, color=CHANGED, fontsize="medium", x=0.99, ha="right")
    return figure
