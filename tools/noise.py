"""When a difference between two results of one experiment is noise: the rule, in one place.

A result is the mean over runs that differ in their seeds alone, or over repeated timings. The
difference of two results is noise if the spread of such runs makes it so large in more than one of
twenty cases: if it is at most t standard errors. The standard error comes from the spread on both
sides together, which is taken to be one and the same on both; a side with a single run has the
other side's. t is Student's for as many degrees of freedom as the spread rests on: about 2 for many
runs, more for few. Where neither side has a second run, the spread is that of similar runs: the
median over the recipes on the same data set at the same profile. Where there are none of these
either, the spread is unknown, and so is what the difference means.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import median, variance

CHANCE = 0.05  # the share of mere noise that is taken for more


@dataclass(frozen=True)
class Spread:
    """A standard deviation over runs, and the degrees of freedom that it rests on."""

    std: float
    freedom: int


def pooled(groups: Iterable[Sequence[float]]) -> Spread | None:
    """The spread about each group's own mean; None where no group has two values."""
    groups = [group for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in groups)
    if not freedom:
        return None
    squares = sum(variance(group) * (len(group) - 1) for group in groups)
    return Spread(sqrt(squares / freedom), freedom)


def typical(spreads: Iterable[Spread | None]) -> Spread | None:
    """The median of those that are known, resting on all of them."""
    known = [spread for spread in spreads if spread]
    if not known:
        return None
    freedom = sum(spread.freedom for spread in known)
    return Spread(median(spread.std for spread in known), freedom)


def limit(parts: Sequence[tuple[Spread | None, int, int]]) -> float | None:
    """The largest difference that is noise; None where a spread is unknown.

    parts: for each mean that both results are made of, its spread and its number of runs on either
    side. One mean, or two of which the result is the difference (degrees of freedom after Welch
    and Satterthwaite).
    """
    from scipy.stats import t

    if any(spread is None for spread, *_ in parts):
        return None
    squares = [(s.std**2 * (1 / n + 1 / m), s.freedom) for s, n, m in parts]
    total = sum(square for square, _ in squares)
    if not total:
        return 0.0
    freedom = total**2 / sum(square**2 / freedom for square, freedom in squares)
    return float(t.ppf(1 - CHANCE / 2, freedom)) * sqrt(total)
