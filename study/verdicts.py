"""The rules by which claims are judged, and the words for what comes out.

The head of notebooks/claims.toml states the rules. Whether values may be judged at all is decided
in evidence.py.
"""

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, variance

from study.claims import CONFIDENCE, INTERVAL, OURS, TWO_GROUPS, Claim

REPRODUCED = "reproduced"
PARTLY = "partly reproduced"
NOT = "not reproduced"
FOUND, NOT_FOUND = "found", "not found"  # of a question of our own
OPPOSITE, UNDECIDED = "opposite", "undecided"  # of a difference, whoever claims it
TOO_SMALL, TOO_FEW = "too small to tell", "too few runs"
OTHER_SETTINGS, LENGTHS_DIFFER = "not at the paper's settings", "lengths differ"
STAND_IN, NOT_RUN = "stand-in data", "not run"
JUDGED = (REPRODUCED, PARTLY, NOT, FOUND, NOT_FOUND, OPPOSITE, UNDECIDED)
NOT_JUDGED = (TOO_SMALL, TOO_FEW, OTHER_SETTINGS, LENGTHS_DIFFER, STAND_IN, NOT_RUN)
VERDICTS = JUDGED + NOT_JUDGED

FEWEST_RUNS = 3  # in each of two groups, before their difference is judged


def listed(parts: Sequence[str]) -> str:
    """Words in a row: "a, b and c"."""
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last


def judge(claim: Claim, values: Sequence[float], reference: Sequence[float] = ()) -> str:
    """Apply a claim's criterion to values that have been found fit to be judged; -> of JUDGED.

    Raises ValueError for an unknown kind of criterion.
    """
    if claim.kind in TWO_GROUPS:
        return _of_difference(claim, *interval(values, reference))
    verdict = _of_mean(excess(claim, values), claim.tolerance)
    if claim.origin != OURS:
        return verdict
    return FOUND if verdict == REPRODUCED else NOT_FOUND


def earlier(claim: Claim, verdict: str, values: Sequence[float]) -> str:
    """Tell the verdict by the claim's first margin; empty where it is the same, or none is given.

    verdict: the one by today's margin. values: as for `judge`.
    """
    if claim.first_margin is None or verdict not in JUDGED:
        return ""
    first = judge(claim.at_first, values)
    return f"{first} by the criterion until {claim.revised}" if first != verdict else ""


def _of_difference(claim: Claim, low: float, high: float) -> str:
    """Rounded, so that an interval which touches the margin exactly is seen to touch it."""
    low, high = round(low - claim.margin, 9), round(high - claim.margin, 9)
    holds, fails = (low > 0, high < 0) if claim.kind == "effect" else (high <= 0, low > 0)
    if holds:
        return FOUND if claim.origin == OURS else REPRODUCED
    return OPPOSITE if fails else UNDECIDED


def _of_mean(over: float, margin: float) -> str:
    """Rounded, so that a mean exactly on the margin is inside it."""
    if round(over - margin, 9) <= 0:
        return REPRODUCED
    return PARTLY if round(over - 3 * margin, 9) <= 0 else NOT


def excess(claim: Claim, values: Sequence[float]) -> float:
    """How far the mean lies on the wrong side of what is claimed, in the claim's unit."""
    match claim.kind:
        case "at_most":
            return fmean(values) - claim.value
        case "at_least":
            return claim.value - fmean(values)
        case "within":
            return abs(fmean(values) - claim.value)
    raise ValueError(f"claim {claim.id}: unknown kind {claim.kind!r}")


def interval(values: Sequence[float], reference: Sequence[float]) -> tuple[float, float]:
    """The two-sided interval of the difference of two means at the level CONFIDENCE (Welch).

    Variances are not taken as equal; degrees of freedom after Welch and Satterthwaite. Without any
    spread both ends are the difference. Raises statistics.StatisticsError for fewer than two values
    in a group.
    """
    from scipy.stats import t

    difference = fmean(values) - fmean(reference)
    squares = [variance(group) / len(group) for group in (values, reference)]
    total = sum(squares)
    if not total:
        return difference, difference
    pairs = zip(squares, (len(values), len(reference)), strict=True)
    freedom = 1 / sum((square / total) ** 2 / (n - 1) for square, n in pairs)
    half = float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * sqrt(total)
    return difference - half, difference + half


def interval_text(claim: Claim, values: Sequence[float], reference: Sequence[float]) -> str:
    """The interval of the difference in words; empty where a group has fewer than two values."""
    if min(len(values), len(reference)) < 2:
        return ""
    low, high = (f"{end:+.{claim.decimals}f}" for end in interval(values, reference))
    return f"{INTERVAL} {low} to {high}"
