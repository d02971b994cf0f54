"""Findings above captions: what a figure of run records shows, computed from those records.

Where networks are too small to tell, or data are no real images, the sentence says so and concludes
nothing.
"""

from collections.abc import Sequence
from statistics import fmean

import pandas as pd

from study import generalization_gap, verdicts
from study.evidence import SMALL, grade_of
from study.factorial import test_errors
from study.figures import words

NONE = "No run is on file: nothing is concluded."


def weak(records: Sequence[dict]) -> str:
    """Why nothing is concluded from these runs; empty if they are strong enough."""
    if not records:
        return NONE
    if any(run["profile"] == "smoke" or run["provenance"]["stand_in"] for run in records):
        return "Not on real images at a size that counts: nothing is concluded."
    if grade_of(records) != SMALL:
        return ""
    best = min(fmean(test_errors(records, name)) for name in _names(records))
    return f"The best of these networks errs on {best:.1f} %, too much to conclude from."


def _names(records: Sequence[dict]) -> list[str]:
    return list(dict.fromkeys(run["recipe"]["name"] for run in records))


def ends(records: Sequence[dict]) -> str:
    """How far learning curves come: validation errors of the first epoch and of the last."""
    if not records:
        return NONE
    groups: dict[tuple, list[dict]] = {}
    for run in records:
        groups.setdefault((run["recipe"]["name"], run["profile"]), []).append(run)
    parts = [f"{words(name)} {_first_and_last(group)}" for (name, _), group in groups.items()]
    lengths = {len(run["history"]) for run in records}
    told = [f"From the first epoch to the last the validation error goes: {'; '.join(parts)}."]
    if len(groups) > 1 and len(lengths) > 1:
        told.append("The lengths differ, so the ends don't compare.")
    return " ".join(filter(None, [*told, _unfinished(groups), weak(records)]))


def _first_and_last(group: list[dict]) -> str:
    first, last = (fmean(run["history"][i]["validation_error"] for run in group) for i in (0, -1))
    return f"{first:.1f} to {last:.1f} % ({len(group[0]['history'])} epochs, n = {len(group)})"


def _unfinished(groups: dict[tuple, list[dict]]) -> str:
    """Name the curves that are lowest at their end in every run, so may fall further."""
    falling = [
        words(name)
        for (name, _), group in groups.items()
        if all(_lowest(run) == len(run["history"]) for run in group)
    ]
    told = f"Lowest at the very end, so perhaps not there yet: {'; '.join(falling)}."
    return told if falling else ""


def _lowest(run: dict) -> int:
    """The epoch, from 1, with the lowest validation error."""
    errors = [epoch["validation_error"] for epoch in run["history"]]
    return errors.index(min(errors)) + 1


def effects(records: Sequence[dict], baseline: str) -> str:
    """Name recipes that err more or less than the baseline, as far as 95 % intervals tell."""
    others = {name: words(name) for name in _names(records) if name != baseline}
    return _against(records, baseline, others)


def by_bits(records: Sequence[dict], lines: dict[str, dict[int, str]], baseline: str) -> str:
    """The same for recipes by their bits: `lines` as `figures.by_bits` draws them."""
    others = {
        name: f"{bits} bits {rule.removeprefix('rounded ')}"
        for rule, names in lines.items()
        for bits, name in names.items()
    }
    return _against(records, baseline, others)


def _against(records: Sequence[dict], baseline: str, others: dict[str, str]) -> str:
    """others: a recipe's name -> its words."""
    base = test_errors(records, baseline)
    if not base:
        return NONE
    if reason := weak(records):
        return reason
    kinds: dict[str, list[str]] = {}
    for name, label in others.items():
        errors = test_errors(records, name)
        change = f" ({fmean(errors) - fmean(base):+.2f})" if errors else ""
        kinds.setdefault(_kind(errors, base), []).append(label + change)
    parts = [f"{kind} {verdicts.listed(labels)}" for kind, labels in sorted(kinds.items())]
    against = f"Against the baseline's {fmean(base):.2f} % (n = {len(base)}), in points: "
    return against + "; ".join(parts) + "."


def _kind(errors: list[float], base: list[float]) -> str:
    """Say what is known of a difference, in words that sort as a sentence has them."""
    if not errors:
        return "not run:"
    if min(len(errors), len(base)) < verdicts.FEWEST_RUNS:
        return "too few runs to tell of"
    low, high = verdicts.interval(errors, base)
    if low > 0:
        return "a higher error, beyond chance, with"
    return "a lower error, beyond chance, with" if high < 0 else "no certain change with"


def factors(frame: pd.DataFrame, records: Sequence[dict]) -> str:
    """Main effects and interaction, rows of `factorial.effects`, each with two standard errors."""
    if frame.empty or frame["standard error"].isna().any():
        return "Not all four combinations were run twice: nothing is concluded."
    parts = [
        f"{row.effect} {row.difference:+.2f} ± {2 * row.error:.2f} points"
        for row in frame.rename(columns={"standard error": "error"}).itertuples()
    ]
    told = f"Changes of the test error, ± two standard errors: {'; '.join(parts)}."
    return weak(records) or told


def gaps(records: Sequence[dict]) -> str:
    """How the gap between training and held-out error changes with what is binarized."""
    frame = generalization_gap.errors(records)
    if frame.empty or (reason := weak(records)):
        return reason if len(frame) else NONE
    means = (
        frame[frame["dropout"] == "without"]
        .groupby("binarized", sort=False)
        .mean(numeric_only=True)
    )
    parts = [
        f"{kind} {row['gap']:.1f} (held-out error {row['validation error']:.1f} %)"
        for kind, row in means.iterrows()
    ]
    return f"Without dropout the gap is, in points, by what is binarized: {'; '.join(parts)}."


def beside_authors(first_epoch: Sequence[dict], authors: float) -> str:
    """Our first epoch at full size and the authors' own, by their validation errors in %."""
    if not first_epoch:
        return "The first epoch at full size is not run: nothing stands beside the diamond."
    ours = fmean(run["history"][0]["validation_error"] for run in first_epoch)
    n = len(first_epoch)
    return (
        f"After one epoch at full size the validation error is {ours:.2f} % (n = {n}), in the "
        f"authors' log {authors:.2f} %: {ours - authors:+.2f} points."
    )


def beside_figure_one(records: Sequence[dict], read_off: dict[str, dict]) -> str:
    """Tell where our longest runs end and where the paper's curves do, recipe by recipe."""
    told: list[str] = []
    for kind, points in read_off.items():
        ours = [run for run in records if run["recipe"]["name"].endswith(f"-{kind}")]
        at_the_end = f"{points['validation_error'][-1]:g} % after {points['epochs'][-1]} epochs"
        name = words(kind).split(",")[0]
        mine = f"ours {_first_and_last(ours)}" if ours else "ours not run"
        told.append(f"{name}: the paper ends at {at_the_end}, {mine}")
    whole = any(run["profile"] == "paper" for run in records)
    ending = "" if whole else " No run here has the paper's length, so its ends are not tested."
    return "; ".join(told) + "." + ending


def at_paper(records: Sequence[dict]) -> str:
    """Tell how many binarized runs in the figure of Table 1 can be held against the paper."""
    drawn = [run for run in records if not run["recipe"]["name"].endswith("-float")]
    told = sum(run["profile"] == "paper" for run in drawn)
    others = "distance from the diamonds tells nothing of the claims"
    if not told:
        return f"None of the {len(drawn)} runs is at the paper's settings: their {others}."
    return f"{told} of {len(drawn)} runs are at the paper's settings; of the others the {others}."


def turned_signs(means: pd.DataFrame) -> str:
    """means: % of signs that an epoch turned, a row per epoch, a column per layer."""
    if means.empty:
        return NONE
    parts = []
    for epoch in dict.fromkeys((means.index[0], means.index[-1])):
        shares = means.loc[epoch]
        most, least = shares.idxmax(), shares.idxmin()
        parts.append(
            f"in epoch {epoch} from {shares[least]:.2g} % (layer {list(means).index(least) + 1}) "
            f"to {shares[most]:.2g} % (layer {list(means).index(most) + 1})"
        )
    return f"Signs turn {' and '.join(parts)}."
