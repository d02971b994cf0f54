"""Counters of the machine itself: the memory that a call touches, and the joules that it takes.

Both need counters that not every machine shows. Memory: Linux marks the pages of a process that are
used. Energy: Intel and AMD processors count it (RAPL), and Linux lets root read that; NVIDIA's
driver does for its GPUs (NVML). Virtual machines seldom have either.
"""

import ctypes
import gc
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path

import torch

PROCESS = Path("/proc/self")
POWERCAP = Path("/sys/class/powercap")
_MAPPING = re.compile(r"([0-9a-f]+)-[0-9a-f]+ \S+ \S+ \S+ (\d+)")  # start; a file's number, or 0


def touched_bytes(call: Callable[[], object], process: Path = PROCESS) -> int | None:
    """Bytes that the second of two calls reads or writes of the memory that this process allocated.

    In whole pages, which Linux makes of 2 MiB in a process that has lived for long, and among them
    some of Python's own; files, and so code, are left out. None where pages are not marked.
    """
    call()  # compiles, allocates
    gc.collect()  # a collection during the second call would touch all of Python's objects
    try:
        (process / "clear_refs").write_text("1")
        call()
        return _referenced((process / "smaps").read_text())
    except OSError:
        return None


def _referenced(maps: str) -> int:
    """Bytes of marked pages that belong to no file; maps: /proc/PID/smaps.

    Linux writes the list piece by piece, as it is read. A mapping that grows in between, as the
    text's own memory does, may be in it twice, from the same start: its last entry counts.
    """
    kilobytes, start = {}, None
    for line in maps.splitlines():
        if mapping := _MAPPING.match(line):
            start = mapping[1] if mapping[2] == "0" else None
        elif start and line.startswith("Referenced:"):
            kilobytes[start] = int(line.split()[1])
    return 1024 * sum(kilobytes.values())


@dataclass(frozen=True)
class Meter:
    """A counter of joules that goes back to 0 after `span` of them."""

    name: str
    read: Callable[[], float]
    span: float = inf


def meters(device: str, powercap: Path = POWERCAP) -> list[Meter]:
    """Readable meters of energy on this machine: of processors and their memory, or of the GPU."""
    return _gpu() if device == "cuda" else _processors(powercap)


def _processors(powercap: Path) -> list[Meter]:
    found = []
    for folder in sorted(powercap.glob("intel-rapl:*")):  # AMD's are called so, too
        try:
            name = (folder / "name").read_text().strip()
            span = int((folder / "max_energy_range_uj").read_text()) / 1e6
            meter = Meter(f"RAPL {name}", _microjoules(folder / "energy_uj"), span)
            meter.read()
        except (OSError, ValueError):
            continue  # most often not ours to read
        if name.startswith(("package", "dram")):  # the others are parts of these, or hold them
            found.append(meter)
    return found


def _microjoules(file: Path) -> Callable[[], float]:
    return lambda: int(file.read_text()) / 1e6


def _gpu() -> list[Meter]:
    """Never run on a GPU so far."""
    handle, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
    try:
        driver = ctypes.CDLL("libnvidia-ml.so.1")
        total = driver.nvmlDeviceGetTotalEnergyConsumption
        failed = driver.nvmlInit_v2() or driver.nvmlDeviceGetHandleByIndex_v2(
            torch.cuda.current_device(), ctypes.byref(handle)
        )
        failed = failed or total(handle, ctypes.byref(millijoules))
    except (OSError, AttributeError):
        return []  # no driver, or an old one

    def joules() -> float:
        total(handle, ctypes.byref(millijoules))
        return millijoules.value / 1000

    return [] if failed else [Meter("NVML", joules)]


def joules_of(
    call: Callable[[], object], found: list[Meter], seconds: float, device: str
) -> float | None:
    """Joules of one call, from as many as fit into `seconds`; None without a meter.

    All that the processor or the GPU takes meanwhile is in it, what it takes idle too.
    """
    if not found:
        return None
    call()  # warm
    _finish(device)
    calls = 0
    before = [meter.read() for meter in found]
    started = time.perf_counter()
    while not calls or time.perf_counter() - started < seconds:
        call()
        calls += 1
    _finish(device)
    spent = [(m.read() - b) % m.span for m, b in zip(found, before, strict=True)]
    return sum(spent) / calls


def _finish(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
