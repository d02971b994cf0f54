"""The paper's claims and how they are judged.

A claim is data (notebooks/claims.toml); a verdict is computed from it and from run records.
"""

import json
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from functools import cache
from math import isfinite
from operator import itemgetter
from statistics import fmean, stdev, variance

from bnnlib import ROOT, recipes

REPRODUCED, PARTLY, NOT = "reproduced", "partly reproduced", "not reproduced"
FOUND, NOT_FOUND = "found", "not found"  # of a question of our own
STAND_IN, NOT_RUN = "stand-in data", "not run"
OTHER_SETTINGS, TOO_FEW = "not at the paper's settings", "too few runs"
VERDICTS = (REPRODUCED, PARTLY, NOT, FOUND, NOT_FOUND, STAND_IN, OTHER_SETTINGS, TOO_FEW, NOT_RUN)

FILE = ROOT / "notebooks" / "claims.toml"
OURS = "ours"  # the origin of a question that the paper does not ask
TWO_GROUPS = ("no_worse", "effect")
FEWEST_RUNS = 3  # in each of two groups, before their difference is judged


@dataclass(frozen=True)
class Claim:
    """One table of claims.toml, whose head says what each field means."""

    id: str
    statement: str
    value: float
    printed: str  # the value with as many decimals as the paper prints
    unit: str
    where: str
    selection: str
    paper_n: int
    kind: str
    margin: float
    evidence: str
    recipes: list[str]
    origin: str
    notebook: str
    says: str = ""
    relative: bool = False

    @property
    def tolerance(self) -> float:
        """The margin in the claim's unit."""
        return self.margin * abs(self.value) if self.relative else self.margin

    @property
    def paper(self) -> str:
        """What the paper says, for a table."""
        return self.says or with_unit(self.printed, self.unit)

    @property
    def criterion(self) -> str:
        """What reproduces it, in words and numbers."""
        match self.kind:
            case "effect":
                return f"higher, by Welch's t-test at the {100 * self.margin:g} % level"
            case "no_worse":
                return f"higher by at most {self.margin:g} points"
            case "within":
                width = with_unit(f"{self.tolerance:.3g}", difference_unit(self))
                return f"within {width} of {with_unit(self.printed, self.unit)}"
        limit = self.value + (self.tolerance if self.kind == "at_most" else -self.tolerance)
        return f"{self.kind.replace('_', ' ')} {with_unit(f'{limit:.4g}', self.unit)}"


@cache
def claims() -> dict[str, Claim]:
    """Every claim by its id. Raises ValueError, in one sentence, where the file is damaged."""
    # Decimal keeps 11.40 from becoming 11.4.
    tables = _tables(Decimal)
    del tables["context"]
    return {name: _claim(name, table) for name, table in tables.items()}


def _tables(number: type) -> dict:
    """The file; number: what its decimal numbers become."""
    try:
        tables = tomllib.loads(FILE.read_text("utf-8"), parse_float=number)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"{FILE.name} cannot be read: {error}") from error
    if not isinstance(tables.get("context"), dict):
        raise ValueError(f"{FILE.name} has no table [context]")
    return tables


def _claim(name: str, table: dict) -> Claim:
    try:
        numbers = {key: float(table[key]) for key in ("value", "margin")}
        if not all(map(isfinite, numbers.values())):
            raise ValueError("value and margin must be finite")
        return Claim(id=name, printed=str(table["value"]), **table | numbers)
    except (TypeError, LookupError, ValueError, ArithmeticError) as error:
        raise ValueError(f"{FILE.name} has no complete claim {name!r}: {error}") from error


def context() -> dict:
    """The paper's other numbers: other methods, points read off figures, energies.

    Raises as `claims` does.
    """
    return _tables(float)["context"]


@dataclass(frozen=True)
class Result:
    """What was obtained for one claim.

    `values` are in the claim's unit, one per run or measurement; where two groups are compared,
    `reference` holds those of the other group. `records` are all the runs behind them; of a
    measurement, dicts with `profile` and `provenance`, or none and the `profile` it was made in.
    """

    claim_id: str
    values: Sequence[float]
    records: Sequence[dict] = ()
    reference: Sequence[float] = ()
    profile: str = ""

    def __post_init__(self):
        if self.claim_id not in claims():
            raise ValueError(f"claims.toml has no claim {self.claim_id!r}")
        runs = [_run(record) for record in self.records if "recipe" in record]
        if len(set(runs)) < len(runs):
            raise ValueError(f"claim {self.claim_id}: a run is counted twice")
        for recipe, *_ in runs:
            if recipe not in (self.claim.recipes or [recipe]):
                raise ValueError(f"claim {self.claim_id} is not answered by runs of {recipe}")

    @property
    def claim(self) -> Claim:
        return claims()[self.claim_id]

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float | None:
        return fmean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation; None for fewer than two values."""
        return stdev(self.values) if self.n > 1 else None

    @property
    def difference(self) -> float | None:
        """Mean less the claim's value; with two groups, less the mean of the reference."""
        if not self.values or (self.claim.kind in TWO_GROUPS and not self.reference):
            return None
        return self.mean - (fmean(self.reference) if self.reference else self.claim.value)

    @property
    def profiles(self) -> set[str]:
        made_in = {self.profile} - {""} if self.claim.evidence == "measurement" else set()
        return made_in | {record["profile"] for record in self.records}

    @property
    def stand_in(self) -> bool:
        return any(record["provenance"].get("stand_in", False) for record in self.records)

    @property
    def verdict(self) -> str:
        """One of VERDICTS. Smoke, the stand-in and altered recipes are never judged."""
        if self.difference is None or not self.profiles:
            return NOT_RUN
        if self.stand_in:
            return STAND_IN
        fit = {"paper"} if self.claim.evidence == "paper" else set(recipes.PROFILES) - {"smoke"}
        if not self.profiles <= fit or any(_altered(record) for record in self.records):
            return OTHER_SETTINGS
        if len(self.profiles) > 1:  # runs of different lengths and widths don't compare
            return OTHER_SETTINGS
        if self.claim.kind in TWO_GROUPS and min(self.n, len(self.reference)) < FEWEST_RUNS:
            return TOO_FEW
        return judge(self.claim, self.values, self.reference)


def answer(
    claim_id: str,
    records: Sequence[dict],
    value: Callable[[dict], float] = itemgetter("test_error"),
) -> Result:
    """The result of a claim that runs answer: one value per run of the recipe that it names.

    Of a claim on two recipes the second is the reference: a group of its own where the kind
    compares two groups, else subtracted seed by seed. Other records are left out.
    """
    claim = claims()[claim_id]
    names = (*claim.recipes, "")[:2]
    judged, reference = ([r for r in records if r["recipe"]["name"] == name] for name in names)
    if claim.kind in TWO_GROUPS or not claim.recipes[1:]:
        values, others = [value(r) for r in judged], [value(r) for r in reference]
        return Result(claim_id, values, judged + reference, others)
    base = {r["seed"]: r for r in reference}
    pairs = [(r, base[r["seed"]]) for r in judged if r["seed"] in base]
    differences = [value(a) - value(b) for a, b in pairs]
    return Result(claim_id, differences, [record for pair in pairs for record in pair])


def judge(claim: Claim, values: Sequence[float], reference: Sequence[float] = ()) -> str:
    """Apply a claim's criterion to values that have been found fit to be judged."""
    if claim.kind == "effect":
        grade = REPRODUCED if exceeds(values, reference, claim.margin) else NOT
    else:
        grade = _grade(excess(claim, values, reference), claim.tolerance)
    return grade if claim.origin != OURS else FOUND if grade == REPRODUCED else NOT_FOUND


def _grade(over: float, margin: float) -> str:
    """Rounded, so that a mean exactly on the margin is inside it."""
    if round(over - margin, 9) <= 0:
        return REPRODUCED
    return PARTLY if round(over - 3 * margin, 9) <= 0 else NOT


def excess(claim: Claim, values: Sequence[float], reference: Sequence[float] = ()) -> float:
    """How far the mean lies on the wrong side of what is claimed, in the claim's unit."""
    match claim.kind:
        case "at_most":
            return fmean(values) - claim.value
        case "at_least":
            return claim.value - fmean(values)
        case "within":
            return abs(fmean(values) - claim.value)
        case "no_worse":
            return fmean(values) - fmean(reference)
    raise ValueError(f"claim {claim.id}: unknown kind {claim.kind!r}")


def exceeds(values: Sequence[float], reference: Sequence[float], level: float) -> bool:
    """Whether the mean is above the reference's, by Welch's one-sided t-test at this level.

    A few runs are few degrees of freedom: t makes up for that, a count of standard errors does not.
    """
    from scipy.stats import ttest_ind

    if not standard_error(values, reference):
        return fmean(values) > fmean(reference)
    return ttest_ind(values, reference, equal_var=False, alternative="greater").pvalue < level


def standard_error(values: Sequence[float], reference: Sequence[float]) -> float:
    """Of the difference of two means, variances unequal (Welch): sqrt(s1^2 / n1 + s2^2 / n2)."""
    return (variance(values) / len(values) + variance(reference) / len(reference)) ** 0.5


def _run(record: dict) -> tuple[str, str, int, str]:
    device = record["provenance"]["device"]
    return record["recipe"]["name"], record["profile"], record["seed"], device


def _altered(record: dict) -> bool:
    """Whether a run's recipe is none of the named ones at the profile that its record states."""
    if "recipe" not in record:
        return False
    named = [recipes.at_profile(recipe, record["profile"]) for recipe in recipes.RECIPES]
    return record["recipe"] not in [json.loads(json.dumps(asdict(recipe))) for recipe in named]


def with_unit(number: str, unit: str) -> str:
    return f"{number} {unit}".strip()


def difference_unit(claim: Claim) -> str:
    """Errors in % differ by points."""
    return "points" if claim.unit == "%" else claim.unit
