"""Sides of the benchmark on a GPU: many calls in one CUDA graph, over weights that no cache holds.

A launch from Python takes longer than a small product, and weights that were just read are still in
the second-level cache, where bits gain least over floats. So each side is recorded as a graph of
many calls, over as many copies of its weights as make COLD bytes together, and what is told is the
graph's time over its calls. All implementations alike, a network's too.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bnnlib.xnor import PackedWeights, pack_signs, pack_weights, xnor_matmul
from study.bench import baselines
from study.bench.timing import Implementation

COLD = 120_000_000  # bytes of weights together: more than twice an H200's second-level cache
FEWEST_CALLS, MOST_CALLS = 20, 4096  # of a graph


@dataclass(frozen=True)
class Way:
    """One way to multiply: what is made of the weights beforehand, and the call that is timed."""

    name: str
    output: str  # the type of the numbers
    prepare: Callable[[Tensor], object]
    call: Callable[[object], object]
    packing: bool = False


def recorded(call: Callable[[], object]) -> Callable[[], object]:
    """The same as a CUDA graph; returns what the call returned, refilled by every replay."""
    for _ in range(3):  # compiled and chosen before it is recorded
        call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()

    def replay():
        graph.replay()
        return result

    return replay


def implementation(way: Way, w, copied: Callable) -> Implementation:
    """The side that makes many calls of a way at once, over copies of w, as `copied` makes them."""
    sets = [way.prepare(copied(w))]
    held = max(1, weight_bytes(sets[0]))
    count = min(MOST_CALLS, -(-COLD // held))
    sets += [way.prepare(copied(w)) for _ in range(count - 1)]
    calls = max(FEWEST_CALLS, count)

    def all_calls():
        first = way.call(sets[0])
        for call in range(1, calls):
            way.call(sets[call % count])
        return first

    return Implementation(way.name, way.output, recorded(all_calls), 1, way.packing, calls)


def weight_bytes(prepared: object) -> int:
    """Bytes of all tensors in what a way made of its weights."""
    if isinstance(prepared, Tensor):
        return prepared.nbytes
    if isinstance(prepared, PackedWeights):
        return sum(tensor.nbytes for tensor in prepared.tensors)
    if isinstance(prepared, tuple | list):
        return sum(map(weight_bytes, prepared))
    return getattr(prepared, "packed_bytes", lambda: 0)()


def matmul_implementations(x: Tensor, w: Tensor, thresholds: Tensor) -> list[Implementation]:
    """Every way to multiply the signs x (M, K) by w (N, K), ours first."""
    ways = _ours(x, thresholds) + _others(x)
    return [implementation(way, w, Tensor.clone) for way in ways]


def _ours(x: Tensor, thresholds: Tensor) -> list[Way]:
    words = pack_signs(x)
    ways = []
    for output, limits in (("int32", None), ("bits", thresholds)):
        on_words = lambda w, t=limits: xnor_matmul(words, w, t)  # noqa: E731
        packing = lambda w, t=limits: xnor_matmul(pack_signs(x), w, t)  # noqa: E731
        ways.append(Way("ours", output, pack_weights, on_words))
        ways.append(Way("ours", output, pack_weights, packing, True))
        ways += _each_kernel(words, output, limits)
    return ways


def _each_kernel(words: Tensor, output: str, limits: Tensor | None) -> list[Way]:
    """Each kernel by name, whichever of them the op chooses."""
    from bnnlib.kernels import gpu, tensor_cores

    kernels = {"ours, popcount": gpu.xnor_matmul}
    if tensor_cores.available(words.device):
        kernels["ours, binary tensor cores"] = tensor_cores.xnor_matmul
    return [
        Way(
            name,
            output,
            pack_weights,
            lambda w, kernel=kernel: kernel(words, w.tensors, w.shape, limits),
        )
        for name, kernel in kernels.items()
    ]


def _others(x: Tensor) -> list[Way]:
    products = baselines.float32_products("cuda") + baselines.narrow_products("cuda")
    products += baselines.plain_products("cuda")
    return [_library(by, by.left(x)) for by in products]


def _library(by: baselines.Product, left: object) -> Way:
    return Way(by.name, by.output, by.right, lambda right: by.multiply(left, right))
