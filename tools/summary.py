"""Every claim beside what was measured, over all profiles, from the metrics; and its tables."""

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

from bnnlib.claims import (
    NOT_RUN,
    STAND_IN,
    TWO_GROUPS,
    VERDICTS,
    Claim,
    claims,
    difference_unit,
    with_unit,
)

FAITHFUL = ("paper", "evening", "quick")  # the first that has a value is shown; smoke never is
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


@dataclass(frozen=True)
class Row:
    """One claim and the most faithful measurement of it, if there is any."""

    claim: Claim
    page: str = ""  # "quick/04_mnist", of the page that measured it
    entry: dict | None = None  # the claim's part of that page's metrics

    @cached_property
    def ours(self) -> str:
        """The measured value for a table; stand-in data count for nothing beside the paper."""
        if self.entry is None or self.entry["stand_in"]:
            return ""
        return _measured(self.claim, self.entry)

    @property
    def verdict(self) -> str:
        return self.entry["verdict"] if self.entry else NOT_RUN

    @property
    def profile(self) -> str:
        return _profile(self.page.split("/")[0], self.entry)

    @property
    def conditions(self) -> str:
        """n, profile, device and date, as far as they are known."""
        if not self.ours:
            return ""
        known = [f"n = {self.entry['n']}", self.profile]
        known += [self.entry["device_name"], self.entry["date"]]
        return ", ".join(filter(None, known))


def load(results: Path) -> list[dict]:
    """The metrics of all pages in a results folder."""
    return [json.loads(path.read_bytes()) for path in sorted(results.glob("*/metrics/*.json"))]


def rows(metrics: list[dict]) -> list[Row]:
    """One row per claim, in the order of claims.toml."""
    return [_best(claim, metrics) for claim in claims().values()]


def _best(claim: Claim, metrics: list[dict]) -> Row:
    """The claim with its real-data value of the most faithful profile, its own notebook's first."""
    found = [
        (
            (entry["stand_in"], FAITHFUL.index(profile), page["notebook"] != claim.notebook),
            page,
            entry,
        )
        for page in metrics
        for entry in page["claims"]
        if entry["id"] == claim.id and entry["verdict"] != NOT_RUN
        if (profile := _profile(page["profile"], entry)) in FAITHFUL and page["profile"] != "smoke"
    ]
    if not found:
        return Row(claim)
    _, page, entry = min(found, key=lambda candidate: candidate[0])
    return Row(claim, f"{page['profile']}/{page['notebook']}", entry)


def _profile(page_profile: str, entry: dict | None) -> str:
    """The profile of the runs behind a value; a page may show runs of another than its own."""
    made_in = {name.split("/")[1] for name in (entry or {}).get("records", ())}
    return made_in.pop() if len(made_in) == 1 else page_profile


def _measured(claim: Claim, entry: dict) -> str:
    """mean ± std in the claim's unit; of two compared groups, the difference of their means."""
    decimals = max(1, len(claim.printed.partition(".")[2]))
    if claim.kind in TWO_GROUPS:
        difference = entry["mean"] - fmean(entry["reference"])
        return with_unit(f"{difference:+.{decimals}f}", difference_unit(claim))
    spread = f" ± {entry['std']:.{decimals}f}" if entry["std"] is not None else ""
    return with_unit(f"{entry['mean']:.{decimals}f}{spread}", claim.unit)


def tally(table: list[Row]) -> str:
    """How many claims have which verdict, as a sentence."""
    words = [row.verdict for row in table]
    counts = ", ".join(f"{words.count(word)} {word}" for word in VERDICTS if word in words)
    return f"Of {len(words)} claims: {counts}."


def as_markdown(table: list[Row], folder: str = "results") -> str:
    """The README's table: what was measured, and the paper's Table 1 in any case."""
    shown = [row for row in table if row.entry or row.claim.where.startswith("Table 1")]
    lines = ["| claim | paper | ours | measured | verdict |", "| --- | --- | --- | --- | --- |"]
    for row in shown:
        claim = row.claim.statement
        linked = f"[{claim}]({folder}/{row.page}.ipynb)" if row.page else claim
        cells = (linked, row.claim.paper, row.ours, row.conditions, row.verdict)
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join([*lines, "", f"{tally(table)} All of them: `{folder}/index.html`."])


def replace_block(text: str, table: str) -> str:
    """The README with a new table between its markers. Raises ValueError without them."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"README.md needs the lines {BEGIN} and {END}, each once")
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}"


def as_text(mine: list[Row], committed: list[Row]) -> str:
    """The table on the terminal: claim, paper, committed, yours; only claims with a value."""
    cells = [
        (yours.claim.statement, yours.claim.paper, _terminal(theirs), _terminal(yours))
        for yours, theirs in zip(mine, committed, strict=True)
        if yours.entry or theirs.entry
    ]
    if not cells:
        return "No claim has a value yet."
    heads = ("claim", "paper", "committed", "yours")
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    room = shutil.get_terminal_size((110, 24)).columns - widths[2] - widths[3] - 8
    widths[:2] = max(20, room - min(widths[1], 20)), min(widths[1], 20)
    lines = [
        "  ".join(_fit(*pair) for pair in zip(row, widths, strict=True)) for row in (heads, *cells)
    ]
    return "\n".join([line.rstrip() for line in lines])


def _terminal(row: Row) -> str:
    """A value with its profile, or why there is none."""
    return f"{row.ours} ({row.profile})" if row.ours else (STAND_IN if row.entry else NOT_RUN)


def _fit(text: str, width: int) -> str:
    return (text if len(text) <= width else text[: width - 1] + "…").ljust(width)
