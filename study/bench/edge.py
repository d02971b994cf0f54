"""A network where it is to be used: its file, its start, one image at a time, by kind of number.

    python -m study.bench.edge KIND FILE SHAPE...

starts a network from its file, gives it one image and prints what took how long, as JSON.
"""

import argparse
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from bnnlib import folding, models, normalization, packed
from study import ROOT
from study.bench.baselines import DEFAULT, NUMPY, Product, float_network
from study.bench.timing import Implementation, compare


def _int8_layout(w: Tensor):
    """Signs (N, K) as the int8 weights, of scale 1, that torch's quantized product reads."""
    with warnings.catch_warnings():  # deprecated, without anything in its place on a CPU yet
        warnings.simplefilter("ignore")
        quantized = torch.quantize_per_tensor(w, 1.0, 0, torch.qint8)
    return torch.ops.quantized.linear_prepack(quantized)


def _int8(x: Tensor, w) -> Tensor:
    """Activations are quantized as they come; with 7 bits, as AVX2 needs, to sum without loss."""
    return torch.ops.quantized.linear_dynamic(x, w, True)


INT8 = Product("torch int8", "float32", lambda x: x, _int8_layout, _int8)
FLOATS = {"float32": DEFAULT, "float32, NumPy": NUMPY, "int8": INT8}
KINDS = ("bits", *FLOATS)
STORED = [folding.Block, normalization.BatchNorm, set]  # what `save` writes beside tensors


def kinds_for(network: nn.Sequential) -> tuple[str, ...]:
    """Kinds of numbers that are measured.

    torch's int8 product of activations quantized as they come is dense,
    and so is NumPy's.
    """
    first = folding.blocks(network)[0]
    return KINDS if first.signs.dim() == 2 else KINDS[:2]


def save(network: nn.Sequential, kind: str, file: Path) -> Path:
    """The network's file with weights of 32 or 8 bits; `network_file` makes that of bits."""
    dtype = torch.int8 if kind == "int8" else torch.float32
    parts = folding.blocks(network)
    torch.save([replace(part, signs=part.signs.to(dtype)) for part in parts], file)
    return file


def load(kind: str, file: Path) -> Callable[[Tensor], Tensor]:
    """A network file, or one of `save` -> what makes scores (B, 10) of images (B, ...) uint8."""
    if kind == "bits":
        return packed.load(file)
    with torch.serialization.safe_globals(STORED):  # nothing else in a file is made, or run
        parts = torch.load(file, weights_only=True)
    parts = [replace(part, signs=part.signs.float()) for part in parts]
    return float_network(parts, FLOATS[kind], FLOATS[kind])


def weight_bytes(kind: str, network: nn.Sequential) -> int:
    """Bytes of the binary layers' weights in memory, ready to be multiplied."""
    if kind == "bits":
        return packed.pack(network).packed_bytes()
    count = sum(layer.weight.numel() for layer in models.binary_layers(network).values())
    return count * (1 if kind == "int8" else 4)


def start(kind: str, file: Path, shape: tuple[int, ...]) -> dict:
    """A new process's seconds: until Python has imported all, to load, and for one image."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "study.bench.edge", kind, str(file.resolve())]
    command += map(str, shape)
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    taken = json.loads(done.stdout)
    total = time.perf_counter() - started
    return {"imports": total - sum(taken.values())} | taken | {"all": total}


@torch.no_grad()
def latencies(networks: dict[str, Callable], image: Tensor, scores: Tensor, seconds: float) -> list:
    """A row of times for each network, for one image (1, ...), on one thread and on all.

    scores (1, 10): the exact ones; whether they are met stands in each row.
    """
    ways = [
        Implementation(kind, "scores", lambda n=network: n(image), threads)
        for kind, network in networks.items()
        for threads in sorted({1, torch.get_num_threads()})
    ]
    return compare(ways, lambda _, found: {"exact": torch.equal(found, scores)}, seconds, "cpu")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m study.bench.edge")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("file", type=Path)
    parser.add_argument("shape", type=int, nargs="+", help="of an image")
    options = parser.parse_args(arguments)
    image = torch.zeros(1, *options.shape, dtype=torch.uint8)
    started = time.perf_counter()
    network = load(options.kind, options.file)
    loaded = time.perf_counter()
    network(image)
    print(json.dumps({"load": loaded - started, "first image": time.perf_counter() - loaded}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
