"""Memory that is freed stays with the process while a network trains, and goes back then."""

import ctypes
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

from study import ROOT, recipes
from study.train import malloc, runner

# Prints the pages that the system had to give for a block of 100 MB, then within for one after an
# equal one, at least (on a busy machine it may take hundreds of pages back meanwhile, and give them
# anew), and the megabytes that the process holds of freed ones: within, at the end, and of one
# beneath another.
MEASURE = """
import resource
import torch
from study.train import malloc

def block():
    return torch.ones(100 * 2**18)

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def held():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() // 2**20

pages()
print(pages())
before = held()
with malloc.keep_freed_memory():
    pages()
    print(min(pages() for _ in range(20)), held() - before)
print(held() - before)
large, small = block(), torch.ones(2**10)
del large
print(held() - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_a_block_is_given_once_within_and_goes_back_at_the_end():
    done = subprocess.run(
        [sys.executable, "-c", MEASURE],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    fresh, pages, kept, left, freed_later = map(int, done.stdout.split())
    assert fresh >= 50  # of 2 MB, or many more of 4 kB
    assert pages < max(25, fresh / 20) and kept > 90
    assert left < 50 and freed_later < 50


def test_elsewhere_nothing_is_set(monkeypatch):
    monkeypatch.setattr(malloc.ctypes, "CDLL", lambda name: object())
    with malloc.keep_freed_memory():
        pass


def test_a_network_trains_within(monkeypatch, tmp_path):
    class Trained(Exception):
        pass

    told = []

    @contextmanager
    def kept():
        told.append("kept")
        try:
            yield
        finally:
            told.append("given back")

    def trained(*arguments):
        told.append("trained")
        raise Trained

    monkeypatch.setattr(runner.malloc, "keep_freed_memory", kept)
    monkeypatch.setattr(runner.loop, "fit", trained)
    monkeypatch.setattr(runner.runs, "FRESH", tmp_path)
    with pytest.raises(Trained):
        runner.run(recipes.at_profile(recipes.MNIST_THEANO, "smoke"), "smoke", 3)
    assert told == ["kept", "trained", "given back"]
