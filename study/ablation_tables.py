"""Tables and sentences for notebooks 02, 03, 07: tests by draws, and where experiments disagree."""

from collections.abc import Sequence

import pandas as pd

from bnnlib.binarize import Binarization
from study.evidence import Result, answer
from study.tables import spread
from study.verdicts import JUDGED, interval

AVERAGED = "averaged_test_error"  # a record's entry, where something is drawn


def both_ways(records: Sequence[dict]) -> pd.DataFrame:
    """Test error of stochastic recipes by their signs and by the mean of many draws.

    Runs that were not tested by draws, because nothing in them is drawn or because their record is
    older than that test, are left out.
    """
    groups: dict[tuple[str, str], list[dict]] = {}
    for run in records:
        if AVERAGED in run:
            groups.setdefault((run["recipe"]["name"], run["profile"]), []).append(run)
    rows = [
        {
            "recipe": name,
            "profile": profile,
            "tested by signs (%)": spread(run["test_error"] for run in group),
            "by the mean of draws (%)": spread(run[AVERAGED] for run in group),
            "draws": group[0]["averaged_draws"],
            "n": len(group),
        }
        for (name, profile), group in groups.items()
    ]
    columns = ["recipe", "profile", "tested by signs (%)", "by the mean of draws (%)", "draws", "n"]
    return pd.DataFrame(rows, columns=columns)


def by_draws(claim_id: str, records: Sequence[dict]) -> Result:
    """The result of a claim whose stochastic recipes are tested by the mean of many draws.

    Runs of theirs that were not tested so are left out: those older than that test.
    """
    tested = [run for run in records if AVERAGED in run or not _is_drawn(run)]
    return answer(claim_id, tested, lambda run: run.get(AVERAGED, run["test_error"]))


def _is_drawn(run: dict) -> bool:
    """Whether a run's weights or activations are drawn in training."""
    return Binarization.STOCHASTIC in (run["recipe"]["weights"], run["recipe"]["activations"])


def disagreement(one: Result, other: Result) -> list[str]:
    """A sentence if two claims on the same change differ in its effect, else none.

    They differ where the effects have opposite signs, or intervals without a common point. What
    can't be judged can't disagree. Both claims name the changed recipe first, its baseline second.
    """
    if not {one.verdict, other.verdict} <= set(JUDGED):
        return []
    effects = [result.difference for result in (one, other)]
    if effects[0] * effects[1] > 0 and not _apart(one, other):
        return []
    pages = [f"notebook {result.claim.notebook[:2]}" for result in (one, other)]
    parts = [f"{_effect(r)} in {page}" for r, page in zip((one, other), pages, strict=True)]
    how = _how(*effects, _apart(one, other))
    return [
        f"**Two experiments {how}.** The same exchange changes the test error by {parts[0]} "
        f"and by {parts[1]}; their networks, dropout and lengths differ."
    ]


def _how(one: float, other: float, apart: bool) -> str:
    """Say in what way two effects differ."""
    if one * other < 0:
        return "disagree" if apart else "point in opposite directions, which may be chance"
    return "disagree about the size of an effect"


def _effect(result: Result) -> str:
    known = filter(None, [result.interval, *sorted(result.profiles), result.grade])
    return f"{result.difference:+.2f} points ({', '.join(known)}; verdict: {result.verdict})"


def _apart(one: Result, other: Result) -> bool:
    """Whether the two intervals have no point in common."""
    (low, high), (low2, high2) = (interval(r.values, r.reference) for r in (one, other))
    return high < low2 or high2 < low
