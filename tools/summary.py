"""Every claim beside what was measured, over all profiles, from the metrics; and its tables."""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean

from study import claims, recipes
from study.claims import CATEGORIES, SPEED, TWO_GROUPS, Claim, difference_unit, with_unit
from study.verdicts import JUDGED, NOT_JUDGED, NOT_RUN, earlier, interval_text

MACHINES_DIFFER = "differs by machine"  # what a claim on speed comes to where verdicts do
OUTCOMES = (*JUDGED, MACHINES_DIFFER, *NOT_JUDGED)


@dataclass(frozen=True)
class Row:
    """One claim and the most faithful measurement of it, if there is any."""

    claim: Claim
    page: str = ""  # "quick/04_mnist", of the page that measured it
    entry: dict | None = None  # the claim's part of that page's metrics
    machines: tuple["Row", ...] = ()  # of a claim on speed that several were timed for, each one's

    @cached_property
    def ours(self) -> str:
        """The measured value for a table; stand-in data count for nothing beside the paper."""
        if self.entry is None or self.entry["stand_in"] or self.value is None:
            return ""
        return _measured(self)

    @property
    def value(self) -> float | None:
        """The mean in the claim's unit; of two compared groups, the difference of their means.

        None where the page withholds it.
        """
        if self.entry["mean"] is None:
            return None
        compared = self.claim.kind in TWO_GROUPS
        return self.entry["mean"] - (fmean(self.entry["reference"]) if compared else 0)

    @property
    def interval(self) -> str:
        """The interval of the difference of two groups, in words; empty where there is none."""
        if not self.ours:
            return ""
        return interval_text(self.claim, self.entry["values"], self.entry["reference"])

    @property
    def verdict(self) -> str:
        return self.entry["verdict"] if self.entry else NOT_RUN

    @property
    def outcome(self) -> str:
        """The verdict, of all machines where several were timed: one of OUTCOMES."""
        verdicts = {row.verdict for row in self.machines} or {self.verdict}
        return verdicts.pop() if len(verdicts) == 1 else MACHINES_DIFFER

    @property
    def judged(self) -> str:
        """The outcome in words, with the number of machines where several were timed."""
        if not self.machines:
            return self.verdict
        counts = Counter(row.verdict for row in self.machines)
        of = len(self.machines)
        told = [f"{word} on {counts[word]} of {of} machines" for word in OUTCOMES if counts[word]]
        return ", ".join(told)

    @property
    def earlier(self) -> str:
        """Verdict by the claim's first criterion, in words; empty where it wasn't changed."""
        return earlier(self.claim, self.verdict, self.entry["values"]) if self.entry else ""

    @property
    def grade(self) -> str:
        """How strong the evidence is; empty without any, and on pages older than the grades."""
        return (self.entry or {}).get("grade", "")

    @property
    def profile(self) -> str:
        return _profile(self.page.split("/")[0], self.entry)


def load(results: Path) -> list[dict]:
    """The metrics of all pages in a results folder."""
    return [json.loads(path.read_bytes()) for path in sorted(results.glob("*/metrics/*.json"))]


def rows(metrics: list[dict]) -> list[Row]:
    """One row per claim, in the order of claims.toml."""
    return [_best(claim, metrics) for claim in claims.load().values()]


def _best(claim: Claim, metrics: list[dict]) -> Row:
    """The first of what was measured; of a claim on speed with all machines of that page."""
    found = measured(claim, metrics)
    if not found or claim.category != SPEED:
        return found[0] if found else Row(claim)
    alike = [row for row in found if row.page == found[0].page and row.ours]
    return replace(found[0], machines=tuple(alike) if len(alike) > 1 else ())


def measured(claim: Claim, metrics: list[dict]) -> list[Row]:
    """Every measurement of a claim: on real data first, then those with a value, then by profile,
    the most faithful first, then its own notebook's first.
    """
    found = [
        (
            (
                entry["stand_in"],
                entry["mean"] is None,
                recipes.FAITHFUL.index(profile),
                page["notebook"] != claim.notebook,
            ),
            Row(claim, f"{page['profile']}/{page['notebook']}", entry),
        )
        for page in metrics
        for entry in page["claims"]
        if entry["id"] == claim.id and entry["verdict"] != NOT_RUN
        if (profile := _profile(page["profile"], entry)) in recipes.FAITHFUL
        and page["profile"] != "smoke"
    ]
    return [row for _, row in sorted(found, key=lambda each: each[0])]


def _profile(page_profile: str, entry: dict | None) -> str:
    """The profile of the runs behind a value; a page may show runs of another than its own."""
    made_in = {name.split("/")[1] for name in (entry or {}).get("records", ())}
    return made_in.pop() if len(made_in) == 1 else page_profile


def _measured(row: Row) -> str:
    """mean ± std in the claim's unit; of two compared groups, the difference of their means."""
    if row.claim.kind in TWO_GROUPS:
        return with_unit(f"{row.value:+.{row.claim.decimals}f}", difference_unit(row.claim))
    deviation, decimals = row.entry["std"], row.claim.decimals_for(row.value)
    spread = f" ± {deviation:.{decimals}f}" if deviation is not None else ""
    return with_unit(f"{row.value:.{decimals}f}{spread}", row.claim.unit)


def tally(table: list[Row]) -> list[str]:
    """How many claims of each category have which verdict, a line a category."""
    return [
        f"{category}, {len(rows)} claims: {count(row.outcome for row in rows)}"
        for category, rows in by_category(table).items()
    ]


def of_page(metrics: dict) -> str:
    """The same of one page: a claim counts once, at the page's own profile, which comes first."""
    own = {entry["id"]: entry for entry in reversed(metrics["claims"])}
    table = [Row(claims.load()[name], entry=entry) for name, entry in own.items()]
    counts = {name: count(row.verdict for row in rows) for name, rows in by_category(table).items()}
    return "; ".join(f"{category}: {counted}" for category, counted in counts.items())


def by_category(table: list[Row]) -> dict[str, list[Row]]:
    """The rows of each category of claims that occurs: verdicts of two are never added up."""
    found = {name: [row for row in table if row.claim.category == name] for name in CATEGORIES}
    return {name: rows for name, rows in found.items() if rows}


def count(verdicts: Iterable[str]) -> str:
    """How many there are of each verdict, the best first."""
    words = list(verdicts)
    return ", ".join(f"{words.count(word)} {word}" for word in OUTCOMES if word in words)


def as_text(mine: list[Row], committed: list[Row]) -> str:
    """The table on the terminal: claim, paper, committed, yours; only claims with a value."""
    cells = [
        (yours.claim.statement, _cut(yours.claim.paper, 20), _terminal(theirs), _terminal(yours))
        for yours, theirs in zip(mine, committed, strict=True)
        if yours.entry or theirs.entry
    ]
    return table(("claim", "paper", "committed", "yours"), cells) or "No claim has a value yet."


def table(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Lines of columns, as wide as the terminal at most: the first column is cut to that end."""
    if not cells:
        return ""
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    room = shutil.get_terminal_size((110, 24)).columns - sum(widths[1:]) - 2 * len(widths[1:])
    widths[0] = min(widths[0], max(room, 12))
    lines = [
        "  ".join(_cut(*pair).ljust(pair[1]) for pair in zip(row, widths, strict=True)).rstrip()
        for row in (heads, *cells)
    ]
    return "\n".join(lines)


def _terminal(row: Row) -> str:
    """A value with its profile, or why there is none."""
    return f"{row.ours} ({row.profile})" if row.ours else row.verdict


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
