"""This study's binary product against bnn-lab's, the one living peer for x86, on the same signs.

    python -m benchmarks.bench_peer

bnn-lab 1.0.0 pins an older torch and NumPy: it is installed without its dependencies into an
environment of its own, build/peer, and runs in a process of its own, in turn with ours. Both have
packed operands; ours gives int32, bnn-lab float32. Before each turn both rest, until the threads of
the other side, which look out for work for a while, sleep. Leaves results/bench/peer-<kind of
CPU>.json.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.peer import digest, operands
from bnnlib.xnor import pack_signs, pack_weights, xnor_matmul
from study import ROOT, bench
from study.bench import timing
from study.bench.timing import BLOCK_SECONDS, Implementation, seconds_of
from study.train import provenance, runs

PEER = "bnn-lab 1.0.0"
SHAPES = ((16, 4096, 4096), (64, 4096, 4096), (128, 4096, 4096))
SHAPES += ((512, 512, 512), (1024, 1024, 1024), (4096, 4096, 4096))
ROUNDS = 15
REST = 0.02  # seconds


def environment() -> Path:
    """The Python of the peer's environment, which is made if there is none."""
    python = ROOT / "build" / "peer" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", python.parent.parent], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*install, PEER.replace(" ", "=="), "numpy"], check=True)
    return python


def ask(process: subprocess.Popen, **order):
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def rows(shape: tuple[int, int, int], process: subprocess.Popen, every: int) -> list[dict]:
    """Both ways' rows, on one thread and on all, in turn."""
    x, w = map(torch.from_numpy, operands(*shape))
    words, weights = pack_signs(x), pack_weights(w)
    wanted = digest((x @ w.t()).numpy())

    def ours(threads: int, calls: int) -> float:
        torch.set_num_threads(threads)
        xnor_matmul(words, weights)
        return seconds_of(lambda: xnor_matmul(words, weights), calls, "cpu")

    exact = {"ours": digest(xnor_matmul(words, weights).numpy()) == wanted}
    exact[PEER] = ask(process, shape=shape) == wanted
    timers = {"ours": ours, PEER: lambda threads, calls: ask(process, threads=threads, calls=calls)}
    what = {"what": "x".join(map(str, shape)), "kind": "matmul"}
    what |= dict(zip("mnk", shape, strict=True))
    return [
        what
        | Implementation(name, "int32" if name == "ours" else "float32", None, threads).row(
            times, {"exact": exact[name]}
        )
        for threads in sorted({1, every})
        for name, times in in_turn(timers, threads).items()
    ]


def in_turn(timers: dict[str, Callable], threads: int) -> dict[str, list[float]]:
    """Seconds a call, a number for each round: blocks of one side, then of the other."""
    once = {name: timer(threads, 1) for name, timer in timers.items()}
    calls = {name: max(1, round(BLOCK_SECONDS / seconds)) for name, seconds in once.items()}
    taken: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(ROUNDS):
        for name, timer in timers.items():
            time.sleep(REST)
            taken[name].append(timer(threads, calls[name]))
    return taken


def main() -> int:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("GOMP_")}
    every = torch.get_num_threads()
    made = provenance.gather("cpu")
    found = []
    process = subprocess.Popen(
        [environment(), ROOT / "benchmarks" / "peer.py"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=inherited,
    )  # fmt: skip
    with process:
        for shape in SHAPES:
            some = rows(shape, process, every)
            timing.show(some)
            found += some
        process.stdin.close()
    torch.set_num_threads(every)
    made["command"] = provenance.command_line("benchmarks.bench_peer")
    content = {"schema": runs.SCHEMA, "provenance": made, "processor": bench.processor("cpu")}
    path = ROOT / "results" / "bench" / f"peer-{bench.kind('cpu')}.json"
    runs.write_record(path, content | {"rows": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
