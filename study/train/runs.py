"""Run records: what determines a run, where its record lies, what it ran on. Knows no training.

A record is a plain dict, kept as JSON. Its `digest` binds its content, its provenance binds it to
the sources, the data and the recipe that made it.
"""

import hashlib
import io
import json
import os
import platform
import subprocess
import token
import tokenize
from dataclasses import MISSING, asdict, fields
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

from bnnlib import functional, parallel
from bnnlib.files import atomic_write
from study import ROOT
from study.recipes.recipe import Recipe

SCHEMA = 1
COMMITTED = ROOT / "results" / "runs"
NETWORKS = ROOT / "results" / "models"
SAME = ROOT / "results" / "same_numbers.json"  # made by tools.same_numbers
FRESH = ROOT / os.environ.get("BNN_RUNS", "build/runs")
# The modules that determine a run's numbers. The data are bound by their own hash; the packed
# kernels are not here, because their sums are integers, the same ones however they are counted.
DETERMINING = (
    "bnnlib/binarize",
    "bnnlib/draws",
    "bnnlib/functional",
    "bnnlib/fused_rules",
    "bnnlib/kernels/__init__",
    "bnnlib/kernels/cpu/arithmetic",
    "bnnlib/kernels/cpu/elementwise",
    "bnnlib/kernels/cpu/llvm",
    "bnnlib/kernels/cpu/lut_codes",
    "bnnlib/kernels/cpu/lut_matmul",
    "bnnlib/kernels/cpu/lut_tables",
    "bnnlib/kernels/cpu/mersenne",
    "bnnlib/kernels/cpu/parallel_for",
    "bnnlib/kernels/cpu/pooling",
    "bnnlib/kernels/cpu/shift_norm",
    "bnnlib/kernels/cpu/sign_matmul",
    "bnnlib/kernels/cpu/thread_pool",
    "bnnlib/kernels/cpu/transpose",
    "bnnlib/kernels/dispatch",
    "bnnlib/kernels/update",
    "bnnlib/layers",
    "bnnlib/models",
    "bnnlib/normalization",
    "bnnlib/numerics",
    "bnnlib/one_pass",
    "bnnlib/optim",
    "bnnlib/parallel",
    "bnnlib/pooling",
    "bnnlib/rounding",
    "bnnlib/rules",
    "bnnlib/shift_norm",
    "bnnlib/sign_product",
    "bnnlib/traced",
    "study/data/preprocessing",
    "study/data/training_data",
    "study/train/analysis",
    "study/train/build",
    "study/train/captured",
    "study/train/loop",
)
# What `dirty` looks at: everything that makes results, and nothing that they are made into.
SOURCES = ("bnnlib", "study", "notebooks", "tools", "Makefile", "requirements.txt")


def results_folder() -> Path:
    """Where pages, figures and metrics go: $BNN_RESULTS, set by make; else an ignored folder."""
    return ROOT / os.environ.get("BNN_RESULTS", "build/interactive")


def _significant_source(source: str) -> str:
    """Python source without comments, blank lines, docstrings and spaces.

    Tokens are joined without a separator, and spaces in strings go too, because Python 3.12 cuts
    f-strings into more tokens and leaves out the spaces between them.
    """
    marks = {token.NEWLINE: "\n", token.INDENT: "\t", token.DEDENT: "\b"}
    kept, previous, in_docstring = [], token.NEWLINE, False
    for tok in tokenize.generate_tokens(io.StringIO(source).readline):
        if tok.type in (tokenize.COMMENT, tokenize.NL, tokenize.ENDMARKER):
            continue
        in_docstring = (tok.type == token.STRING and previous in marks) or (
            in_docstring and tok.type == token.NEWLINE
        )
        if not in_docstring:
            kept.append(marks.get(tok.type, tok.string))
        previous = tok.type
    return "".join(kept).replace(" ", "")


@cache
def source_hash() -> str:
    """SHA-256 over the modules that determine a run, comments and docstrings left out."""
    digest = hashlib.sha256()
    for path in determining_sources():
        module = path.relative_to(ROOT).with_suffix("").as_posix()
        digest.update(f"{module}\0{_significant_source(path.read_text())}\0".encode())
    return digest.hexdigest()


def same_numbers() -> list[dict]:
    """Pairs of sources that were seen to make the same numbers: their hashes `before` and `now`."""
    return read_record(SAME)["pairs"] if SAME.exists() else []


def determining_sources() -> list[Path]:
    return [path for module in DETERMINING for path in sorted(ROOT.glob(f"{module}.py"))]


def canonical(content: dict) -> bytes:
    """One spelling of a JSON document, for hashing."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def fresh_path(recipe: Recipe, device: str, seed: int) -> Path:
    """Where the record of a run made by the present sources lies: build/runs/<key>/."""
    key = hashlib.sha256(source_hash().encode() + canonical(asdict(recipe))).hexdigest()[:16]
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
    write_atomic(path, (json.dumps(sealed, indent=1, allow_nan=False) + "\n").encode())


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


def write_atomic(path: str | Path, content: bytes) -> None:
    """Write a file so that its name holds either the old content or the whole new one."""
    with atomic_write(path) as file:
        file.write(content)


@cache
def commit() -> tuple[str, bool]:
    """The checked-out commit and whether sources differ from it; taken once, at the start.

    Without git, or inside another repository, a COMMIT file is read (for copies that leave git
    behind; nothing tells whether they were changed); else ("unknown", True).
    """
    stamp = ROOT / "COMMIT"
    try:
        if Path(_git("rev-parse", "--show-toplevel").strip()) == ROOT:
            head = _git("rev-parse", "HEAD").strip()
            return head, bool(_git("status", "--porcelain", "--", *SOURCES).strip())
    except (OSError, subprocess.CalledProcessError):
        pass
    return (stamp.read_text().strip(), False) if stamp.exists() else ("unknown", True)


def why_no_commit() -> str:
    """Why git names no commit of this checkout, in its own words."""
    try:
        top = _git("rev-parse", "--show-toplevel").strip()
        _git("rev-parse", "HEAD")
    except FileNotFoundError:
        return "git is not installed"
    except (OSError, subprocess.CalledProcessError) as error:
        return " ".join((getattr(error, "stderr", None) or str(error)).split())
    return f"the repository here is {top}" if Path(top) != ROOT else ""


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
    ).stdout


def device_name(device: str) -> str:
    """The processor's or GPU's model name; never the machine's."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def binding(recipe: Recipe, data: str, seed: int, device: str) -> dict:
    """What a checkpoint must agree in with the run that goes on from it; data: their hash."""
    return {
        "recipe": asdict(recipe),
        "seed": seed,
        "data": data,
        "sources": source_hash(),
        "device": device,
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
        "torch": version("torch"),
        "arithmetic": functional.arithmetic(device),
    }


def provenance(device: str) -> dict:
    """Where, when and with what a run is made; call it when the run starts."""
    head, dirty = commit()
    return {
        "commit": head,
        "dirty": dirty,
        "sources": source_hash(),
        "device": device,
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
        "processes": parallel.size(),
        "arithmetic": functional.arithmetic(device),
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "numpy")},
        },
        "command": os.environ.get("BNN_COMMAND", "interactive"),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
