"""Rows of the benchmark for whole networks: packed, and in float32 on every library."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from bnnlib import folding, packed
from study.bench import baselines, gpu_graphs
from study.bench.baselines import MANY_ROWS
from study.bench.timing import Implementation, compare
from study.recipes.recipe import Recipe

REFERENCE_IMAGES = 500  # that the reference holds at a time, in float64


def network_rows(
    recipe: Recipe, batch: int, profile: str, seconds: float, device: str
) -> list[dict]:
    """Rows for a recipe's network at a profile: uint8 images to scores."""
    network = baselines.network_for(recipe, profile).to(device)
    generator = torch.Generator().manual_seed(0)
    shape = packed.DIGITS if recipe.network == "mlp" else packed.PICTURES
    images = torch.randint(0, 256, (batch, *shape), generator=generator, dtype=torch.uint8)
    images = images.to(device)
    chunks = images.split(REFERENCE_IMAGES)
    scores = torch.cat([list(folding.reference(network, chunk))[-1] for chunk in chunks])

    def check(_: Implementation, result: Tensor) -> dict:
        same = (result.argmax(1) == scores.argmax(1)).float().mean().item()
        return {"exact": torch.equal(result, scores), "same_classes": same}

    if device == "cuda":
        ways = _networks_on_gpu(network, images, batch)
    else:
        calls = {"ours": packed.pack(network)}
        calls |= _float_networks(folding.blocks(network), batch, device)
        every = torch.get_num_threads()
        ways = [
            Implementation(name, "scores", lambda c=call: c(images), every)
            for name, call in calls.items()
        ]
    title = "MNIST MLP" if recipe.network == "mlp" else "CIFAR-10 ConvNet"
    what = {"what": f"{title}, batch {batch}", "kind": recipe.network, "batch": batch}
    return [what | row for row in compare(ways, check, seconds, device)]


def _networks_on_gpu(network, images: Tensor, batch: int) -> list[Implementation]:
    """The packed network over cold copies of its weights, the float ones likewise."""
    ways = [gpu_graphs.Way("ours", "scores", packed.pack, lambda bits: bits(images))]
    names = _float_networks(folding.blocks(network), batch, "cuda")
    for name in names:
        prepare = lambda net, n=name: _held(net, n, batch)  # noqa: E731
        ways.append(gpu_graphs.Way(name, "scores", prepare, lambda held: held.run(images)))
    return [gpu_graphs.implementation(way, network, deepcopy) for way in ways]


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
