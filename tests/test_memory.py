"""Memory that is freed stays with the process while a network trains, and goes back then."""

import ctypes
import subprocess
import sys

import pytest

from bnnlib import memory, recipes, train

# Prints how many pages the system had to give for the second of two equal blocks, within and after,
# and the megabytes that the process still holds of a large block freed within.
MEASURE = """
import resource
import torch
from bnnlib import memory

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(100 * 2**18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def held():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() // 2**20

pages()
before = held()
with memory.kept():
    pages()
    print(pages(), held() - before)
pages()
print(pages(), held() - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_a_block_is_given_once_within_and_goes_back_afterwards():
    command = [sys.executable, "-c", MEASURE]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (within, kept), (after, left) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert within < 10 and kept > 90
    assert after >= 50 and left < 50  # a page has at most 2 MB


def test_elsewhere_nothing_is_set(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    with memory.kept():
        pass


def test_training_keeps_it(monkeypatch, tmp_path):
    class Entered(Exception):
        pass

    def enter():
        raise Entered

    monkeypatch.setattr(train.memory, "kept", enter)
    monkeypatch.setattr(train.runs, "FRESH", tmp_path)
    with pytest.raises(Entered):
        train.run(recipes.at_profile(recipes.MNIST_THEANO, "smoke"), "smoke", 3)
