"""Claims in tables: what counts as reproducing them, and what was obtained."""

from collections.abc import Sequence

import pandas as pd

from study import claims, verdicts
from study.claims import (
    INTERVAL,
    OURS,
    TWO_GROUPS,
    Claim,
    difference_unit,
    with_unit,
    working,
)
from study.evidence import Result
from study.page import made_on
from study.tables import DATA_SETS, spread


def criteria(claim_ids: Sequence[str]) -> pd.DataFrame:
    """Table of what is claimed and what will reproduce it, before anything is run."""
    rows = [
        {
            "claim": claim.statement,
            "paper": claim.paper,
            "where": claim.where,
            "what is compared": claim.selection,
            "criterion": _rule(claim),
            "judged at": _judged_at(claim),
        }
        for claim in map(claims.load().__getitem__, claim_ids)
    ]
    return pd.DataFrame(rows)


def _rule(claim: Claim) -> str:
    rule = f"{'found' if claim.origin == OURS else 'reproduced'} if {claim.criterion}"
    if claim.kind in TWO_GROUPS:
        other = "lies below 0" if claim.kind == "effect" else f"begins above {claim.limit}"
        return f"{rule}; opposite if it {other}; else undecided"
    partly = claim.margin and claim.origin != OURS
    return f"{rule}; partly, up to three times that margin" if partly else rule


def _in_short(claim: Claim) -> str:
    """The criterion beside its verdict; `criteria` has all of it."""
    text = claim.criterion.replace(f"the {INTERVAL} of the difference", "interval")
    return text.removeprefix("the mean is ")


def _judged_at(claim: Claim) -> str:
    """Evidence that a verdict takes."""
    if claim.evidence == "paper":
        return "the paper's settings"
    if claim.evidence != "runs":
        return "any machine"
    limits = (f"{limit:g} % on {DATA_SETS[name]}" for name, limit in working().items())
    return f"networks that work: a mean error of at most {', '.join(limits)}"


def compare(results: Sequence[Result]) -> pd.DataFrame:
    """Claims beside what was obtained, each with its criterion.

    `evidence` names the grade, profile and device.
    """
    rows = [
        {
            "claim": result.claim.statement,
            "paper": result.claim.paper,
            "ours": _ours(result),
            "difference": _difference(result),
            "criterion": _in_short(result.claim),
            "verdict": result.verdict,
            "evidence": ", ".join(filter(None, _evidence(result))),
        }
        for result in results
    ]
    columns = ["claim", "paper", "ours", "difference", "criterion", "verdict", "evidence"]
    return pd.DataFrame(rows, columns=columns)


def _evidence(result: Result) -> list[str]:
    earlier = verdicts.earlier(result.claim, result.verdict, result.values)
    return [result.grade, _measured_on(result), earlier]


def _ours(result: Result) -> str:
    if result.difference is None:
        return result.verdict
    claim, decimals = result.claim, _decimals(result)
    if not result.reference:
        return f"{with_unit(spread(result.values, decimals), claim.unit)} (n = {result.n})"
    judged, reference = (spread(group, decimals) for group in (result.values, result.reference))
    compared = with_unit(f"{judged} against {reference}", claim.unit)
    return f"{compared} (n = {result.n}, {len(result.reference)})"


def _decimals(result: Result) -> int:
    """Decimals of a mean; as many as the paper prints where two groups are compared."""
    claim = result.claim
    return claim.decimals if result.reference else claim.decimals_for(result.mean)


def _difference(result: Result) -> str:
    """Empty without a value, and for a claim in words, to which there is no distance."""
    if result.difference is None or (result.claim.says and not result.reference):
        return ""
    number = f"{result.difference:+.{_decimals(result)}f}"
    text = with_unit(number, difference_unit(result.claim))
    return f"{text} ({result.interval})" if result.interval else text


def _measured_on(result: Result) -> str:
    profiles = ", ".join(sorted(result.profiles))
    devices = made_on(result.records)
    return f"{profiles} profile{', ' if devices else ''}{devices}" if profiles else ""
