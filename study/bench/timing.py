"""Several ways to the same result, timed in turn, and checked. Knows neither kernels nor networks.

All implementations are timed block by block, one after the other, again and again, so that all meet
the same moods of the machine.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

BLOCK_SECONDS = 0.02  # that a block of calls lasts, or a single call if that takes longer
FEWEST_BLOCKS = 3  # of an implementation
MOST_BLOCKS = 25
LONG_CALL = 5  # a first call that takes this many times an implementation's share is a block


@dataclass(frozen=True)
class Implementation:
    """One way to the result."""

    name: str
    output: str  # the type of its numbers
    call: Callable[[], object]
    threads: int
    packing: bool = False  # whether packing the activations is timed, too
    calls: int = 1  # how many times a call makes the result; what is told is the time of one

    def row(self, seconds: list[float], checks: dict) -> dict:
        """Its times in ms, and what the check found."""
        ms = [1000 * each / self.calls for each in seconds]
        p20, _, _, p80 = statistics.quantiles(ms * 2, n=5, method="inclusive")
        return {
            "implementation": self.name,
            "output": self.output,
            "packing": self.packing,
            "threads": self.threads,
            "ms": {"p20": p20, "p50": statistics.median(ms), "p80": p80},
            "repeats": len(ms),
            **({"calls": self.calls} if self.calls > 1 else {}),
            **checks,
        }


def compare(
    implementations: list[Implementation],
    check: Callable[[Implementation, object], dict],
    seconds: float,
    device: str,
) -> list[dict]:
    """A row for each implementation, its share of the time being so many seconds.

    `check` is given each implementation and its first result. A first call that takes long is a
    block itself; a short one only warms up.
    """
    threads = torch.get_num_threads()
    try:
        timings = [_Timing(each, check, seconds, device) for each in implementations]
        turns = max(timing.wanted for timing in timings)
        for turn in range(turns):
            for timing in timings:
                timing.take(turn, turns)
    finally:
        torch.set_num_threads(threads)
    return [timing.implementation.row(timing.seconds, timing.checks) for timing in timings]


class _Timing:
    """Times of one implementation so far: its first call, and the seconds of a call by block."""

    def __init__(
        self, implementation: Implementation, check: Callable, seconds: float, device: str
    ):
        self.implementation = implementation
        self.device = device
        torch.set_num_threads(implementation.threads)
        results: list = []
        self.first = seconds_of(lambda: results.append(implementation.call()), 1, device)
        self.checks = check(implementation, results.pop())
        self.seconds: list[float] = []
        if self.first >= LONG_CALL * seconds:
            self.seconds.append(self.first)
            self.calls = 1
            self.wanted = FEWEST_BLOCKS - 1
            return
        self.first = seconds_of(implementation.call, 1, device)  # warm
        block = min(BLOCK_SECONDS, seconds / FEWEST_BLOCKS)
        self.calls = max(1, round(block / self.first))
        fit = int(seconds / max(self.first, block))
        self.wanted = min(max(fit, FEWEST_BLOCKS), MOST_BLOCKS)

    def take(self, turn: int, turns: int) -> None:
        """A block, in so many of all turns as are wanted, evenly spread."""
        if (turn + 1) * self.wanted // turns == turn * self.wanted // turns:
            return
        torch.set_num_threads(self.implementation.threads)
        if self.first < BLOCK_SECONDS:
            self.implementation.call()  # takes back the caches from the others
        self.seconds.append(seconds_of(self.implementation.call, self.calls, self.device))


def seconds_of(call: Callable[[], object], calls: int, device: str) -> float:
    """Mean seconds per call over `calls` consecutive calls."""
    _finish(device)
    started = time.perf_counter()
    for _ in range(calls):
        call()
    _finish(device)
    return (time.perf_counter() - started) / calls


def _finish(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def milliseconds(rows: list[dict], what: str, *implementations: str) -> float | None:
    """The median of the fastest of these on all threads, packing excluded, as numbers, not bits."""
    found = [row for row in rows if row["what"] == what and row["output"] != "bits"]
    found = [r for r in found if r["implementation"] in implementations and not r["packing"]]
    every = max((row["threads"] for row in found), default=0)
    return min((row["ms"]["p50"] for row in found if row["threads"] == every), default=None)


def show(rows: list[dict]) -> None:
    """Print the rows of one shape, and how many times as long as our first each takes."""
    ours = {
        row["threads"]: row["ms"]["p50"]
        for row in reversed(rows)
        if row["implementation"] == "ours"
    }
    print(f"\n{rows[0]['what']}")
    for row in rows:
        ms, base = row["ms"], ours.get(row["threads"], next(iter(ours.values())))
        marks = {True: "exact", False: "not exact", None: ""}[row["exact"]]
        output = row["output"] + (", packing included" if row["packing"] else "")
        print(
            f"  {row['implementation']:34}{output:24}{row['threads']:2} threads "
            f"{ms['p50']:11.3f} ms ({ms['p20']:.3f} to {ms['p80']:.3f}, n = {row['repeats']})"
            f"{ms['p50'] / base:9.2f} x  {marks}",
            flush=True,
        )
