"""Costs of the committed runs on CPU: their seconds, their work, and how far they came.

`scale` estimates from them what the paper would take, and writes the table that is made here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean, median

from study import bench, claims, data, recipes
from study.data import store
from study.recipes import paper
from study.recipes.recipe import Recipe
from study.recipes.shapes import connections
from study.tables import spread
from study.train import runs

PASSES = 3  # a training step multiplies for the outputs and for two gradients
COLUMNS = ("recipe", "profile", "network", "machine", "seconds an epoch", "epochs")
COLUMNS += ("hours for the paper's epochs", "test error (%)", "the paper's", "points above it")
SIZES = ("dataset", "hidden", "dense", "epochs", "train_images")  # what work depends on


def work(recipe: Recipe) -> float:
    """Multiply-adds of a run: training and validation of all epochs."""
    held = data.VALIDATION[recipe.dataset]
    trained = recipe.train_images or store.SIZES[recipe.dataset][0] - held
    return connections(recipe) * recipe.epochs * (PASSES * trained + held)


def committed(name: str, profile: str) -> list[dict]:
    """A recipe's committed runs on CPU and on real images."""
    return [run for run in runs.committed(recipes.by_name(name), profile) if _counts(run)]


def _counts(record: dict) -> bool:
    made = record["provenance"]
    return made["device"] == "cpu" and not made["stand_in"]


def seconds_of(record: dict) -> list[float]:
    """Seconds of each of its epochs."""
    return [epoch["seconds"] for epoch in record["history"]]


def usual_seconds(record: dict) -> float:
    """All epochs at the median one's time: some waited for hours while others were timed."""
    seconds = seconds_of(record)
    return median(seconds) * len(seconds)


def sized(record: dict) -> Recipe:
    """The named recipe at the record's size."""
    sizes = {name: record["recipe"][name] for name in SIZES}
    named = recipes.by_name(record["recipe"]["name"])
    return replace(named, **sizes | {"hidden": tuple(sizes["hidden"])})


def table() -> str:
    """The paper's recipes as they were run, as Markdown: a row a profile and machine."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]
    for recipe in paper.PAPER:
        for profile in recipes.PROFILES:
            for group in _by_machine(committed(recipe.name, profile)):
                lines.append(f"| {' | '.join(_row(recipe, profile, group))} |")
    done = {recipe for recipe in paper.PAPER for p in recipes.PROFILES if committed(recipe.name, p)}
    missing = [recipe.name for recipe in paper.PAPER if recipe not in done]
    return "\n".join(lines + (["", f"Not run: {', '.join(missing)}."] if missing else []))


def _by_machine(records: Sequence[dict]) -> list[list[dict]]:
    groups: dict[str, list[dict]] = {}
    for record in records:
        groups.setdefault(_machine(record), []).append(record)
    return list(groups.values())


def _machine(record: dict) -> str:
    threads = record["provenance"]["threads"]
    return f"{bench.label(record)}, {threads} thread{'s' * (threads > 1)}"


def _row(recipe: Recipe, profile: str, group: Sequence[dict]) -> list[str]:
    made = sized(group[0])
    seconds = [second for run in group for second in seconds_of(run)]
    times = min(seconds), median(seconds)
    per_epoch = work(recipe) / recipe.epochs / (work(made) / made.epochs)
    hours = _range(f"{each * per_epoch * recipe.epochs / 3600:,.3g}" for each in times)
    own = connections(made) == connections(recipe) and made.train_images == recipe.train_images
    errors = [run["test_error"] for run in group]
    printed, above = _beside_the_paper(recipe, fmean(errors))
    network = "the paper's" if own else f"an epoch is {per_epoch:.3g} times less work"
    cells = [recipe.name, profile, network, _machine(group[0])]
    cells += [_range(f"{each:.1f}" for each in times), f"{made.epochs} of {recipe.epochs}"]
    cells.append(f"{'' if own else 'about '}{hours}")
    return [*cells, f"{spread(errors)} (n = {len(group)})", printed, above]


def _range(numbers: Iterable[str]) -> str:
    return " to ".join(dict.fromkeys(numbers))


def _beside_the_paper(recipe: Recipe, error: float) -> tuple[str, str]:
    """(the paper's test error, how far a mean error lies above it); empty where it prints none.

    The authors' Torch7 code stands behind the same printed error as the paper's words.
    """
    claim = claims.load().get(recipe.name.removesuffix("-code").replace("-", "_"))
    if claim is None or recipe.name.endswith("-float"):
        return "", ""
    return claim.printed, f"{error - claim.value:+.2f}"
