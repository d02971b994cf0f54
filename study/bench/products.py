"""Rows of the benchmark for products of signs: ours, and every other way to the same sums."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from bnnlib.kernels import reference
from bnnlib.xnor import PackedWeights, pack_signs, pack_weights, xnor_matmul
from study.bench import baselines, gpu_graphs
from study.bench.baselines import MANY_ROWS, Product
from study.bench.timing import Implementation, compare

FEW_ROWS = 16  # up to here reading the weights takes the time: arithmetic is no bound
MOST_ON_ONE_THREAD = 2**31  # multiply-adds that libraries are timed on one thread for, too
MOST_EMULATED = 2**36  # multiply-adds in a type that the processor has no instructions for


def signs(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """(rows, columns) float32 in {-1, +1}."""
    return 2.0 * torch.randint(0, 2, (rows, columns), generator=generator) - 1


def matmul_rows(m: int, n: int, k: int, seconds: float, device: str) -> list[dict]:
    """Rows for signs (M, K) by (N, K): sums (M, N), or the bits [sum >= threshold]."""
    generator = torch.Generator().manual_seed(0)
    x, w = (signs(rows, k, generator).to(device) for rows in (m, n))
    thresholds = torch.randint(-9, 10, (n,), generator=generator, dtype=torch.int32).to(device)
    packed_w = reference.pack_weights(w)
    sums = reference.xnor_matmul(reference.pack_signs(x), packed_w, (n, k), None)
    bits = reference.pack_bits(sums >= thresholds)

    def check(timed: Implementation, result) -> dict:
        if result is None:  # the bound has none
            return {"exact": None}
        result = torch.as_tensor(result)
        wanted = bits if timed.output == "bits" else sums
        return {"exact": equal(result, wanted)}

    if device == "cuda":
        ways = gpu_graphs.matmul_implementations(x, w, thresholds)
    else:
        ways = _ours(x, w, thresholds) + _others(x, w)
    what = {"what": f"{m}x{n}x{k}", "kind": "matmul", "m": m, "n": n, "k": k}
    return [what | row for row in compare(ways, check, seconds, device)]


def equal(result: Tensor, wanted: Tensor) -> bool:
    """True if a result of any dtype holds the wanted integers, shape and all.

    torch would compare bfloat16 with int32 in bfloat16, where 257 is 256.
    """
    wide = torch.float64 if result.is_floating_point() else torch.int64
    return torch.equal(result.to(wide), wanted.to(wide))


def _ours(x: Tensor, w: Tensor, thresholds: Tensor) -> list[Implementation]:
    every = torch.get_num_threads()
    words = pack_signs(x)
    weights = pack_weights(w)
    ready = lambda *last: xnor_matmul(words, weights, *last)  # noqa: E731
    packing = lambda *last: xnor_matmul(pack_signs(x), weights, *last)  # noqa: E731
    ways = [
        Implementation("ours", "int32", ready, every),
        Implementation("ours", "bits", lambda: ready(thresholds), every),
        Implementation("ours", "int32", packing, every, True),
        Implementation("ours", "bits", lambda: packing(thresholds), every, True),
    ]
    from study.bench import plain_kernels

    if every > 1:
        ways.append(replace(ways[0], threads=1))
    for threads in sorted({1, every}):
        ways.append(_kernel_alone(words, weights, threads))
        if len(x) > FEW_ROWS:
            call = lambda: plain_kernels.run_bound(len(x), *w.shape)  # noqa: E731
            name = f"bound: {plain_kernels.bound_name()}"
            ways.append(Implementation(name, "", call, threads))
    return ways


def _kernel_alone(words: Tensor, weights: PackedWeights, threads: int) -> Implementation:
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

    return Implementation("ours, the kernel alone", "int32", again, threads)


def _others(x: Tensor, w: Tensor) -> list[Implementation]:
    every = torch.get_num_threads()
    work = len(x) * w.numel()
    products = baselines.float32_products("cpu")
    narrow = baselines.narrow_products("cpu")
    products += [by for by in narrow if work <= MOST_EMULATED or _has_instructions(by)]
    products += baselines.plain_products("cpu") if len(x) >= MANY_ROWS else []
    ways = [Implementation(by.name, by.output, _multiply(by, x, w), every) for by in products]
    if every > 1 and work <= MOST_ON_ONE_THREAD:
        told = (baselines.DEFAULT.name, baselines.ONEDNN.name)  # NumPy's BLAS asks nobody
        ways += [replace(way, threads=1) for way in ways if way.name in told]
    return ways


def _has_instructions(by: Product) -> bool:
    """Whether this processor has any of the instructions that make a product quick."""
    from bnnlib.kernels.cpu import processor

    return any(processor.has(name) for name in by.instructions)


def _multiply(by: Product, x: Tensor, w: Tensor) -> Callable[[], object]:
    left, right = by.left(x), by.right(w)
    return lambda: by.multiply(left, right)
