"""Answers in a sentence or two, filled in with what was measured: for pages, index and README.

The sentences stand in templates/answers.toml, every number and verdict in the results.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from pathlib import Path

from markupsafe import Markup

from study import claims, recipes
from study.verdicts import NOT_RUN, listed
from tools import scale_runs, summary
from tools.summary import Row

SENTENCES = Path(__file__).parent / "templates" / "answers.toml"
# README: what a row shows, by its claim
README_ROWS = {
    "mnist_theano": "Test error on MNIST",
    "cifar10_theano": "Test error on CIFAR-10",
    "first_epoch_validation_error": "Validation error after MNIST's first epoch, full size",
    "cancellation": "Without the cancellation of saturated gradients",
    "xnor_over_baseline": "XNOR kernel against plain float32",
    "xnor_over_cublas": "XNOR kernel against the fastest float32 library",
    "same_accuracy": "Test error on bits less that in float32",
    "unique_filters": "Distinct 3×3 filters on an input map, inverses merged",
    "svhn_theano": "Test error on SVHN",
}
WHOLE_RUNS = ("mnist_theano", "cifar10_theano", "svhn_theano")  # whose lengths are told


class Told:
    """A claim's row as sentences name its parts. folder: the results, where its runs lie."""

    def __init__(self, row: Row, folder: Path, address: str):
        """address: the page with the verdict, as seen from where the sentence stands."""
        self.row = row
        self.folder = folder
        self.address = address

    @property
    def ours(self) -> str:
        """The value, of two groups with its interval; or "not run"."""
        if not self.row.ours:
            return NOT_RUN if not self.row.entry else self.row.verdict
        interval = self.row.interval.replace(" interval", ":")
        return self.row.ours + (f" ({interval})" if interval else "")

    @property
    def paper(self) -> str:
        return self.row.claim.paper

    @property
    def how(self) -> str:
        """Number of runs, and their epochs where they are all alike."""
        if not self.row.ours:
            return "n = 0"
        lengths = {_epochs(self.folder / "runs" / f"{name}.json") for name in self._records()}
        alike = lengths if len(lengths) == 1 else ()
        epochs = [f"{count} epoch{'s' * (count > 1)}" for count in alike if count]
        return ", ".join([f"n = {self.row.entry['n']}", *epochs])

    @property
    def grade(self) -> str:
        return self.row.grade

    def _records(self) -> list[str]:
        return self.row.entry["records"]

    @property
    def paper_epochs(self) -> int:
        return recipes.by_name(self.row.claim.recipes[0]).epochs

    @property
    def verdict(self) -> str:
        """The outcome as a mark that leads to where it is computed."""
        tone = self.row.outcome.replace(" ", "-").replace("'", "-")
        mark = f'<span class="verdict {tone}">{escape(self.row.judged)}</span>'
        return f'<a href="{self.address}#verdict-{self.row.claim.id}">{mark}</a>'

    @property
    def machines(self) -> str:
        """Every machine's value, with the generation of its processor where that is known."""
        rows = self.row.machines or (self.row,)
        told = [f"{row.ours} ({_in_short(row.entry['device_name'])})" for row in rows if row.ours]
        return listed(told) if told else NOT_RUN


def _in_short(device: str | None) -> str:
    """Generation in a device's name, which stands in brackets there; else the whole name."""
    found = re.search(r"\(([^()]+)\)$", device or "")
    return found[1] if found else device or "computed"


class _Findings(dict):
    """Findings of pages; one that is missing says so."""

    def __missing__(self, name: str) -> "_Missing":
        return _Missing()


class _Missing:
    def __format__(self, form: str) -> str:
        return NOT_RUN


class _Counts:
    """Outcomes of the claims whose ids begin with a word."""

    def __init__(self, rows: Sequence[Row]):
        self.rows = rows

    def __getitem__(self, start: str) -> str:
        return summary.count(r.outcome for r in self.rows if r.claim.id.startswith(start))


@cache
def _sentences() -> dict[str, dict[str, str]]:
    return tomllib.loads(SENTENCES.read_text("utf-8"))


@cache
def _epochs(record: Path) -> int:
    """A run's epochs; 0 where its record is not there."""
    return json.loads(record.read_bytes())["recipe"]["epochs"] if record.exists() else 0


def of_page(metrics: dict | None, results: Path) -> Markup:
    """The answer at the top of a notebook's page; empty without one, and at smoke."""
    sentence = _sentences()["pages"].get((metrics or {}).get("notebook", ""))
    if not sentence or metrics["profile"] == "smoke":
        return Markup("")
    return _filled(sentence, summary.rows([metrics]), [metrics], results, lambda row: "")


def of_index(metrics: Sequence[dict], results: Path, minutes: dict[str, str]) -> dict[str, Markup]:
    """The index's questions, each with its answer. minutes: profile -> time of its runs."""
    rows = summary.rows(metrics)
    return {
        question: _filled(
            sentence, rows, metrics, results, lambda row: f"{row.page}.html", minutes=minutes
        )
        for question, sentence in _sentences()["index"].items()
    }


def _filled(sentence: str, rows, metrics, results: Path, address, **values) -> Markup:
    """A sentence with all of its values. address: row -> that of its page, from here."""
    told = {row.claim.id: Told(row, results, address(row)) for row in rows}
    findings = _Findings()
    for page in metrics:
        findings |= page["findings"]
    values |= {"f": findings, "counts": _Counts(rows)}
    return Markup(sentence.strip().format_map(told | values))


def anchored(text: str) -> str:
    """A page whose rows of verdicts can be linked: the first of each claim is #verdict-<id>."""
    places = {escape(claim.statement, quote=False): name for name, claim in claims.load().items()}

    def marked(found: re.Match) -> str:
        name = places.pop(found[1].replace("\N{NO-BREAK SPACE}", " "), "")
        return f'<tr id="verdict-{name}">{found[0][4:]}' if name else found[0]

    row = r'<tr>\s*<td>([^<]*)</td>(?=(?:(?!</tr>).)*class="verdict )'
    return re.sub(row, marked, text, flags=re.S)


def minutes_by_profile(records: Iterable[dict]) -> dict[str, str]:
    """How long the runs of each profile take together, for reading; all but smoke.

    Every run counts at its usual speed: see `scale_runs.usual_seconds`. Smoke runs are no evidence,
    and not counted.
    """
    seconds = dict.fromkeys(recipes.FAITHFUL, 0.0)
    counted = [record for record in records if record["profile"] in seconds]
    for record in counted:
        seconds[record["profile"]] += scale_runs.usual_seconds(record)
    return {name: _minutes(value / 60) for name, value in seconds.items()}


def _minutes(value: float) -> str:
    return f"{value:.1f} minutes" if value < 10 else f"{value:,.0f} minutes"


def readme_table(rows: Sequence[Row], results: Path) -> str:
    """The README's table: paper, here, status; a row for each of README_ROWS."""
    by_id = {row.claim.id: row for row in rows}
    lines = ["| | paper | here | status |", "| --- | --- | --- | --- |"]
    for name, words in README_ROWS.items():
        told = Told(by_id[name], results, "")
        row = told.row
        linked = f"[{words}](results/{row.page}.ipynb)" if row.page else words
        here = told.machines if row.machines else told.ours
        if row.ours and not row.machines:
            here += f" ({told.how})" if row.entry["records"] else ""
        paper = told.paper + (f" after {told.paper_epochs} epochs" if name in WHOLE_RUNS else "")
        lines.append(f"| {linked} | {paper} | {here} | {row.judged} |")
    return "\n".join(lines)
