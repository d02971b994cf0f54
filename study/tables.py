"""Results of runs, side by side: recipes, profiles, and one thing changed at a time.

Tables and sentences from records. Whether a claim holds is decided in evidence.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from math import sqrt
from operator import itemgetter

import pandas as pd

from study import claims, recipes, verdicts
from study.claims import INTERVAL, context
from study.data.store import SIZES
from study.evidence import Result, answer
from study.recipes import Recipe
from study.train import runs

# The rows of our own Table 1: what a recipe's name adds to its data set's.
ROWS = {
    "theano": "BNN (Theano)",
    "torch7": "BNN (Torch7, the paper's words)",
    "torch7-code": "BNN (Torch7, the code)",
    "theano-float": "float twin of Theano's",
}
DATA_SETS = {"mnist": "MNIST", "svhn": "SVHN", "cifar10": "CIFAR-10"}
SCALE = ["hidden", "batch_size", "epochs", "train_images", "learning_rate"]


def better_runs(profile: str, chosen: Sequence[Recipe]) -> list[dict]:
    """Committed runs of these recipes at profiles more faithful than this one, the best ones last.

    A page of the smoke profile shows no result, so there are none for it.
    """
    if profile == "smoke":
        return []
    names = list(recipes.PROFILES)
    better = names[names.index(profile) + 1 :]
    return [run for name in better for recipe in chosen for run in runs.committed(recipe, name)]


def best_runs(records: Sequence[dict]) -> list[dict]:
    """Records of the most faithful profile among them."""
    profiles = {record["profile"] for record in records}
    best = [name for name in recipes.PROFILES if name in profiles][-1:]
    return [record for record in records if record["profile"] in best]


def answers(
    claim_id: str,
    records: Sequence[dict],
    profile: str,
    value: Callable[[dict], float] = itemgetter("test_error"),
) -> list[Result]:
    """A claim's result at this profile, run or not; then at the others that have a value for it."""
    groups = {profile: [], **_grouped(records, itemgetter("profile"))}
    results = [answer(claim_id, group, value) for group in groups.values()]
    return results[:1] + [result for result in results[1:] if result.difference is not None]


def _grouped(items: Sequence, key: Callable) -> dict:
    """key -> the items that have it, in order of their first."""
    groups: dict = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _recipe_and_profile(record: dict) -> tuple[str, str]:
    return record["recipe"]["name"], record["profile"]


def errors(records: Sequence[dict]) -> pd.DataFrame:
    """Errors in %, mean ± standard deviation over seeds, one row per recipe and profile."""
    rows = [
        {
            "recipe": name,
            "profile": profile,
            "epochs": group[0]["recipe"]["epochs"],
            "test error (%)": spread(run["test_error"] for run in group),
            "in the last epoch (%)": spread(run["final_test_error"] for run in group),
            "n": len(group),
        }
        for (name, profile), group in _grouped(records, _recipe_and_profile).items()
    ]
    columns = ["recipe", "profile", "epochs", "test error (%)", "in the last epoch (%)", "n"]
    return pd.DataFrame(rows, columns=columns)


def spread(values, decimals: int = 2) -> str:
    """mean ± sample standard deviation; the mean alone for one value."""
    series = pd.Series(list(values), dtype=float)
    deviation = f" ± {series.std():.{decimals}f}" if len(series) > 1 else ""
    return f"{series.mean():.{decimals}f}{deviation}"


def table_one() -> pd.DataFrame:
    """The paper's Table 1 as printed: test error in %; our claims first, then the other methods."""
    binarized = {"group": "Binarized activations and weights, in training and test"}
    ours = [
        {**binarized, "method": f"BNN ({recipe})", "where": "both"}
        | {data: claims.load()[f"{data}_{recipe.lower()}"].printed for data in DATA_SETS}
        for recipe in ("Torch7", "Theano")
    ]
    frame = pd.DataFrame(ours + context()["table1"]).fillna("-")
    columns = {"group": "group", "method": "method", **DATA_SETS, "where": "version of the paper"}
    return frame[list(columns)].rename(columns=columns)


def our_table_one(records: Sequence[dict], profile: str) -> pd.DataFrame:
    """Test errors in % as the paper's Table 1 sets them out, of this profile and of the others."""
    groups = _grouped(records, _recipe_and_profile)
    profiles = dict.fromkeys([profile, *(name for _, name in groups)])
    rows = [
        {"method": method, "profile": name}
        | {title: _cell(groups, f"{data}-{kind}", name) for data, title in DATA_SETS.items()}
        for kind, method in ROWS.items()
        for name in profiles
    ]
    return pd.DataFrame(rows, columns=["method", "profile", *DATA_SETS.values()])


def _cell(groups: dict, recipe: str, profile: str) -> str:
    group = groups.get((recipe, profile), [])
    shown = f"{spread(run['test_error'] for run in group)} (n = {len(group)})"
    return shown if group else verdicts.NOT_RUN


def differences(records: Sequence[dict], baseline: str) -> pd.DataFrame:
    """Test error of each recipe less the baseline's at the same profile, with Welch's interval.

    With one run of either there is a difference and no interval.
    """
    groups = _grouped(records, _recipe_and_profile)
    rows = [
        {"recipe": name, "profile": profile, "test error (%)": spread(map(_error, group))}
        | _against(list(map(_error, group)), list(map(_error, groups[baseline, profile])))
        for (name, profile), group in groups.items()
        if name != baseline and (baseline, profile) in groups
    ]
    columns = ["recipe", "profile", "test error (%)", "baseline (%)", "difference (points)"]
    return pd.DataFrame(rows, columns=[*columns, INTERVAL, "n"])


_error = itemgetter("test_error")


def _against(values: list[float], reference: list[float]) -> dict:
    """Cells of a row of `differences` for two groups of errors."""
    difference = pd.Series(values).mean() - pd.Series(reference).mean()
    row = {
        "baseline (%)": spread(reference),
        "difference (points)": f"{difference:+.2f}",
        "n": f"{len(values)}, {len(reference)}",
    }
    if min(len(values), len(reference)) < 2:
        return row
    low, high = verdicts.interval(values, reference)
    return row | {INTERVAL: f"{low:+.2f} to {high:+.2f}"}


def gap_sentences(
    title: str, gap: tuple[str, str], groups: Sequence[Sequence[Result]]
) -> list[str]:
    """Name factors that move the error as the paper's two recipes differ: a line for each profile.

    gap: the claims of the two recipes, to and from; groups: `answers` of each factor's claim.
    """
    asked = [group[0] for group in groups]
    others = [result for group in groups for result in group[1:]]
    by_profile = _grouped(others, lambda result: sorted(result.profiles)[0])
    profiles = [asked, *by_profile.values()]
    return [f"{_gap(title, *gap)} {_explained(results)}" for results in profiles]


def _gap(title: str, target: str, origin: str) -> str:
    """The paper's own difference, and what counting that many test images alone leaves open."""
    last, first = (claims.load()[name] for name in (target, origin))
    images = SIZES[recipes.by_name(last.recipes[0]).dataset][1]
    error = sqrt(sum(claim.value * (100 - claim.value) for claim in (last, first)) / images)
    numbers = f"{last.value - first.value:+.2f} ± {error:.2f} points"
    return (
        f"**{title}.** The paper's error goes from {first.paper} to {last.paper}, by "
        f"{numbers} (standard error from the number of test images alone)."
    )


def _explained(results: Sequence[Result]) -> str:
    """A sentence on what each factor does at the profile of these results."""
    kinds = {
        verdicts.FOUND: "these move it the same way",
        verdicts.OPPOSITE: "these move it the other way",
        verdicts.UNDECIDED: "undecided by so few runs",
        verdicts.TOO_SMALL: "on networks too small to tell",
        verdicts.TOO_FEW: "with too few runs to say",
        verdicts.OTHER_SETTINGS: "not judged",
        verdicts.LENGTHS_DIFFER: "in trainings of other lengths",
        verdicts.STAND_IN: "on stand-in data",
        verdicts.NOT_RUN: "not run",
    }
    names = sorted({name for result in results for name in result.profiles})
    groups = [([_factor(r) for r in results if r.verdict == kind], kinds[kind]) for kind in kinds]
    parts = [f"{words}: {', '.join(factors)}" for factors, words in groups if factors]
    total = sum(map(_change, results)) if all(result.reference for result in results) else None
    added = "" if total is None else f" Added up, they make {total:+.2f} points."
    return f"Changed one at a time ({', '.join(names) or 'no'} profile), {'; '.join(parts)}.{added}"


def _factor(result: Result) -> str:
    """The changed factor, in the words of its recipe's name, and its effect on the error."""
    label = _changed(result).split("-", 2)[-1].replace("-", " ")
    return f"{label} ({_change(result):+.2f})" if result.reference else label


def _changed(result: Result) -> str:
    return next(name for name in result.claim.recipes if not name.endswith("-baseline"))


def _change(result: Result) -> float:
    """Error with the factor changed less the baseline's, whichever of them the claim judges."""
    return result.difference * (1 if _changed(result) == result.claim.recipes[0] else -1)


def changes(chosen: Sequence[Recipe]) -> pd.DataFrame:
    """Table of the settings in which each recipe differs from the first.

    The first one's row has what a profile may change.
    """
    first, *_ = resolved = [asdict(recipe) for recipe in chosen]
    rows = []
    for fields in resolved:
        differs = [key for key in first if fields[key] != first[key] and key != "name"] or SCALE
        shown = [f"{key.replace('_', ' ')} {fields[key]}" for key in differs]
        rows.append({"recipe": fields["name"], "settings": ", ".join(shown)})
    return pd.DataFrame(rows, columns=["recipe", "settings"])
