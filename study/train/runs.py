"""Run records: where they lie, how they are written and read. Knows no training.

A record is a plain dict, kept as JSON. Its `digest` binds its content, its provenance binds it to
the sources, the data and the recipe that made it.
"""

import hashlib
import json
import os
from dataclasses import MISSING, asdict, fields
from pathlib import Path

from bnnlib.files import atomic_write
from study import ROOT
from study.recipes.recipe import Recipe
from study.train import provenance

SCHEMA = 1
COMMITTED = ROOT / "results" / "runs"
NETWORKS = ROOT / "results" / "models"
SAME = ROOT / "results" / "same_numbers.json"  # made by tools.same_numbers
FRESH = ROOT / os.environ.get("BNN_RUNS", "build/runs")


def results_folder() -> Path:
    """Folder of pages, figures and metrics: $BNN_RESULTS, set by make; else an ignored folder."""
    return ROOT / os.environ.get("BNN_RESULTS", "build/interactive")


def same_numbers() -> list[dict]:
    """Pairs of sources that were seen to make the same numbers: their hashes `before` and `now`."""
    return read_record(SAME)["pairs"] if SAME.exists() else []


def made_alike(sources: str, pairs: list[dict]) -> set[str]:
    """Hashes of sources that make the numbers of these: seen so directly or by way of others."""
    alike, before = {sources}, 0
    while len(alike) > before:
        before = len(alike)
        alike |= {pair["before"] for pair in pairs if pair["now"] in alike}
    return alike


def canonical(content: dict) -> bytes:
    """One spelling of a JSON document, for hashing."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def fresh_path(recipe: Recipe, device: str, seed: int) -> Path:
    """Place of the record of a run made by the present sources: build/runs/<key>/."""
    made_of = provenance.source_hash().encode() + canonical(asdict(recipe))
    key = hashlib.sha256(made_of).hexdigest()[:16]
    return FRESH / key / f"{device}-seed{seed}.json"


def committed_paths(recipe: Recipe, profile: str, seed: int) -> list[Path]:
    """The committed records of a named recipe and seed, CUDA before CPU."""
    folder = COMMITTED / recipe.name / profile
    return [p for d in ("cuda", "cpu") if (p := folder / f"{d}-seed{seed}.json").exists()]


def committed(recipe: Recipe, profile: str) -> list[dict]:
    """All committed records of a named recipe at a profile, one per seed."""
    folder = COMMITTED / recipe.name / profile
    seeds = sorted({int(path.stem.split("-seed")[1]) for path in folder.glob("*-seed*.json")})
    return [read_record(committed_paths(recipe, profile, seed)[0]) for seed in seeds]


def digest(record: dict) -> str:
    """SHA-256 of a record without its own digest."""
    return hashlib.sha256(canonical({k: v for k, v in record.items() if k != "digest"})).hexdigest()


def write_record(path: Path, record: dict) -> None:
    """Seal a record with its digest and write it whole or not at all."""
    sealed = {**record, "digest": digest(record)}
    with atomic_write(path) as file:
        file.write((json.dumps(sealed, indent=1, allow_nan=False) + "\n").encode())


def read_record(path: str | Path) -> dict:
    """Read a record. Raises ValueError if it is damaged, edited or of another schema.

    Its recipe is returned with every field of today: see `complete`.
    """
    path = Path(path)
    try:
        record = json.loads(path.read_bytes())
        if record["schema"] != SCHEMA:
            raise ValueError(f"schema {record['schema']}, expected {SCHEMA}")
        if record["digest"] != digest(record):
            raise ValueError("its digest does not match its content")
        return {**record, "recipe": complete(record["recipe"])} if "recipe" in record else record
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path.name} in {path.parent.name} is no intact run record: {error}"
        ) from error


def complete(recipe: dict) -> dict:
    """A record's recipe with the fields that are younger than the record, at their defaults.

    A default means: as before there was the field. The one place that knows of older recipes; all
    that is compared with a recipe's fields is read through it.
    """
    defaults = {field.name: field.default for field in fields(Recipe)}
    return {k: v for k, v in defaults.items() if v is not MISSING} | recipe
