"""What a notebook shows of its runs: source code, tables and sentences.

Trains nothing and judges nothing itself: verdicts are in claims.py, drawing in figures.py, what a
page leaves behind in metrics.py; what notebooks need of them is offered here too. Every function
copes with an empty list of records.
"""

import inspect
from collections.abc import Sequence

import pandas as pd
from IPython.display import HTML, Markdown, display

from bnnlib import claims as judging
from bnnlib import figures, recipes, runs
from bnnlib.claims import Claim, Result, answer, claims, context
from bnnlib.figures import effects, history, learning_curves
from bnnlib.metrics import Page, made_on, publish, save
from bnnlib.recipes import Recipe

# Defined elsewhere, offered to notebooks here.
__all__ = ["Claim", "Page", "Result", "answer", "claims", "context", "publish", "save"]
__all__ += ["effects", "history", "learning_curves"]


def start(notebook: str, profile: str) -> Page:
    """Check the profile and set the figure style. Raises ValueError for an unknown profile."""
    if profile not in recipes.PROFILES:
        choices = ", ".join(recipes.PROFILES)
        raise ValueError(f"unknown profile {profile!r}: choose one of {choices}")
    figures.style()
    return Page(notebook, profile)


def show(frame: pd.DataFrame) -> None:
    """Display a table without its index, with nothing cut off."""
    with pd.option_context("display.max_colwidth", None):
        display(HTML(frame.to_html(index=False, border=0, justify="left", na_rep="")))


def show_source(*objects) -> None:
    """Display the real source of functions or classes, so that page and code cannot differ."""
    sources = [f"# {item.__module__}\n{inspect.getsource(item)}" for item in objects]
    display(Markdown("```python\n" + "\n\n".join(sources) + "```"))


def recipe_table(chosen: Sequence[Recipe], profile: str) -> pd.DataFrame:
    """Every value that has a source: in the paper, in the authors' code, ours at this profile."""
    rows = [
        {
            "recipe": recipe.name,
            "hyperparameter": field.replace("_", " "),
            "paper": source.paper,
            "authors' code": source.code,
            f"ours ({profile})": _shown(getattr(recipes.at_profile(recipe, profile), field)),
            "note": _note(recipe, profile, field, source.note),
        }
        for recipe in chosen
        for field, source in recipes.SOURCES.get(recipe.name, {}).items()
    ]
    columns = ["recipe", "hyperparameter", "paper", "authors' code", f"ours ({profile})", "note"]
    return pd.DataFrame(rows, columns=columns if len(chosen) > 1 else columns[1:])


def _note(recipe: Recipe, profile: str, field: str, note: str) -> str:
    """The source's note, and the recipe's own value where the profile changes it."""
    own, used = getattr(recipe, field), getattr(recipes.at_profile(recipe, profile), field)
    changed = [f"paper profile: {_shown(own)}"] if own != used else []
    return "; ".join(([note] if note else []) + changed)


def _shown(value) -> str:
    """A recipe's value as a table shows it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return f"{len(value)} × {value[0]}" if len(set(value)) == 1 else ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def criteria(claim_ids: Sequence[str]) -> pd.DataFrame:
    """What is claimed and what will count as reproducing it, before anything is run."""
    rows = [
        {
            "claim": claim.statement,
            "paper": claim.paper,
            "where": claim.where,
            "what is compared": claim.selection,
            "criterion": _rule(claim),
        }
        for claim in map(claims().__getitem__, claim_ids)
    ]
    return pd.DataFrame(rows)


def _rule(claim: Claim) -> str:
    wanted = "found" if claim.origin == "ours" else "reproduced"
    partly = claim.margin and claim.origin != "ours" and claim.kind != "effect"
    tail = "; partly, up to three times that margin" if partly else ""
    return f"{wanted} if the mean is {claim.criterion}{tail}"


def table_one() -> pd.DataFrame:
    """The paper's Table 1 as printed: test error in %; our claims first, then the other methods."""
    names = {"mnist": "MNIST", "svhn": "SVHN", "cifar10": "CIFAR-10"}
    binarized = {"group": "Binarized activations and weights, in training and test"}
    ours = [
        {**binarized, "method": f"BNN ({recipe})", "where": "both"}
        | {data: claims()[f"{data}_{recipe.lower()}"].printed for data in names}
        for recipe in ("Torch7", "Theano")
    ]
    frame = pd.DataFrame(ours + context()["table1"]).fillna("-")
    columns = {"group": "group", "method": "method", **names, "where": "version of the paper"}
    return frame[list(columns)].rename(columns=columns)


def compare(results: Sequence[Result]) -> pd.DataFrame:
    """Claims beside what was obtained; `measured on` names profile and device."""
    rows = [
        {
            "claim": result.claim.statement,
            "paper": result.claim.paper,
            "ours": _ours(result),
            "difference": _difference(result),
            "verdict": result.verdict,
            "measured on": _measured_on(result),
        }
        for result in results
    ]
    return pd.DataFrame(
        rows, columns=["claim", "paper", "ours", "difference", "verdict", "measured on"]
    )


def _decimals(claim: Claim) -> int:
    """As many as the paper prints, at least one."""
    return max(1, len(claim.printed.partition(".")[2]))


def _spread(values: Sequence[float], decimals: int) -> str:
    """mean ± sample standard deviation; the mean alone for one value."""
    series = pd.Series(values, dtype=float)
    deviation = f" ± {series.std():.{decimals}f}" if len(series) > 1 else ""
    return f"{series.mean():.{decimals}f}{deviation}"


def _ours(result: Result) -> str:
    if result.difference is None:
        return judging.NOT_RUN
    claim, decimals = result.claim, _decimals(result.claim)
    if not result.reference:
        return f"{judging.with_unit(_spread(result.values, decimals), claim.unit)} (n = {result.n})"
    judged, reference = (_spread(group, decimals) for group in (result.values, result.reference))
    return f"{judged} against {reference} % (n = {result.n}, {len(result.reference)})"


def _difference(result: Result) -> str:
    if result.difference is None or (result.claim.says and not result.reference):
        return ""  # no distance to a claim in words
    text = f"{result.difference:+.{_decimals(result.claim)}f}"
    if min(result.n, len(result.reference)) > 1:
        error = judging.standard_error(result.values, result.reference)
        text += f" ± {error:.{_decimals(result.claim)}f} (standard error)"
    return judging.with_unit(text, judging.difference_unit(result.claim))


def _measured_on(result: Result) -> str:
    profiles = ", ".join(sorted(result.profiles))
    devices = made_on(result.records)
    return f"{profiles} profile{', ' if devices else ''}{devices}" if profiles else ""


def verdict_text(results: Sequence[Result]) -> None:
    """Display one computed sentence per claim."""
    display(Markdown("\n".join(f"- {sentence(result)}" for result in results)))


def sentence(result: Result) -> str:
    """Verdict, claim, both numbers and the criterion, as one line of Markdown."""
    claim = result.claim
    head = f"**{result.verdict[0].upper()}{result.verdict[1:]}.** {claim.statement}:"
    rule = f"Criterion: {_rule(claim)}."
    source = f"{claim.where}, n = {claim.paper_n}" if claim.paper_n else claim.where
    if result.verdict == judging.NOT_RUN:
        return f"{head} the paper has {claim.paper} ({source}). {rule}"
    if result.verdict == judging.TOO_FEW:
        rule += f" That takes {judging.FEWEST_RUNS} runs of each."
    difference = f", a difference of {_difference(result)}" if result.reference else ""
    return (
        f"{head} ours {_ours(result)}{difference}, {_measured_on(result)}; "
        f"the paper: {claim.paper} ({source}). {rule}"
    )


def provenance(records: Sequence[dict]) -> pd.DataFrame:
    """What made these numbers, one row per recipe, profile and origin, with the seeds it holds."""
    columns = ["run", "seeds", "commit", "sources", "data", "device", "versions", "date", "minutes"]
    frame = pd.DataFrame(map(_origin, records), columns=columns)
    same = [name for name in columns if name not in ("seeds", "minutes")]
    summed = {"seeds": ", ".join, "minutes": "sum"}
    merged = frame.groupby(same, sort=False, as_index=False).agg(summed)[columns]
    return merged.assign(minutes=merged["minutes"].map("{:.1f}".format))


def _origin(record: dict) -> dict:
    """One record's row of the provenance table."""
    made = record["provenance"]
    return {
        "run": f"{record['recipe']['name']}, {record['profile']}",
        "seeds": str(record["seed"]),
        "commit": made["commit"][:7] + (" (dirty)" if made["dirty"] else ""),
        "sources": _sources(made["sources"]),
        "data": made["data_source"] + (" (stand-in)" if made["stand_in"] else ""),
        "device": f"{made['device_name']}, {made['threads']} threads",
        "versions": ", ".join(f"{name} {number}" for name, number in made["versions"].items()),
        "date": made["started"][:10],
        "minutes": made["seconds"] / 60,
    }


def _sources(made_by: str) -> str:
    """The hash of the sources that made a run, with today's beside it where that differs."""
    current = runs.source_hash()
    return made_by[:8] + ("" if made_by == current else f" (now {current[:8]})")


def cost(records: Sequence[dict]) -> pd.DataFrame:
    """Wall time per recipe, profile and device: medians over epochs and over runs."""
    rows = [
        {
            "run": f"{record['recipe']['name']}, {record['profile']}",
            "device": record["provenance"]["device_name"],
            "epochs": len(record["history"]),
            "seconds an epoch": epoch["seconds"],
            "minutes a run": record["provenance"]["seconds"] / 60,
        }
        for record in records
        for epoch in record["history"]
    ]
    columns = ["run", "device", "epochs", "seconds an epoch", "minutes a run"]
    frame = pd.DataFrame(rows, columns=columns)
    medians = frame.groupby(columns[:3], sort=False, as_index=False).median()
    return medians.assign(**{name: medians[name].map("{:.1f}".format) for name in columns[3:]})
