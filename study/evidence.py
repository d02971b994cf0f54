"""Evidence for the paper's claims: its grade, and the verdict that it leads to.

A verdict is computed from a claim (claims.py), by its criterion (verdicts.py), from run records or
measurements. Nothing is judged that is too weak for it.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from operator import itemgetter
from statistics import fmean, stdev

from study import claims, recipes
from study.claims import TRAINING, TWO_GROUPS, Claim, working
from study.verdicts import (
    FEWEST_RUNS,
    LENGTHS_DIFFER,
    NOT_RUN,
    OTHER_SETTINGS,
    STAND_IN,
    TOO_FEW,
    TOO_SMALL,
    interval_text,
    judge,
)

PAPER = "paper's settings"
WORKING = "working networks"
SMALL = "small networks"
WITHOUT_TRAINING = {"speed": "timed", "arithmetic": "computed", "exactness": "counted"}


@dataclass(frozen=True)
class Result:
    """Result for one claim.

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
        if self.claim_id not in claims.load():
            raise ValueError(f"claims.toml has no claim {self.claim_id!r}")
        keys = list(map(_key, self.runs))
        if len(set(keys)) < len(keys):
            raise ValueError(f"claim {self.claim_id}: a run is counted twice")
        for recipe, *_ in keys:
            if recipe not in (self.claim.recipes or [recipe]):
                raise ValueError(f"claim {self.claim_id} is not answered by runs of {recipe}")

    @property
    def claim(self) -> Claim:
        return claims.load()[self.claim_id]

    @cached_property
    def runs(self) -> list[dict]:
        """The records that are of trainings."""
        return [record for record in self.records if "recipe" in record]

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
        made_in = {self.profile} - {""} if self.claim.category != TRAINING else set()
        return made_in | {record["profile"] for record in self.records}

    @property
    def stand_in(self) -> bool:
        return any(record["provenance"].get("stand_in", False) for record in self.records)

    @property
    def lengths_differ(self) -> bool:
        """Whether two recipes are compared that saw other numbers of epochs or of images."""
        lengths = {(run["recipe"]["epochs"], run["recipe"]["train_images"]) for run in self.runs}
        return len(self.claim.recipes) > 1 and len(lengths) > 1

    @cached_property
    def altered(self) -> bool:
        """Whether a run's recipe is none of the named ones at the profile that it states."""
        return any(map(_altered, self.runs))

    @property
    def grade(self) -> str:
        """How strong the evidence is; empty without a value, at smoke and on the stand-in.

        PAPER, WORKING or SMALL, and one of WITHOUT_TRAINING where nothing was trained. The paper's
        settings are those of the paper's own experiments; ablations have none.
        """
        if self.difference is None or self.stand_in or "smoke" in self.profiles:
            return ""
        if self.claim.category != TRAINING:
            return WITHOUT_TRAINING[self.claim.category]
        if self.claim.evidence == "paper" and self.profiles == {"paper"} and not self.altered:
            return PAPER
        return grade_of(self.runs)

    @property
    def interval(self) -> str:
        """The interval of the difference of two groups, in words; empty where there is none."""
        return interval_text(self.claim, self.values, self.reference)

    @property
    def verdict(self) -> str:
        """One of verdicts.VERDICTS. Smoke, the stand-in and altered recipes are never judged."""
        if self.lengths_differ:
            return LENGTHS_DIFFER
        trained = self.claim.category == TRAINING
        if self.difference is None or not self.profiles:
            return NOT_RUN
        if self.stand_in:
            return STAND_IN
        if trained and not self.runs:
            return NOT_RUN
        if "smoke" in self.profiles or len(self.profiles) > 1 or self.altered:
            return OTHER_SETTINGS  # runs of different lengths and widths don't compare
        if self.claim.evidence == "paper" and self.grade != PAPER:
            return OTHER_SETTINGS
        if self.claim.evidence == "runs" and self.grade != WORKING:
            return TOO_SMALL
        if self.claim.kind in TWO_GROUPS and min(self.n, len(self.reference)) < FEWEST_RUNS:
            return TOO_FEW
        return judge(self.claim, self.values, self.reference)


def grade_of(runs: Sequence[dict]) -> str:
    """WORKING where the recipe with the lowest mean test error is within its data set's limit.

    The better of two compared arms counts, whichever of them is the baseline: an arm that breaks
    the training must not make the comparison worthless. Empty on data without a limit.
    """
    groups: dict[tuple, list[float]] = {}
    for run in runs:
        key = run["recipe"]["dataset"], run["recipe"]["name"], run["profile"]
        groups.setdefault(key, []).append(run["test_error"])
    limits = working()
    if not groups or any(dataset not in limits for dataset, *_ in groups):
        return ""
    margins = [fmean(errors) - limits[dataset] for (dataset, *_), errors in groups.items()]
    return WORKING if round(min(margins), 9) <= 0 else SMALL


def answer(
    claim_id: str,
    records: Sequence[dict],
    value: Callable[[dict], float] = itemgetter("test_error"),
) -> Result:
    """The result of a claim that runs answer: one value per run of the recipe that it names.

    Of a claim on two recipes the second is the reference: a group of its own where the kind
    compares two groups, else subtracted seed by seed. Where their lengths differ the result has its
    records and no value. Other records are left out.
    """
    claim = claims.load()[claim_id]
    names = (*claim.recipes, "")[:2]
    judged, reference = ([r for r in records if r["recipe"]["name"] == name] for name in names)
    if claim.kind in TWO_GROUPS or not claim.recipes[1:]:
        values, others = [value(r) for r in judged], [value(r) for r in reference]
        result = Result(claim_id, values, judged + reference, others)
    else:
        base = {r["seed"]: r for r in reference}
        pairs = [(r, base[r["seed"]]) for r in judged if r["seed"] in base]
        differences = [value(a) - value(b) for a, b in pairs]
        result = Result(claim_id, differences, [record for pair in pairs for record in pair])
    return replace(result, values=[], reference=[]) if result.lengths_differ else result


def _key(run: dict) -> tuple[str, str, int, str]:
    device = run["provenance"]["device"]
    return run["recipe"]["name"], run["profile"], run["seed"], device


def _altered(run: dict) -> bool:
    named = [recipe for recipe in recipes.RECIPES if recipe.name == run["recipe"]["name"]]
    own = [asdict(recipes.at_profile(recipe, run["profile"])) for recipe in named]
    return run["recipe"] not in [json.loads(json.dumps(recipe)) for recipe in own]
