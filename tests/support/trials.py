"""Numbered trials in a process of their own: it must not crash, stall, bloat or leave its folder.

A trial is a function (number, folder) -> what happened, in a word; the same number does the same.
Number 0 tries what is right: it runs before anything is forbidden, so that all is imported.
"""

import faulthandler
import json
import multiprocessing
import os
import resource
import signal
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

BUSY, WAITING = 10, 600  # seconds that a trial may compute, and take on a machine with other work
COMPILING = 300  # seconds that a trial may compute which may have to compile a kernel
ROOM = (
    3 * 2**26
)  # bytes of memory beside what there was at first: LZMA alone takes half to compress
SHOWN = 10  # failures, after which there is no more to be tried
STARTS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.spawn"}
STARTS |= {"pickle.find_class", "socket.connect", "socket.bind", "webbrowser.open", "pty.spawn"}
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
CHANGES |= {"os.chmod", "os.chown", "os.utime", "os.setxattr"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True)
class Trials:
    """What is tried, how, and how often: `count` numbers from `first` on, of which a failed one is
    `told`."""

    name: str
    trial: Callable[[int, Path], str]
    count: int
    told: Callable[[int], object] = int
    first: int = 1

    def parts(self, most: int) -> list["Trials"]:
        """The same, cut into parts of at most so many."""
        starts = range(0, self.count, most)
        counts = [min(most, self.count - start) for start in starts]
        pairs = zip(starts, counts, strict=True)
        return [replace(self, first=self.first + start, count=count) for start, count in pairs]


def run(
    several: list[Trials], folder: Path, busy: float = BUSY, confined: bool = True
) -> dict[str, Counter]:
    """-> by name, how often each outcome came. Fails with the first trials that went wrong.

    confined: memory and what the process may do are limited; without, it may compile kernels.
    """
    spawn = multiprocessing.get_context("spawn")
    child = spawn.Process(target=_child, args=(several, folder, busy, confined), daemon=True)
    child.start()
    child.join()
    if child.exitcode != 0:
        how = signal.Signals(-child.exitcode).name if child.exitcode < 0 else child.exitcode
        place, number = json.loads((folder / "now").read_text())
        which = f"{several[place].name}: {several[place].told(number)}"
        pytest.fail(f"{which} ended its process: {how}")
    outcomes, failures = json.loads((folder / "outcomes").read_text())
    if failures:
        pytest.fail("\n".join([f"at least {len(failures)} went wrong", *failures]))
    return {name: Counter(found) for name, found in outcomes.items()}


def told(outcomes: Counter) -> str:
    """Outcomes as a row of docs/reliability.md tells them."""
    return ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.most_common())


def _child(several: list[Trials], folder: Path, busy: float, confined: bool) -> None:
    sys.stdout = open(os.devnull, "w")
    warnings.simplefilter("ignore")
    faulthandler.enable()
    for limit in (signal.SIGPROF, signal.SIGALRM):
        faulthandler.register(limit, chain=True)  # tells where it hangs; then it is killed
    folders = [folder / str(place) for place in range(len(several))]
    now = os.open(folder / "now", os.O_WRONLY | os.O_CREAT)
    for place, (each, own) in enumerate(zip(several, folders, strict=True)):
        own.mkdir()
        os.pwrite(now, f"[{place}, 0]".ljust(30).encode(), 0)
        each.trial(0, own)
    crossed = _confine(folder) if confined else []
    outcomes, failures = {each.name: Counter() for each in several}, []
    for place, (each, own) in enumerate(zip(several, folders, strict=True)):
        for number in range(each.first, each.first + each.count):
            os.pwrite(now, f"[{place}, {number}]".ljust(30).encode(), 0)
            signal.setitimer(signal.ITIMER_PROF, busy)
            signal.alarm(WAITING)
            try:
                outcomes[each.name][each.trial(number, own)] += 1
            except Exception:
                failures.append(f"{each.name}: {each.told(number)}: {traceback.format_exc(-3)}")
            if crossed:
                failures.append(f"{each.name}: {each.told(number)}: {'; '.join(crossed)}")
                crossed.clear()
            if len(failures) >= SHOWN:
                break
    (folder / "outcomes").write_text(json.dumps((outcomes, failures)))


def _confine(folder: Path) -> list[str]:
    """Watch this process for the rest of its life. -> what it does that is forbidden, as it does"""
    _limit_memory()
    inside, crossed = os.path.realpath(folder) + os.sep, []

    def outside(path) -> bool:
        return not os.path.realpath(os.fsdecode(path)).startswith(inside)

    def hook(event: str, arguments: tuple) -> None:
        if event in STARTS:
            crossed.append(f"{event} {arguments}")
        elif event == "open" and arguments[2] & WRITES:
            if not isinstance(arguments[0], int) and outside(arguments[0]):
                crossed.append(f"opened {arguments[0]!r} for writing")
        elif event in CHANGES and any(
            outside(path) for path in arguments[:2] if isinstance(path, str | bytes)
        ):
            crossed.append(f"{event} {arguments}")

    sys.addaudithook(hook)
    return crossed


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
