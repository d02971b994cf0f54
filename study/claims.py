"""The paper's claims, as data: what notebooks/claims.toml holds.

verdicts.py has the rules by which they are judged, evidence.py what was obtained for them.
"""

import tomllib
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from math import isfinite

from study import ROOT

FILE = ROOT / "notebooks" / "claims.toml"
OURS = "ours"  # the origin of a question that the paper does not ask
TWO_GROUPS = ("no_worse", "effect")
CONFIDENCE = 0.95  # of the two-sided interval by which a difference is judged
INTERVAL = f"{100 * CONFIDENCE:g} % interval"
TRAINING = "training"
SPEED = "speed"
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

    @property
    def tolerance(self) -> float:
        """The margin in the claim's unit."""
        return self.margin * abs(self.value) if self.relative else self.margin

    @property
    def paper(self) -> str:
        """What the paper says, for a table."""
        return self.says or with_unit(self.printed, self.unit)

    @property
    def category(self) -> str:
        """One of CATEGORIES. Verdicts of two categories are never added up."""
        return self.evidence if self.evidence in CATEGORIES else TRAINING

    @property
    def decimals(self) -> int:
        """How many a value is shown with: as many as the paper prints, at least one."""
        return max(1, len(self.printed.partition(".")[2]))

    @property
    def criterion(self) -> str:
        """The condition under which it counts as reproduced, in words and numbers."""
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
def claims() -> dict[str, Claim]:
    """Every claim by its id. Raises ValueError, in one sentence, where the file is damaged."""
    # Decimal keeps 11.40 from becoming 11.4.
    tables = _tables(Decimal)
    return {name: _claim(name, table) for name, table in tables.items() if name not in OTHERS}


def _tables(number: type) -> dict:
    """The file; number: what its decimal numbers become."""
    try:
        tables = tomllib.loads(FILE.read_text("utf-8"), parse_float=number)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"{FILE.name} cannot be read: {error}") from error
    for name in OTHERS:
        if not isinstance(tables.get(name), dict):
            raise ValueError(f"{FILE.name} has no table [{name}]")
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


@cache
def working() -> dict[str, float]:
    """Data set -> the highest mean test error, in %, of a network that works.

    Raises as `claims` does.
    """
    return _tables(float)["working"]


def with_unit(number: str, unit: str) -> str:
    return f"{number} {unit}".strip()


def difference_unit(claim: Claim) -> str:
    """Errors in % differ by points."""
    return "points" if claim.unit == "%" else claim.unit
