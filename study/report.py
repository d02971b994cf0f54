"""What a notebook shows of its runs: source code, tables and sentences.

Trains nothing and judges nothing itself: verdicts are in evidence.py, tables of claims in
claim_tables.py, drawing in figures.py, what a page leaves behind in page.py; what notebooks need
of them is offered here too. Every function copes with an empty list of records.
"""

import inspect
from collections.abc import Iterable, Sequence
from math import frexp

import pandas as pd
from IPython.display import HTML, Markdown, display

from study import claims, figures, recipes
from study.claim_tables import compare, criteria
from study.claims import Claim, context
from study.curves import beside_the_paper, history, learning_curves
from study.evidence import Result, answer
from study.figures import effects
from study.page import Page, publish, save
from study.recipes import Recipe
from study.tables import (
    answers,
    best_runs,
    better_runs,
    changes,
    differences,
    errors,
    gap_sentences,
    our_table_one,
    spread,
    table_one,
)
from study.train import runs
from study.train.provenance import source_hash

# Defined elsewhere, offered to notebooks here.
__all__ = ["Claim", "Page", "Result", "answer", "claims", "context", "publish", "save"]
__all__ += ["compare", "criteria"]
__all__ += ["beside_the_paper", "effects", "history", "learning_curves"]
__all__ += ["answers", "best_runs", "better_runs", "differences", "errors"]
__all__ += ["changes", "gap_sentences", "our_table_one", "spread", "table_one"]


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


def fold(frame: pd.DataFrame, title: str) -> None:
    """Display a table under its title, folded away; an empty one not at all."""
    if len(frame):
        with pd.option_context("display.max_colwidth", None):
            table = frame.to_html(index=False, border=0, justify="left", na_rep="")
        display(HTML(f"<details><summary>{title}</summary>{table}</details>"))


def show_source(*objects) -> None:
    """Display the real source of functions or classes, so that page and code cannot differ."""
    sources = [f"# {item.__module__}\n{inspect.getsource(item)}" for item in objects]
    display(Markdown("```python\n" + "\n\n".join(sources) + "```"))


def recipe_table(chosen: Sequence[Recipe], profile: str) -> pd.DataFrame:
    """Every value that has a citation: in the paper, in the authors' code, ours at this profile.

    Recipes that share their citations, and no others, can be set side by side.
    """
    citations, *others = (recipes.CITATIONS[recipe.name] for recipe in chosen)
    if any(table is not citations for table in others):
        raise ValueError("recipes with citations of their own take tables of their own")
    names = [recipe.name for recipe in chosen] if others else ["ours"]
    rows = [
        {
            "hyperparameter": field.replace("_", " "),
            "paper": citation.paper,
            "authors' code": citation.code,
            **{
                f"{name} ({profile})": _used(recipe, profile, field)
                for name, recipe in zip(names, chosen, strict=True)
            },
            "note": citation.note,
        }
        for field, citation in citations.items()
    ]
    return pd.DataFrame(rows)


def _used(recipe: Recipe, profile: str, field: str) -> str:
    """The recipe's value at a profile, and its own where the profile changes it."""
    own, used = getattr(recipe, field), getattr(recipes.at_profile(recipe, profile), field)
    return _shown(used) + (f" (paper profile: {_shown(own)})" if own != used else "")


def _shown(value) -> str:
    """A recipe's value as a table shows it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return f"{len(value)} × {value[0]}" if len(set(value)) == 1 else ", ".join(map(str, value))
    if isinstance(value, float) and 0 < value < 0.1 and frexp(value)[0] == 0.5:
        return f"2^{frexp(value)[1] - 1}"  # as a shift-based rule has its rate
    return f"{value:g}" if isinstance(value, float) else str(value)


def tell(sentences: Iterable[str]) -> None:
    """Display computed sentences, one a line."""
    display(Markdown("\n".join(f"- {line}" for line in sentences)))


def conclude(finding: str) -> None:
    """Display what a figure shows, above its caption."""
    display(Markdown(finding))


def provenance(records: Sequence[dict]) -> pd.DataFrame:
    """Table of what made these numbers: a row per recipe, profile and origin, with its seeds."""
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
        "device": _device(made),
        "versions": ", ".join(f"{name} {number}" for name, number in made["versions"].items()),
        "date": made["started"][:10],
        "minutes": made["seconds"] / 60,
    }


def _device(made: dict) -> str:
    """Device of a run, from its provenance, which tells of several processes if it is not older."""
    several = f", {made['processes']} processes" if made.get("processes", 1) > 1 else ""
    threads = f"{made['threads']} thread{'s' * (made['threads'] > 1)}"
    return f"{made['device_name']}, {threads}{several}"


def _sources(made_by: str) -> str:
    """The hash of the sources that made a run, with today's beside it where that differs.

    It says so if today's were seen to make the same numbers.
    """
    current = source_hash()
    if made_by == current:
        return made_by[:8]
    alike = runs.made_alike(current, runs.same_numbers())
    relation = "same numbers as" if made_by in alike else "now"
    return f"{made_by[:8]} ({relation} {current[:8]})"


def cost(records: Sequence[dict]) -> pd.DataFrame:
    """Wall time per recipe, profile and device: the median epoch, and as many of them as a run."""
    rows = [
        {
            "run": f"{record['recipe']['name']}, {record['profile']}",
            "device": record["provenance"]["device_name"],
            "epochs": len(record["history"]),
            "seconds an epoch": epoch["seconds"],
        }
        for record in records
        for epoch in record["history"]
    ]
    columns = ["run", "device", "epochs", "seconds an epoch"]
    frame = pd.DataFrame(rows, columns=columns)
    table = frame.groupby(columns[:3], sort=False, as_index=False).median()
    minutes = table["epochs"] * table["seconds an epoch"] / 60
    table["minutes a run"] = minutes.map("{:.1f}".format)
    table["seconds an epoch"] = table["seconds an epoch"].map("{:.1f}".format)
    return table
