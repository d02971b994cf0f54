"""Your results beside the committed ones: which differences are noise and which are not.

    python -m tools.compare --profile quick

Compares the claims on the profile's pages, then the test errors of all runs that both folders hold.
What a difference is says tools/findings.py, and when it is noise, tools/noise.py.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from statistics import fmean

from bnnlib.files import print_anywhere
from study import ROOT, claims, recipes
from study.tables import spread
from tools import findings, noise, site, summary
from tools.findings import COPIED, DIFFERS, NOISE, NOT_NOISE, SAME, Pair, Results

LOCAL = site.COMMITTED / "local"
SHORT = 24  # characters of a condition; hashes are longer


@dataclass(frozen=True)
class Line:
    """One line of a table."""

    what: str
    committed: str
    yours: str
    n: str
    change: str
    finding: str


def claim_lines(sides: Pair) -> list[Line]:
    """Every claim that has a value on both sides, for each profile that its runs were made at."""
    lines = []
    for claim in claims.load().values():
        ours, theirs = (side.measured(claim) for side in sides)
        for profile in filter(theirs.get, ours):
            rows = ours[profile], theirs[profile]
            comparable = rows[0].ours and rows[1].ours
            difference = rows[0].value - rows[1].value
            lines.append(
                Line(
                    claim.statement + _at(profile, sides),
                    rows[1].ours,
                    rows[0].ours,
                    _counts(rows[1].entry["n"], rows[0].entry["n"]),
                    f"{difference:+.{claim.decimals}f}" if comparable else "",
                    findings.of_claim(rows, sides),
                )
            )
    return lines


def run_lines(sides: Pair) -> list[Line]:
    """The test errors of each recipe that has runs on both sides, in %."""
    ours, theirs = (side.groups() for side in sides)
    lines = []
    for key in filter(theirs.get, ours):
        groups = ours[key], theirs[key]
        errors = [findings.errors(group) for group in groups]
        lines.append(
            Line(
                key[0] + _at(key[1], sides),
                spread(errors[1]),
                spread(errors[0]),
                _counts(len(errors[1]), len(errors[0])),
                f"{fmean(errors[0]) - fmean(errors[1]):+.2f}",
                findings.of_runs(groups, sides),
            )
        )
    return lines


def _at(profile: str, sides: Pair) -> str:
    """The profile, where it isn't the one that is compared."""
    return "" if profile == sides[0].profile else f" ({profile})"


def _counts(committed: int, yours: int) -> str:
    """How many runs or repeats."""
    return f"{yours}" if committed == yours else f"{committed}, {yours}"


def show(head: str, lines: Sequence[Line]) -> None:
    """Print a table of what was made anew."""
    cells = [astuple(line) for line in lines if line.finding != COPIED]
    if cells:
        print(summary.table((head, "committed", "yours", "n", "change", ""), cells), end="\n\n")


def conditions(sides: Pair) -> str:
    """A sentence on the conditions in which your runs differ from the committed ones."""
    changed = findings.changed(*(side.runs for side in sides))
    told = [f"{key} ({a[:SHORT]} there, {b[:SHORT]} here)" for key, (a, b) in changed.items()]
    return f"Your runs differ from them in {', '.join(told)}." if told else ""


def missing(sides: Pair) -> str:
    """A sentence on how much of what is committed at this profile you lack."""
    known = claims.load().values()
    claimed = [sum(bool(side.measured(claim)) for claim in known) for side in sides]
    made = [{key for key in side.groups() if key[1] == side.profile} for side in sides]
    told = f"{claimed[1] - claimed[0]} claims and {len(made[1] - made[0])} recipes"
    return f"Not run here: {told} of the committed results."


def sum_up(lines: Sequence[Line]) -> str:
    """One sentence that counts the differences by finding, and says what that means."""
    counts = Counter(line.finding for line in lines)
    told = ", ".join(f"{counts[word]} {word}" for word in findings.FINDINGS if counts[word])
    return f"Of {len(lines)} results {told}: {_meaning(lines, counts)}."


def _meaning(lines: Sequence[Line], counts: Counter) -> str:
    if counts[DIFFERS]:
        return f"what must be equal and differs is {_names(lines, DIFFERS)}"
    judged = counts[NOISE] + counts[NOT_NOISE]
    if counts[NOT_NOISE]:
        by_chance = f"of {judged} judged, chance alone makes about {noise.CHANCE * judged:.1f} so"
        return f"more than noise are {_names(lines, NOT_NOISE)} ({by_chance})"
    if counts[COPIED] == len(lines):
        return "there is nothing of your own to compare"
    if counts[SAME] + counts[COPIED] == len(lines):
        return "nothing differs"
    return "nothing that can be judged differs by more than noise"


def _names(lines: Sequence[Line], finding: str) -> str:
    return "; ".join(line.what for line in lines if line.finding == finding)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.compare", description=__doc__)
    parser.add_argument("--profile", default="quick", help=", ".join(recipes.PROFILES))
    profile = parser.parse_args(arguments).profile
    try:
        sides = Results(LOCAL, profile), Results(site.COMMITTED, profile)
        for side in sides:
            if not side.pages:
                raise ValueError(
                    f"{side.folder.relative_to(ROOT)} has no page of the {profile} "
                    f"profile: 'make reproduce PROFILE={profile}' makes yours."
                )
        tables = {"claim": claim_lines(sides), "test error, %": run_lines(sides)}
        for head, lines in tables.items():
            show(head, lines)
        notes = [conditions(sides), missing(sides)]
    except (ValueError, KeyError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join([*filter(None, notes), sum_up(sum(tables.values(), []))]))
    return 0


if __name__ == "__main__":
    print_anywhere()
    sys.exit(main())
