"""The paper's claims, as data: what notebooks/claims.toml holds.

verdicts.py has the rules by which they are judged, evidence.py what was obtained for them.
"""

import tomllib
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache

from study import ROOT

FILE = ROOT / "notebooks" / "claims.toml"
OURS = "ours"  # the origin of a question that the paper does not ask
TWO_GROUPS = ("no_worse", "effect")
CONFIDENCE = 0.95  # of the two-sided interval by which a difference is judged
INTERVAL = f"{100 * CONFIDENCE:g} % interval"
TRAINING = "training"
SPEED = "speed"
NUMBERS = ("value", "margin", "first_margin")
OTHERS = ("working", "context")  # the file's tables that are no claims
CATEGORIES = (TRAINING, SPEED, "arithmetic", "exactness")


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
    first_margin: float | None = None
    revised: str = ""

    @property
    def at_first(self) -> "Claim":
        """The claim with the margin that it had until it was revised; itself if it never was."""
        if self.first_margin is None:
            return self
        return replace(self, margin=self.first_margin, relative=False, first_margin=None)

    @property
    def tolerance(self) -> float:
        """The margin in the claim's unit."""
        return self.margin * abs(self.value) if self.relative else self.margin

    @property
    def paper(self) -> str:
        """The paper's value or words, for a table."""
        return self.says or with_unit(self.printed, self.unit)

    @property
    def category(self) -> str:
        """One of CATEGORIES. Verdicts of two categories are never added up."""
        return self.evidence if self.evidence in CATEGORIES else TRAINING

    @property
    def decimals(self) -> int:
        """Number of decimals to show: as many as the paper prints, at least one."""
        return max(1, len(self.printed.partition(".")[2]))

    def decimals_for(self, mean: float) -> int:
        """Number of decimals to show of a mean, in the claim's unit: `decimals`, or up to 4.

        More are needed where a mean that misses the paper's value would look equal to it.
        """
        enough = self.decimals
        while enough < 4 and mean != self.value and round(mean, enough) == self.value:
            enough += 1
        return enough

    @property
    def criterion(self) -> str:
        """The condition under which it counts as reproduced, in words and numbers.

        A margin that was changed once the result was known stands beside the first one.
        """
        if self.first_margin is None:
            return self._condition
        first = self.at_first._condition.removeprefix("the mean is ")
        return f"{self._condition} ({first} until {self.revised}; changed with the result known)"

    @property
    def _condition(self) -> str:
        interval = f"the {INTERVAL} of the difference"
        match self.kind:
            case "effect":
                return f"{interval} lies above 0"
            case "no_worse":
                return f"{interval} ends at or below {self.limit}"
            case "within":
                width = with_unit(f"{self.tolerance:.3g}", difference_unit(self))
                return f"the mean is within {width} of {with_unit(self.printed, self.unit)}"
        return f"the mean is {self.kind.replace('_', ' ')} {self.limit}"

    @property
    def limit(self) -> str:
        """The last value that passes, with its unit, where the criterion has one."""
        if self.kind == "no_worse":
            return with_unit(f"{self.margin:+g}", difference_unit(self))
        limit = self.value + (self.tolerance if self.kind == "at_most" else -self.tolerance)
        return with_unit(f"{limit:.4g}", self.unit)


@cache
def load() -> dict[str, Claim]:
    """Every claim by its id."""
    tables = _tables(Decimal)  # which keeps 11.40 from becoming 11.4
    return {name: _claim(name, table) for name, table in tables.items() if name not in OTHERS}


def _tables(number: type) -> dict:
    """The tables of the file; number: the type of its decimal numbers."""
    return tomllib.loads(FILE.read_text("utf-8"), parse_float=number)


def _claim(name: str, table: dict) -> Claim:
    numbers = {key: float(table[key]) for key in NUMBERS if key in table}
    return Claim(id=name, printed=str(table["value"]), **table | numbers)


def context() -> dict:
    """The paper's other numbers: other methods, points read off figures, energies."""
    return _tables(float)["context"]


@cache
def working() -> dict[str, float]:
    """Data set -> the highest mean test error, in %, of a network that works."""
    return _tables(float)["working"]


def with_unit(number: str, unit: str) -> str:
    return f"{number} {unit}".strip()


def difference_unit(claim: Claim) -> str:
    """Errors in % differ by points."""
    return "points" if claim.unit == "%" else claim.unit
