"""Several ways to the same result, timed in turn, and checked. Knows neither kernels nor networks.

All sides are timed block by block, one after the other, again and again, so that all meet the same
moods of the machine.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

BLOCK = 0.02  # seconds that a block of calls lasts, or a single call if that takes longer
FEWEST, MOST = 3, 25  # blocks of a side
LONG = 5  # a first call that takes so many times a side's share is itself the first block


@dataclass(frozen=True)
class Side:
    """One way to the result."""

    implementation: str
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
            "implementation": self.implementation,
            "output": self.output,
            "packing": self.packing,
            "threads": self.threads,
            "ms": {"p20": p20, "p50": statistics.median(ms), "p80": p80},
            "repeats": len(ms),
            **({"calls": self.calls} if self.calls > 1 else {}),
            **checks,
        }


def compare(
    sides: list[Side], check: Callable[[Side, object], dict], seconds: float, device: str
) -> list[dict]:
    """A row for each side, its share of the time being so many seconds.

    `check` is given a side's first result. A first call that takes long is a block itself;
    a short one only warms up.
    """
    threads = torch.get_num_threads()
    try:
        timings = [_Timing(side, check, seconds, device) for side in sides]
        turns = max(timing.wanted for timing in timings)
        for turn in range(turns):
            for timing in timings:
                timing.take(turn, turns)
    finally:
        torch.set_num_threads(threads)
    return [timing.side.row(timing.seconds, timing.checks) for timing in timings]


class _Timing:
    """What is known of a side: its checks, its first call, and the seconds of a call by block."""

    def __init__(self, side: Side, check: Callable, seconds: float, device: str):
        self.side, self.device = side, device
        torch.set_num_threads(side.threads)
        results: list = []
        self.first = seconds_of(lambda: results.append(side.call()), 1, device)
        self.checks = check(side, results.pop())
        self.seconds: list[float] = []
        if self.first >= LONG * seconds:
            self.seconds, self.calls, self.wanted = [self.first], 1, FEWEST - 1
            return
        self.first = seconds_of(side.call, 1, device)  # warm
        block = min(BLOCK, seconds / FEWEST)
        self.calls = max(1, round(block / self.first))
        fit = int(seconds / max(self.first, block))
        self.wanted = min(max(fit, FEWEST), MOST)

    def take(self, turn: int, turns: int) -> None:
        """A block, in so many of all turns as are wanted, evenly spread."""
        if (turn + 1) * self.wanted // turns == turn * self.wanted // turns:
            return
        torch.set_num_threads(self.side.threads)
        if self.first < BLOCK:
            self.side.call()  # takes back the caches from the other sides
        self.seconds.append(seconds_of(self.side.call, self.calls, self.device))


def seconds_of(call: Callable[[], object], calls: int, device: str) -> float:
    """Of one of so many calls in a row."""
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
    own = [row for row in rows if row["what"] == what and row["output"] != "bits"]
    own = [row for row in own if row["implementation"] in implementations and not row["packing"]]
    every = max((row["threads"] for row in own), default=0)
    return min((row["ms"]["p50"] for row in own if row["threads"] == every), default=None)


def show(rows: list[dict]) -> None:
    """Print the rows of one shape, and how many times as long as our first each takes."""
    own = {
        row["threads"]: row["ms"]["p50"]
        for row in reversed(rows)
        if row["implementation"] == "ours"
    }
    print(f"\n{rows[0]['what']}")
    for row in rows:
        ms, base = row["ms"], own.get(row["threads"], next(iter(own.values())))
        marks = {True: "exact", False: "not exact", None: ""}[row["exact"]]
        output = row["output"] + (", packing included" if row["packing"] else "")
        print(
            f"  {row['implementation']:34}{output:24}{row['threads']:2} threads "
            f"{ms['p50']:11.3f} ms ({ms['p20']:.3f} to {ms['p80']:.3f}, n = {row['repeats']})"
            f"{ms['p50'] / base:9.2f} x  {marks}",
            flush=True,
        )
