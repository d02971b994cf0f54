"""Provenance of a record: sources, commit, device, versions. Knows no records and no training.

A record's provenance binds it to the sources that made it: their hash is over the modules that
determine a run's numbers, whatever else has changed.
"""

import hashlib
import io
import os
import platform
import subprocess
import sys
import token
import tokenize
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

from bnnlib import functional, parallel
from study import ROOT
from study.recipes.recipe import Recipe

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
    "bnnlib/kernels/cpu/gradient_memory",
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
    "bnnlib/variants",
    "bnnlib/words",
    "study/data/preprocessing",
    "study/data/training_data",
    "study/train/analysis",
    "study/train/build",
    "study/train/captured",
    "study/train/eager",
    "study/train/evaluation",
    "study/train/loop",
)
# What `dirty` looks at: everything that makes results, and nothing that they are made into.
SOURCES = ("bnnlib", "study", "notebooks", "tools", "Makefile", "requirements.txt")


def _significant_source(source: str) -> str:
    """Python source without comments, blank lines, docstrings and spaces.

    Tokens are joined without a separator, and spaces in strings go too, because Python 3.12 cuts
    f-strings into more tokens and leaves out the spaces between them.
    """
    marks = {token.NEWLINE: "\n", token.INDENT: "\t", token.DEDENT: "\b"}
    kept = []
    previous = token.NEWLINE
    in_docstring = False
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


def determining_sources() -> list[Path]:
    return [path for module in DETERMINING for path in sorted(ROOT.glob(f"{module}.py"))]


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
    """Facts that a checkpoint shares with the run that goes on from it; data: their hash."""
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


def command_line(module: str, arguments: Sequence[str] | None = None) -> str:
    """The command that runs a module, with paths relative to the repository.

    arguments: those of this process by default.
    """
    given = sys.argv[1:] if arguments is None else arguments
    return " ".join([f"python -m {module}", *given]).replace(f"{ROOT}{os.sep}", "")


def gather(device: str) -> dict:
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
