"""Which of three learning rates serves an arm best, by the validation errors of its runs."""

from collections.abc import Iterable, Sequence

import pandas as pd

from study import recipes
from study.recipes import sweeps
from study.recipes.recipe import Recipe
from study.train import runner
from study.verdicts import NOT_RUN

PROFILE = "evening"  # in which rates are chosen and used
EDGE = "at the edge: none beyond it was tried"


def records(arm: Recipe) -> list[dict]:
    """The runs of an arm's three rates, rising: committed ones, else those in build/runs."""
    tried = [recipes.at_profile(recipe, PROFILE) for recipe in sweeps.SWEEPS[arm.name]]
    return [run for recipe in tried for run in runner.obtain(recipe, PROFILE, 1, retrain=False)]


def validation_error(run: dict) -> float:
    """The lowest of a run's epochs, in percent."""
    return min(epoch["validation_error"] for epoch in run["history"])


def best(runs: Sequence[dict]) -> float | None:
    """The rate with the lowest validation error, the lowest of equals; None unless all are run."""
    if len(runs) < len(sweeps.STEPS):
        return None
    return min((validation_error(run), run["recipe"]["learning_rate"]) for run in runs)[1]


def choice() -> dict[str, float]:
    """Swept arm -> its best rate, for each arm whose three runs are there."""
    found = {arm.name: best(records(arm)) for arm in sweeps.SWEPT}
    return {name: rate for name, rate in found.items() if rate is not None}


def sweep_table(arms: Iterable[Recipe]) -> pd.DataFrame:
    """Validation error of each arm at each of its rates, and the rate that its runs use."""
    swept = [arm for arm in arms if arm.name in sweeps.SWEEPS]
    rates = sweeps.chosen()
    rows = [_row(arm, rates.get(arm.name)) for arm in swept]
    return pd.DataFrame(rows, columns=["recipe", "lowest", "middle", "highest", "chosen"])


def swept_records(arms: Iterable[Recipe]) -> list[dict]:
    """The runs that `sweep_table` shows, for a page to name among its records."""
    return [run for arm in arms if arm.name in sweeps.SWEEPS for run in records(arm)]


def _row(arm: Recipe, rate: float | None) -> dict[str, str]:
    by_rate = {run["recipe"]["learning_rate"]: validation_error(run) for run in records(arm)}
    tried = [recipe.learning_rate for recipe in sweeps.SWEEPS[arm.name]]
    cells = [f"{shown(each)}: {_error(by_rate.get(each))}" for each in tried]
    columns = dict(zip(("lowest", "middle", "highest"), cells, strict=True))
    return {"recipe": arm.name, **columns, "chosen": _chosen(rate, tried)}


def shown(rate: float) -> str:
    """A rate as it was meant: a power of two as one, others in decimals."""
    mantissa, exponent = float(rate).hex().split("p")
    return f"2^{int(exponent)}" if mantissa == "0x1.0000000000000" else f"{rate:g}"


def _error(error: float | None) -> str:
    return NOT_RUN if error is None else f"{error:.2f} %"


def _chosen(rate: float | None, tried: Sequence[float]) -> str:
    if rate is None:
        return NOT_RUN
    edge = rate in (min(tried), max(tried))
    return f"{shown(rate)} ({EDGE})" if edge else shown(rate)
