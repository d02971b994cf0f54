"""How fast the exported C file predicts, beside the packed network on one thread, one image a call.

    python -m benchmarks.bench_export [--model FILE] [--seconds 2] [--output FILE]

The network of notebook 04 at full size, exported and compiled by gcc with -O3 -march=native, for
AVX2 and for any x86. All are called from Python, the C files through ctypes. Every bit, score and
class of 100 test images is compared first. Needs gcc, MNIST and a quiet machine. Prints a line for
each side and leaves results/bench/export-cpu.json.
"""

import argparse
import ctypes
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from bnnlib import packed
from bnnlib.export import c
from bnnlib.export.network import SignNetwork, read
from study import ROOT, data
from study.bench.timing import Implementation, compare, show
from study.train import provenance, runs

MODEL = ROOT / "results" / "models" / "mnist-theano-evening.safetensors"
RESULT = ROOT / "results" / "bench" / "export-cpu.json"
OPTIONS = {
    "C, -O3 -march=native": ["-O3", "-march=native"],
    "C, -O3 -march=x86-64-v3": ["-O3", "-march=x86-64-v3"],  # AVX2
    "C, -O2": ["-O2"],
}
CHECKED = 100  # test images


class Library:
    """A C file, compiled and loaded; a call takes pictures (1, 28, 28) to scores (1, 10)."""

    def __init__(self, network: SignNetwork, options: list[str], folder: Path):
        source, made = folder / "network.c", folder / f"{'_'.join(options)}.so"
        source.write_text(c.source(network))
        command = ["gcc", "-std=c99", *options, "-shared", "-fPIC", str(source), "-o", str(made)]
        subprocess.run(command, check=True)
        self.call = ctypes.CDLL(str(made)).bnn_inside
        self.call.argtypes = [ctypes.c_void_p] * 3
        units = [len(layer.signs) for layer in network.hidden]
        self.bits = torch.zeros(sum(-(-n // 64) for n in units), dtype=torch.int64)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        scores = torch.empty(1, 10)
        self.call(image.data_ptr(), self.bits.data_ptr(), scores.data_ptr())
        return scores


def differing(library: Library, network: packed.PackedNetwork, images: torch.Tensor) -> int:
    """How many images have a hidden bit or a score that isn't the packed network's."""
    count = 0
    for image in images.split(1):
        scores = library(image)
        words = torch.cat([words[0] for words in network.hidden(image)])
        count += not (torch.equal(words, library.bits) and torch.equal(scores, network(image)))
    return count


def main() -> int:
    options = _options()
    images = torch.from_numpy(data.load("mnist").test_images.copy())
    network, exported = packed.load(options.model), read(options.model)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        libraries = {key: Library(exported, flags, Path(name)) for key, flags in OPTIONS.items()}
        wrong = sum(differing(each, network, images[:CHECKED]) for each in libraries.values())
        if wrong:
            print(f"{wrong} images have other bits or scores", file=sys.stderr)
            return 1
        image = images[:1].contiguous()
        calls = {"ours": network} | libraries
        ways = [Implementation(key, "scores", lambda n=n: n(image), 1) for key, n in calls.items()]
        exact = network(image)
        check = lambda _, found: {"exact": torch.equal(found, exact)}  # noqa: E731
        rows = compare(ways, check, options.seconds, "cpu")
    what = f"{exported.name}: one image, {exported.bits:,} weights"
    rows = [row | {"what": what} for row in rows]
    show(rows)
    made = provenance.gather("cpu")
    made["command"] = provenance.command_line("benchmarks.bench_export")
    content = {"schema": runs.SCHEMA, "provenance": made, "rows": rows}
    runs.write_record(options.output, content)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each side")
    parser.add_argument("--output", type=Path, default=RESULT)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
