"""How fast packed products and networks are, beside every other way to compute the same.

    python -m study.bench [--plan PLAN] [--only KIND SIZE] [--out FILE]

Every result is compared with the reference by equality. Prints a table with ratios of medians and
leaves results/bench/kernels-<kind of device>.json. What is for CUDA has never been run so far.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from bnnlib import numerics
from study import ROOT, recipes
from study.bench import baselines, networks, products
from study.bench.timing import milliseconds
from study.train import provenance, runs

# The features, as LLVM names them, that decide which instructions products are made of
FLAGS = ("popcnt", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512vpopcntdq", "avx512vnni")
FLAGS += ("avxvnni", "avx512bf16", "amx-int8", "amx-bf16", "neon", "sve")
# LLVM's name of a processor's model -> the generation as its vendor and its buyers call it
GENERATIONS = {"haswell": "Haswell", "broadwell": "Broadwell", "skylake": "Skylake"}
GENERATIONS |= {"skylake-avx512": "Skylake", "cascadelake": "Cascade Lake"}
GENERATIONS |= {"icelake-server": "Ice Lake", "sapphirerapids": "Sapphire Rapids"}
GENERATIONS |= {"emeraldrapids": "Emerald Rapids", "graniterapids": "Granite Rapids"}
GENERATIONS |= {"znver1": "Zen"} | {f"znver{i}": f"Zen {i}" for i in range(2, 6)}
GENERATIONS |= {f"apple-m{i}": f"Apple M{i}" for i in range(1, 5)}
ADDED_TO_NAMES = re.compile(r"\((R|TM)\)|\bCPU\b|\b(\d+-Core )?Processor\b|@.*", re.IGNORECASE)


@dataclass(frozen=True)
class Plan:
    """Sizes to be measured: (N, N) by (N, N), (M, width) by (width, width), and networks."""

    squares: tuple[int, ...]
    rows: tuple[int, ...]
    width: int
    mlp: tuple[int, ...]  # batches
    convnet: tuple[int, ...]
    profile: str  # of the networks
    seconds: float  # for each side of each row


SIZES = ("squares", "rows", "mlp", "convnet")  # fields of a plan that list what is measured
FULL = Plan((512, 1024, 4096, 8192), (1, 16, 64, 128), 4096, (10_000, 1), (100, 1), "paper", 0.6)
QUICK = Plan((512, 1024, 2048), (1, 16), 4096, (200, 1), (20, 1), "paper", 0.2)
SMOKE = Plan((64, 128), (1, 16), 128, (20, 1), (2, 1), "smoke", 0.005)
PLANS = {"full": FULL, "quick": QUICK, "smoke": SMOKE}  # ten minutes, about one, and seconds
WARM_UP = Plan((), (16,), 64, (16,), (1,), "smoke", 0.0)  # compiles every kernel


def kind(device: str) -> str:
    """Name under which the measurements of this machine's device are kept.

    The instructions that a processor's kernels are made of and the model by which LLVM knows it,
    such as cpu-avx512-znver5, or a GPU's compute capability, such as cuda-sm90.
    """
    if device == "cuda":
        return "cuda-sm{}{}".format(*torch.cuda.get_device_capability())
    from bnnlib.kernels.cpu import processor

    return f"cpu-{processor.path()}-{processor.target()[1]}"


def path(kind: str, what: str = "kernels") -> Path:
    """The file with the committed measurements of a kind of device: of kernels, or of training."""
    return ROOT / "results" / "bench" / f"{what}-{kind}.json"


def committed(what: str = "kernels") -> dict[str, dict]:
    """Kind -> the committed measurements: of processors, then of GPUs, the newest first.

    Raises ValueError if one is damaged.
    """
    every = path("*", what)
    found = {
        file.stem.removeprefix(f"{what}-"): runs.read_record(file)
        for file in sorted(every.parent.glob(every.name))
    }
    newest = sorted(found, key=lambda kind: _started(found[kind]), reverse=True)
    return {kind: found[kind] for kind in sorted(newest, key=lambda kind: kind.startswith("cuda"))}


def _started(measured: dict) -> str:
    """When measurements began. Raises ValueError if they do not say so."""
    try:
        return str(measured["provenance"]["started"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"measurements without the time of their start: {error}") from error


def here() -> dict[str, dict]:
    """Kind -> what `make reproduce` measured on this machine for the pages that are being made."""
    files = sorted((runs.results_folder() / "bench").glob("kernels-*.json"))
    return {f"{file.stem.removeprefix('kernels-')}, here": runs.read_record(file) for file in files}


def label(measured: dict) -> str:
    """The device of measurements or a run, and a processor's generation where it is on record.

    For people: what vendors add to a processor's name fills a legend and tells nothing apart. A
    model that `GENERATIONS` lacks keeps LLVM's name.
    """
    name = " ".join(ADDED_TO_NAMES.sub(" ", measured["provenance"]["device_name"]).split())
    model = measured.get("processor", {}).get("model")
    return f"{name} ({GENERATIONS.get(model, model)})" if model else name


def in_short(measured: dict) -> str:
    """The largest square product of measurements, as a sentence."""
    squares = [row for row in measured["rows"] if row.get("m") == row.get("n") == row.get("k", 0)]
    what = max(squares, key=lambda row: row["m"])["what"]
    libraries = [product.name for product in baselines.float32_products("cpu")]
    ours, plain, library = (
        milliseconds(measured["rows"], what, *names)
        for names in (["ours"], ["plain float32"], libraries)
    )
    return (
        f"{label(measured)}: {what} on bits took {ours:.3g} ms, plain float32 {plain / ours:.3g} "
        f"times that, the fastest float32 library {library / ours:.3g} times"
    )


def run(
    plan: Plan,
    device: str,
    told: Callable[[list[dict]], None] = lambda rows: None,
    kept: Callable[[dict], None] = lambda content: None,
) -> dict:
    """Measure all of a plan; -> the content of its file.

    Once the rows of a shape are there, `told` gets them, and `kept` the content so far.
    """
    numerics.set_up(device)
    started = time.monotonic()
    made = provenance.gather(device)
    rows: list[dict] = []
    if device == "cpu":  # what is recorded as a graph is warm
        for _ in _measured(WARM_UP, device):
            pass
    content = {
        "schema": runs.SCHEMA,
        "provenance": made,
        "processor": processor(device),
        "rows": rows,
    }
    for some in _measured(plan, device):
        told(some)
        rows += some
        made["seconds"] = round(time.monotonic() - started, 3)
        kept(content)
    return content


def _measured(plan: Plan, device: str) -> Iterator[list[dict]]:
    for m in plan.rows:
        yield products.matmul_rows(m, plan.width, plan.width, plan.seconds, device)
    for n in plan.squares:
        yield products.matmul_rows(n, n, n, plan.seconds, device)
    batches = [(recipes.MNIST_THEANO, batch) for batch in plan.mlp]
    batches += [(recipes.CIFAR10_THEANO, batch) for batch in plan.convnet]
    for recipe, batch in batches:
        yield networks.network_rows(recipe, batch, plan.profile, plan.seconds, device)


def processor(device: str) -> dict:
    """Facts on which the times depend, beside the processor's name."""
    if device == "cuda":
        found = torch.cuda.get_device_properties(0)
        capability = f"{found.major}.{found.minor}"
        return {"cores": found.multi_processor_count, "flags": [], "path": f"sm {capability}"}
    from bnnlib.kernels import cpu
    from bnnlib.kernels.cpu.processor import has, target

    blas = np.show_config("dicts")["Build Dependencies"]["blas"]
    return {
        "model": target()[1],
        "cores": os.cpu_count(),
        "flags": [flag for flag in FLAGS if has(flag)],
        "path": cpu.path(),
        "numba": version("numba"),
        "numpy_blas": f"{blas['name']} {blas['version']}",
    }
