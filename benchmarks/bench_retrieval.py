"""Hamming search for the nearest codes against every float32 search, on a trained network's codes.

    python -m benchmarks.bench_retrieval [--out FILE]

The codes are those of the 60,000 MNIST training images, 4096 bits each, the queries those of test
images; every side returns the TOP nearest of all, and a side's result is compared with the
reference's. Float ways hold the same signs as float32, multiply and select by torch.topk. One more
float side skips what ours skips, by the same tiles, which tells what bits and what skipping are
worth. Leaves results/bench/retrieval-cpu.json.
"""

import argparse
import hashlib
import sys
import time
from dataclasses import replace
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from bnnlib import folding, network_file
from bnnlib.kernels.cpu import hamming_search
from bnnlib.kernels.cpu.hamming_codes import Codes
from bnnlib.kernels.cpu.xnor_tables import COLUMNS
from bnnlib.xnor import unpack_signs
from study import ROOT, bench, data, retrieval
from study.bench import baselines, timing
from study.bench.timing import Implementation
from study.train import provenance, runs

NETWORK = runs.NETWORKS / "mnist-theano-evening.safetensors"
PATH = ROOT / "results" / "bench" / "retrieval-cpu.json"
BATCHES = (500, 1)
TOP = 10
SECONDS = 3.0  # for each side of each batch


def measure(words: Tensor, queries: Tensor, bits: int, seconds: float) -> dict:
    """Rows of all ways for each batch of queries, and the bytes that each search reads from."""
    started = time.perf_counter()
    codes = retrieval.index(words, bits)
    built, signs = time.perf_counter() - started, unpack_signs(words, bits).float()
    rows = []
    for batch in BATCHES:
        some = queries[:batch]
        wanted, x = reference(some, codes), unpack_signs(some, bits).float()
        ways = _ours(some, codes) + _floats(x, signs, codes)
        what = {"what": f"{len(some)} queries", "kind": "retrieval", "m": len(some)}
        what |= {"n": len(words), "k": bits, "top": TOP}
        check = lambda _, found, x=x, wanted=wanted: {"exact": exact(found, wanted, x, signs)}  # noqa: E731
        found = [what | row for row in timing.compare(ways, check, seconds, "cpu")]
        timing.show(found)
        rows += found
    held = [codes.tiles, codes.middles, codes.radii, codes.places]
    memory = {"codes": words.nbytes, "packed for search": sum(part.nbytes for part in held)}
    memory["float32"] = signs.nbytes
    return {"rows": rows, "bytes": memory, "index_seconds": round(built, 2)}


def _ours(queries: Tensor, codes: Codes) -> list[Implementation]:
    every = torch.get_num_threads()
    unbounded = replace(codes, radii=torch.full_like(codes.radii, codes.bits))
    call = lambda codes: lambda: retrieval.search(queries, codes, TOP)  # noqa: E731
    return [
        Implementation("ours", "int32", call(codes), every),
        Implementation("ours, nothing skipped", "int32", call(unbounded), every),
        Implementation("ours", "int32", call(codes), 1),
    ]


def _floats(x: Tensor, signs: Tensor, codes: Codes) -> list[Implementation]:
    """Every library's product with torch's selection behind it, then the one that skips."""
    every, ways = torch.get_num_threads(), []
    for by in baselines.float32_products("cpu"):
        left, right = by.left(x), by.right(signs)
        call = lambda by=by, x=left, w=right: torch.as_tensor(by.multiply(x, w)).topk(TOP)  # noqa: E731
        ways.append(Implementation(by.name, "float32", call, every))
    tiles = signs[codes.places.long()].split(COLUMNS)
    middles = torch.stack([tile[len(tile) // 2] for tile in tiles])
    call = lambda: skipping(x, tiles, middles, codes)  # noqa: E731
    return [*ways, Implementation("torch float32, tiles skipped as ours", "float32", call, every)]


def skipping(x: Tensor, tiles: tuple[Tensor, ...], middles: Tensor, codes: Codes):
    """The search of `hamming_search` in float32: queries (Q, bits) -> products, places (Q, TOP).

    A product is bits - 2 distance, so a tile holds none above its middle's + 2 radius.
    """
    most = x @ middles.t() + 2 * codes.radii
    best, found = torch.full((len(x), TOP), -torch.inf), torch.zeros(len(x), TOP).long()
    places = codes.places.long().split(COLUMNS)
    nearest = most.argmax(1)
    for first in (True, False):  # first the tile that each query is likeliest to find its own in
        for tile, part in enumerate(tiles):
            later = (nearest != tile) & (most[:, tile] >= best[:, -1])
            wanted = (nearest == tile) if first else later
            rows = wanted.nonzero()[:, 0]
            if len(rows):
                of_tile = places[tile].expand(len(rows), -1)
                products = torch.cat([best[rows], x[rows] @ part.t()], 1)
                best[rows], at = products.topk(TOP)
                found[rows] = torch.cat([found[rows], of_tile], 1).gather(1, at)
    return best, found


def reference(queries: Tensor, codes: Codes) -> tuple[Tensor, Tensor]:
    """Distances and places, by plain torch, some queries at a time: they need much memory."""
    parts = [hamming_search.reference(some, codes, TOP) for some in queries.split(250)]
    return torch.cat([d for d, _ in parts]), torch.cat([places for _, places in parts])


def exact(found: tuple, wanted: tuple[Tensor, Tensor], x: Tensor, signs: Tensor) -> bool:
    """Ours: the same distances and places. Of a float search, which has no rule for ties, the same
    distances, and places that differ and have them.
    """
    numbers, places = found
    if not numbers.is_floating_point():
        return torch.equal(numbers, wanted[0]) and torch.equal(places, wanted[1])
    distances = (x.shape[1] - numbers) / 2
    true = torch.stack([signs[place] @ row for place, row in zip(places, x, strict=True)])
    different = (places.sort(1).values.diff() != 0).all()
    return bool((distances == wanted[0]).all() and (true == numbers).all() and different)


def network_hash(path: Path) -> str:
    """SHA-256 of a network file as `save_network` writes it.

    What a model card adds to the file's metadata later doesn't make it another network.
    """
    with safetensors.safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        shape = file.metadata()["shape"]
    return hashlib.sha256(safetensors.torch.save(tensors, {"shape": shape})).hexdigest()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, metavar="FILE", default=PATH)
    options = parser.parse_args(arguments)
    started, made = time.monotonic(), provenance.gather("cpu")
    made["command"] = provenance.command_line("benchmarks.bench_retrieval")
    model, images = network_file.load_network(NETWORK), data.load("mnist")
    words, queries = (
        retrieval.encode(model, torch.from_numpy(part))[0]
        for part in (images.train_images, images.test_images[: max(BATCHES)])
    )
    bits = len(folding.blocks(model)[-2].signs)
    retrieval.search(queries[:1], retrieval.index(words[:1], bits), 1)  # compiles
    found = measure(words, queries, bits, SECONDS)
    made["seconds"] = round(time.monotonic() - started, 1)
    content = {"schema": runs.SCHEMA, "provenance": made, "processor": bench.processor("cpu")}
    content |= {"network": NETWORK.stem, "network_sha256": network_hash(NETWORK)}
    runs.write_record(options.out, content | found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
