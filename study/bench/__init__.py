"""How fast packed products and networks are, beside every other way to compute the same.

    python -m study.bench [--plan quick] [--out FILE]

Every result is compared with the reference by equality. Prints a table with ratios of medians and
leaves results/bench/kernels-<kind of device>.json. What is for CUDA has never been run so far.
"""

import os
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bnnlib import folding, numerics, packed
from bnnlib.kernels import reference
from bnnlib.xnor import PackedWeights, pack_signs, pack_weights, xnor_matmul
from study import ROOT, recipes
from study.bench import baselines, gpu_graphs
from study.bench.baselines import Product
from study.bench.timing import Side, compare, milliseconds
from study.recipes.recipe import Recipe
from study.train import provenance, runs

FEW_ROWS = 16  # up to here reading the weights takes the time: arithmetic is no bound
MANY_ROWS = 16  # from here on the plain kernels, which make little of few, are timed
MOST_ON_ONE_THREAD = 2**31  # multiply-adds that libraries are timed on one thread for, too
MOST_NARROW = 2**36  # where bfloat16 and int8 have no instructions of their own, they take long
CHUNK = 500  # images that the reference holds at a time, in float64
# Of the features that LLVM names, those that decide which instructions products are made of.
FLAGS = ("popcnt", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512vpopcntdq", "avx512vnni")
FLAGS += ("avxvnni", "avx512bf16", "amx-int8", "amx-bf16", "neon", "sve")
# Of processors, by what their kernels are made of
CPU_KINDS = ("cpu-avx512", "cpu-avx2", "cpu-neon", "cpu-generic")


@dataclass(frozen=True)
class Plan:
    """What is measured: (N, N) by (N, N), (M, width) by (width, width), and networks."""

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
    """What the measurements of this machine's device are kept as.

    One of CPU_KINDS, or a GPU's compute capability, such as cuda-sm90.
    """
    if device == "cuda":
        return "cuda-sm{}{}".format(*torch.cuda.get_device_capability())
    from bnnlib.kernels.cpu import processor

    return f"cpu-{processor.path()}"


def path(kind: str, what: str = "kernels") -> Path:
    """The file with the committed measurements of a kind of device: of kernels, or of training."""
    return ROOT / "results" / "bench" / f"{what}-{kind}.json"


def committed(what: str = "kernels") -> dict[str, dict]:
    """Kind -> the committed measurements: CPUs in the order of CPU_KINDS, then GPUs by name.

    Raises ValueError if one is damaged.
    """
    gpus = sorted(path("cuda-sm*", what).parent.glob(path("cuda-sm*", what).name))
    kinds = [*CPU_KINDS, *(file.stem.removeprefix(f"{what}-") for file in gpus)]
    files = {kind: path(kind, what) for kind in kinds}
    return {kind: runs.read_record(file) for kind, file in files.items() if file.exists()}


def here() -> dict[str, dict]:
    """Kind -> what `make reproduce` measured on this machine for the pages that are being made."""
    files = sorted((runs.results_folder() / "bench").glob("kernels-*.json"))
    return {f"{file.stem.removeprefix('kernels-')}, here": runs.read_record(file) for file in files}


def label(measured: dict) -> str:
    """The device of measurements, and the model by which LLVM knows a processor, for people."""
    name, model = measured["provenance"]["device_name"], measured["processor"].get("model")
    return f"{name} ({model})" if model else name


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
        yield matmul_rows(m, plan.width, plan.width, plan.seconds, device)
    for n in plan.squares:
        yield matmul_rows(n, n, n, plan.seconds, device)
    for batch in plan.mlp:
        yield network_rows(recipes.MNIST_THEANO, batch, plan, device)
    for batch in plan.convnet:
        yield network_rows(recipes.CIFAR10_THEANO, batch, plan, device)


def processor(device: str) -> dict:
    """What the times depend on, beside the processor's name."""
    if device == "cuda":
        found = torch.cuda.get_device_properties(0)
        capability = f"{found.major}.{found.minor}"
        return {"cores": found.multi_processor_count, "flags": [], "path": f"sm {capability}"}
    from bnnlib.kernels import cpu
    from bnnlib.kernels.cpu.processor import target

    (_, model, features), blas = target(), np.show_config("dicts")
    blas = blas["Build Dependencies"]["blas"]
    return {
        "model": model,
        "cores": os.cpu_count(),
        "flags": [flag for flag in FLAGS if f"+{flag}" in features.split(",")],
        "path": cpu.path(),
        "numba": version("numba"),
        "numpy_blas": f"{blas['name']} {blas['version']}",
    }


def signs(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """(rows, columns) float32 in {-1, +1}."""
    return 2.0 * torch.randint(0, 2, (rows, columns), generator=generator) - 1


def matmul_rows(m: int, n: int, k: int, seconds: float, device: str) -> list[dict]:
    """Signs (M, K) by (N, K): sums (M, N), or the bits [sum >= threshold]."""
    generator = torch.Generator().manual_seed(0)
    x, w = (signs(rows, k, generator).to(device) for rows in (m, n))
    thresholds = torch.randint(-9, 10, (n,), generator=generator, dtype=torch.int32).to(device)
    packed_w = reference.pack_weights(w)
    sums = reference.xnor_matmul(reference.pack_signs(x), packed_w, (n, k), None)
    bits = reference.pack_bits(sums >= thresholds)

    def check(side: Side, result) -> dict:
        if result is None:  # the bound has none
            return {"exact": None}
        result = torch.as_tensor(result)
        wanted = bits if side.output == "bits" else sums
        return {"exact": equal(result, wanted)}

    if device == "cuda":
        sides = gpu_graphs.matmul_sides(x, w, thresholds)
    else:
        sides = _ours(x, w, thresholds) + _others(x, w)
    what = {"what": f"{m}x{n}x{k}", "kind": "matmul", "m": m, "n": n, "k": k}
    return [what | row for row in compare(sides, check, seconds, device)]


def equal(result: Tensor, wanted: Tensor) -> bool:
    """Whether a result of any dtype holds the wanted integers, shape and all.

    torch would compare bfloat16 with int32 in bfloat16, where 257 is 256.
    """
    wide = torch.float64 if result.is_floating_point() else torch.int64
    return torch.equal(result.to(wide), wanted.to(wide))


def _ours(x: Tensor, w: Tensor, thresholds: Tensor) -> list[Side]:
    every, words, weights = torch.get_num_threads(), pack_signs(x), pack_weights(w)
    sides = [
        Side("ours", "int32", lambda: xnor_matmul(words, weights), every),
        Side("ours", "bits", lambda: xnor_matmul(words, weights, thresholds), every),
        Side("ours", "int32", lambda: xnor_matmul(pack_signs(x), weights), every, True),
        Side("ours", "bits", lambda: xnor_matmul(pack_signs(x), weights, thresholds), every, True),
    ]
    from study.bench import plain_kernels

    if every > 1:
        sides.append(replace(sides[0], threads=1))
    for threads in sorted({1, every}):
        sides.append(_kernel_alone(words, weights, threads))
        if len(x) > FEW_ROWS:
            call = lambda: plain_kernels.run_bound(len(x), *w.shape)  # noqa: E731
            sides.append(Side(f"bound: {plain_kernels.bound_name()}", "", call, threads))
    return sides


def _kernel_alone(words: Tensor, weights: PackedWeights, threads: int) -> Side:
    """The kernel, writing to sums that are there: without the op, whose cost shows with few rows,
    and without room for the sums, whose cost shows with many."""
    from bnnlib.kernels import cpu
    from bnnlib.kernels.cpu import thread_pool

    @cache
    def ready() -> tuple[Tensor, tuple]:
        """At the first call, when torch has this side's threads: rows are cut for so many."""
        return cpu.prepared_matmul(words, weights.tensors, weights.shape, None)

    def again() -> Tensor:
        sums, call = ready()
        thread_pool.share(*call)
        return sums

    return Side("ours, the kernel alone", "int32", again, threads)


def _others(x: Tensor, w: Tensor) -> list[Side]:
    every, work = torch.get_num_threads(), len(x) * w.numel()
    products = baselines.float32_products("cpu")
    products += baselines.narrow_products("cpu") if work <= MOST_NARROW else []
    products += baselines.plain_products("cpu") if len(x) >= MANY_ROWS else []
    sides = [Side(by.name, by.output, _multiply(by, x, w), every) for by in products]
    if every > 1 and work <= MOST_ON_ONE_THREAD:
        told = (baselines.DEFAULT.name, baselines.ONEDNN.name)  # NumPy's BLAS asks nobody
        sides += [replace(side, threads=1) for side in sides if side.implementation in told]
    return sides


def _multiply(by: Product, x: Tensor, w: Tensor) -> Callable[[], object]:
    left, right = by.left(x), by.right(w)
    return lambda: by.multiply(left, right)


def network_rows(recipe: Recipe, batch: int, plan: Plan, device: str) -> list[dict]:
    """uint8 images to scores."""
    network = baselines.network_for(recipe, plan.profile).to(device)
    generator = torch.Generator().manual_seed(0)
    shape = packed.DIGITS if recipe.network == "mlp" else packed.PICTURES
    images = torch.randint(0, 256, (batch, *shape), generator=generator, dtype=torch.uint8)
    images = images.to(device)
    parts = [list(folding.reference(network, chunk))[-1] for chunk in images.split(CHUNK)]
    scores = torch.cat(parts)

    def check(side: Side, result: Tensor) -> dict:
        same = (result.argmax(1) == scores.argmax(1)).float().mean().item()
        return {"exact": torch.equal(result, scores), "same_classes": same}

    if device == "cuda":
        sides = _network_sides_on_gpu(network, images, batch)
    else:
        calls = {"ours": packed.pack(network)}
        calls |= _float_networks(folding.blocks(network), batch, device)
        every = torch.get_num_threads()
        sides = [Side(n, "scores", lambda c=call: c(images), every) for n, call in calls.items()]
    title = "MNIST MLP" if recipe.network == "mlp" else "CIFAR-10 ConvNet"
    what = {"what": f"{title}, batch {batch}", "kind": recipe.network, "batch": batch}
    return [what | row for row in compare(sides, check, plan.seconds, device)]


def _network_sides_on_gpu(network, images: Tensor, batch: int) -> list[Side]:
    """The packed network over cold copies of its weights, the float ones likewise."""
    ways = [gpu_graphs.Way("ours", "scores", packed.pack, lambda bits: bits(images))]
    names = _float_networks(folding.blocks(network), batch, "cuda")
    for name in names:
        prepare = lambda net, n=name: _held(net, n, batch)  # noqa: E731
        ways.append(gpu_graphs.Way(name, "scores", prepare, lambda held: held.run(images)))
    return [gpu_graphs.side(way, network, deepcopy) for way in ways]


@dataclass(frozen=True)
class _Held:
    """A float network, and what its weights take at four bytes each."""

    run: Callable[[Tensor], Tensor]
    size: int

    def packed_bytes(self) -> int:
        return self.size


def _held(network, name: str, batch: int) -> _Held:
    blocks = folding.blocks(network)
    size = sum(block.signs.nbytes for block in blocks)
    return _Held(_float_networks(blocks, batch, "cuda")[name], size)


def _float_networks(blocks: list[folding.Block], batch: int, device: str) -> dict[str, Callable]:
    """Name -> images to scores. The plain kernels are for large batches of dense layers."""
    default, *others = baselines.float32_products(device)
    if blocks[0].signs.dim() == 4:
        return {f"{default.name}, channels last": baselines.float_network(blocks, default, default)}
    pairs = [(by, by) for by in (default, *others, *baselines.narrow_products(device)[:-1])]
    if batch >= MANY_ROWS:
        plain = baselines.plain_products(device)
        pairs += [(plain[0], by) for by in plain]
    return {by.name: baselines.float_network(blocks, first, by) for first, by in pairs}
