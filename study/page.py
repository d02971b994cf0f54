"""What a page leaves beside itself: its figures, and one JSON file with all that it found."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from bnnlib.files import atomic_write
from study import bench
from study.evidence import Result
from study.figures import write_svg
from study.train import provenance, runs

SCHEMA = 1


@dataclass(frozen=True)
class Page:
    """The notebook that is being executed, and its profile."""

    notebook: str  # "04_mnist"
    profile: str


def save(page: Page, figure: Figure, name: str) -> Path:
    """Keep a figure as SVG among the results of this page."""
    folder = runs.results_folder() / page.profile / "figures"
    return write_svg(figure, folder / f"{page.notebook}-{name}.svg")


def publish(
    page: Page,
    results: Sequence[Result],
    records: Sequence[dict],
    findings: dict | None = None,
    figures: Sequence[Path] = (),
) -> Path:
    """Write what this page found as JSON, whole or not at all; `figures`: what `save` returned."""
    folder = runs.results_folder()
    metrics = {
        "schema": SCHEMA,
        "notebook": page.notebook,
        "profile": page.profile,
        "sources": provenance.source_hash(),
        "claims": [_metrics(result) for result in results],
        "findings": findings or {},
        "records": [_reference(record) for record in records],
        "figures": [path.relative_to(folder).as_posix() for path in figures],
    }
    path = folder / page.profile / "metrics" / f"{page.notebook}.json"
    text = json.dumps(metrics, indent=1, allow_nan=False, default=_plain)
    with atomic_write(path) as file:
        file.write((text + "\n").encode())
    return path


def _plain(number):
    """A NumPy or torch scalar as a Python number."""
    return number.item()


def _metrics(result: Result) -> dict:
    """A result as the metrics file holds it; device and date are null without records."""
    records = result.records
    return {
        "id": result.claim_id,
        "values": list(result.values),
        "mean": result.mean,
        "std": result.std,
        "n": result.n,
        "reference": list(result.reference),
        "grade": result.grade,
        "verdict": result.verdict,
        "device": made_on(records, "device") or None,
        "device_name": made_on(records) or None,
        "date": max((r["provenance"]["started"][:10] for r in records), default=None),
        "stand_in": result.stand_in,
        "records": [_name(record) for record in records if "recipe" in record],
    }


def made_on(records: Sequence[dict], key: str = "device_name") -> str:
    """The distinct values of a provenance entry.

    A device's name has the processor's generation, where that was recorded: one vendor's name may
    stand for processors with other instructions and other times.
    """
    names = (
        bench.label(record) if key == "device_name" else str(record["provenance"][key])
        for record in records
    )
    return ", ".join(sorted(set(names)))


def _name(record: dict) -> str:
    """The record's place in the results: recipe/profile/device-seed."""
    return "{recipe}/{profile}/{device}-seed{seed}".format(**_reference(record))


def _reference(record: dict) -> dict:
    """Name a record as a page does."""
    return {
        "recipe": record["recipe"]["name"],
        "profile": record["profile"],
        "seed": record["seed"],
        "device": record["provenance"]["device"],
        "digest": record["digest"],
    }
