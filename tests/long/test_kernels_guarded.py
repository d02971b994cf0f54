"""CPU kernels on many shapes, with guard pages at all their buffers; alone, and all at once."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import trials
from stressed_kernels import STRESSED
from trials import Trials

SHAPES = 10_000  # of each kernel
AT_ONCE = 200  # of each kernel, in each of the processes
PROCESSES, PYTHON_THREADS = 4, 3


@pytest.mark.parametrize("name", STRESSED)
def test_random_shapes(name, report, tmp_path):
    one = Trials(name, STRESSED[name], SHAPES, STRESSED[name].told)
    found = trials.run([one], tmp_path, trials.COMPILING, confined=False)
    assert found == {name: {"equal": SHAPES}}
    report(
        f"guard pages: {name}, random shapes, 1 to 3 threads",
        SHAPES,
        "all stay in their memory and equal the reference, whatever the number of threads",
    )


def test_processes_and_threads_at_once(report, tmp_path):
    """Each process has Python threads that call the kernels, which have threads of their own."""
    crowds = {name: replace(each, together=PYTHON_THREADS) for name, each in STRESSED.items()}
    several = [Trials(name, each, AT_ONCE, each.told) for name, each in crowds.items()]
    folders = [tmp_path / str(number) for number in range(PROCESSES)]
    for folder in folders:
        folder.mkdir()
    with ThreadPoolExecutor(PROCESSES) as pool:
        limits = {"busy": trials.COMPILING, "confined": False}
        calls = [pool.submit(trials.run, several, folder, **limits) for folder in folders]
        found = [call.result() for call in calls]
    assert found == [{name: {"equal": AT_ONCE} for name in STRESSED}] * PROCESSES
    report(
        f"{PROCESSES} spawned processes at once, each with {PYTHON_THREADS} Python threads in "
        f"every kernel, on {os.cpu_count()} processors",
        PROCESSES * PYTHON_THREADS * AT_ONCE * len(STRESSED),
        "all end, and equal the reference",
    )
