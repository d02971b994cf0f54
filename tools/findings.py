"""Findings on the difference of two results: equal, noise, more than noise, or not to be told.

tools/noise.py says when a difference is noise. Beyond that rule: what was made under the same
conditions, counted or computed must be equal to the last digit; times belong to a machine and are
compared on one alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

from study import claims
from study.claims import SPEED, TRAINING, TWO_GROUPS, Claim
from study.train import runs
from study.verdicts import STAND_IN
from tools import noise, summary
from tools.noise import Spread
from tools.summary import Row

Runs = dict[str, dict]  # recipe/profile/device-seed -> record

SAME = "identical"
NOISE = "noise"
NOT_NOISE = "not noise"
DIFFERS = "differs"  # and should be equal
UNKNOWN = "spread unknown"
MACHINE = "other machine"
SETTINGS = "other settings"
COPIED = "not run anew"  # the committed runs or times themselves, shown again
FINDINGS = (SAME, NOISE, NOT_NOISE, DIFFERS, UNKNOWN, MACHINE, SETTINGS, STAND_IN, COPIED)
# What must be equal, besides the settings, for two runs of one seed to end in the same numbers.
CONDITIONS = ("sources", "data", "device", "device_name", "threads", "arithmetic")


@dataclass(frozen=True)
class Results:
    """A results folder: what its pages of one profile measured, and all runs in it."""

    folder: Path
    profile: str

    @cached_property
    def pages(self) -> list[dict]:
        return [page for page in summary.load(self.folder) if page["profile"] == self.profile]

    @cached_property
    def runs(self) -> Runs:
        """All of its runs. Raises ValueError for a damaged one."""
        root = self.folder / "runs"
        paths = sorted(root.glob("*/*/*-seed*.json"))
        names = [path.relative_to(root).with_suffix("").as_posix() for path in paths]
        return dict(zip(names, map(runs.read_record, paths), strict=True))

    def groups(self) -> dict[tuple[str, str], Runs]:
        """(recipe, profile) -> its runs."""
        groups: dict[tuple[str, str], Runs] = {}
        for name, record in self.runs.items():
            recipe, profile, _ = name.split("/")
            groups.setdefault((recipe, profile), {})[name] = record
        return groups

    def measured(self, claim: Claim) -> dict[str, Row]:
        """Profile of the runs -> what they came to, if it is a value."""
        found = reversed(summary.measured(claim, self.pages))
        return {row.profile: row for row in found if row.value is not None}

    def behind(self, row: Row) -> Runs:
        """The runs that a claim's value is from. Raises ValueError naming one that is missing."""
        for name in row.entry["records"]:
            if name not in self.runs:
                raise ValueError(f"{row.page} names the run {name}, which {self.folder} lacks")
        return {name: self.runs[name] for name in row.entry["records"]}


Pair = tuple[Results, Results]  # here, there: yours and the committed ones


def of_claim(rows: tuple[Row, Row], sides: Pair) -> str:
    """Finding on the difference of a claim's two values: one of FINDINGS."""
    if any(row.entry["stand_in"] for row in rows):
        return STAND_IN
    return _of_times(rows) if rows[0].claim.category == "speed" else _of_numbers(rows, sides)


def _of_times(rows: tuple[Row, Row]) -> str:
    ours, theirs = (row.entry for row in rows)
    if ours["values"] == theirs["values"]:
        return COPIED  # no time repeats to the last digit
    return _judged(rows) if ours["device_name"] == theirs["device_name"] else MACHINE


def _of_numbers(rows: tuple[Row, Row], sides: Pair) -> str:
    ours, theirs = (row.entry for row in rows)
    claim = rows[0].claim
    equal = all(ours[key] == theirs[key] for key in ("values", "reference"))
    if claim.category != TRAINING:
        must_be_equal = claim.category == "exactness" or not ours["device"]
        return SAME if equal else DIFFERS if must_be_equal else UNKNOWN
    behind = [side.behind(row) for side, row in zip(sides, rows, strict=True)]
    related = relation(*behind)
    if related in (COPIED, SETTINGS):
        return related
    if equal or related == SAME:
        return SAME if equal else DIFFERS
    are_errors = [ours["values"], theirs["values"]] == [*map(errors, behind)]
    return _judged(rows, similar(behind[0], sides) if are_errors else None)


def _judged(rows: tuple[Row, Row], otherwise: Spread | None = None) -> str:
    """Finding by the rule; `otherwise` is the spread where neither side has a second value."""
    keys = ("values", "reference") if rows[0].claim.kind in TWO_GROUPS else ("values",)
    pairs = [[row.entry[key] for row in rows] for key in keys]
    parts = [(noise.pooled(pair) or otherwise, *map(len, pair)) for pair in pairs]
    return _word(rows[0].value - rows[1].value, parts)


def _word(difference: float, parts: Sequence[tuple[Spread | None, int, int]]) -> str:
    most = noise.limit(parts)
    if most is None:
        return UNKNOWN
    return NOISE if abs(difference) <= most else NOT_NOISE


def of_runs(groups: tuple[Runs, Runs], sides: Pair) -> str:
    """Finding on the difference of a recipe's test errors: seed by seed, or else of their means."""
    ours, theirs = map(errors, groups)
    if any(run["provenance"]["stand_in"] for group in groups for run in group.values()):
        return STAND_IN
    related = relation(*groups)
    if related in (COPIED, SETTINGS):
        return related
    if related == SAME or ours == theirs:
        return SAME if ours == theirs else DIFFERS
    known = noise.pooled((ours, theirs)) or similar(groups[0], sides)
    return _word(fmean(ours) - fmean(theirs), [(known, len(ours), len(theirs))])


def errors(group: Runs) -> list[float]:
    """Test errors in %."""
    return [run["test_error"] for run in group.values()]


def relation(ours: Runs, theirs: Runs) -> str:
    """SETTINGS: other recipes; COPIED: the same records; SAME: seeds and conditions; else ""."""
    if _settings(ours) != _settings(theirs):
        return SETTINGS
    if {run["digest"] for run in ours.values()} <= {run["digest"] for run in theirs.values()}:
        return COPIED
    return SAME if ours.keys() == theirs.keys() and not changed(ours, theirs) else ""


def _settings(group: Runs) -> dict[str, dict]:
    return {run["recipe"]["name"]: run["recipe"] for run in group.values()}


def changed(ours: Runs, theirs: Runs) -> dict[str, tuple[str, str]]:
    """Conditions in which runs of one name, made anew, differ: condition -> theirs, ours."""
    anew = [
        name for name in ours if name in theirs and ours[name]["digest"] != theirs[name]["digest"]
    ]
    pairs = [(_conditions(theirs[name]), _conditions(ours[name])) for name in anew]
    return {key: (a[key], b[key]) for a, b in pairs for key in a if a[key] != b[key]}


def _conditions(run: dict) -> dict[str, str]:
    made = run["provenance"]
    known = {key: str(made.get(key, "unknown")) for key in CONDITIONS}
    several = str(made.get("processes", 1))  # older records have no such word
    return known | {"processes": several, "torch": made["versions"]["torch"]}


def similar(group: Runs, sides: Pair) -> Spread | None:
    """The spread of the test errors of runs on the same data set at the same profile."""
    wanted = {_kind(run) for run in group.values()}
    found: dict[str, list[list[float]]] = {}
    for side in sides:
        for (recipe, _), runs_of_it in side.groups().items():
            if {_kind(run) for run in runs_of_it.values()} == wanted:
                found.setdefault(recipe, []).append(errors(runs_of_it))
    return noise.typical(map(noise.pooled, found.values()))


def _kind(run: dict) -> tuple[str, str]:
    return run["recipe"]["dataset"], run["profile"]


def own_rows(folder: Path, committed: Path) -> list[Row]:
    """Every claim with the most faithful value that was made for this folder, if there is one.

    What shows committed runs, or committed times, again is none.
    """
    results = Results(folder, "")
    committed_runs = Results(committed, "").runs
    digests = {run["digest"] for run in committed_runs.values()}
    mine, theirs = summary.load(folder), summary.load(committed)
    rows = []
    for claim in claims.load().values():
        times = [row.entry["values"] for row in summary.measured(claim, theirs)]
        new = [
            row
            for row in summary.measured(claim, mine)
            if not digests & {run["digest"] for run in results.behind(row).values()}
            and not (claim.category == SPEED and row.entry["values"] in times)
        ]
        rows.append(new[0] if new else Row(claim))
    return rows
