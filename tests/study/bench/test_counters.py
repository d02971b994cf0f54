"""Counters of memory and energy, made by hand; memory also as this machine counts it."""

import ctypes
import os
import subprocess
import sys

import pytest
import torch

from study import ROOT
from study.bench import counters
from study.bench.counters import Meter

MAPS = """7f00-7f10 rw-p 00000000 00:00 0
Rss:                  40 kB
Referenced:           12 kB
7f20-7f30 r-xp 00000000 fe:00 4711    /usr/lib/libtorch_cpu.so
Referenced:          900 kB
7f30-7f40 rw-p 00000000 00:00 0       [heap]
Referenced:            8 kB
"""


def test_touched_memory_is_that_of_no_file(tmp_path):
    (tmp_path / "smaps").write_text(MAPS)
    calls = []
    assert counters.touched_bytes(lambda: calls.append(0), tmp_path) == 20 * 1024
    assert (tmp_path / "clear_refs").read_text() == "1"
    assert len(calls) == 2


def test_a_mapping_that_grew_while_it_was_listed_counts_once(tmp_path):
    grown = "7f30-7f50 rw-p 00000000 00:00 0       [heap]\nReferenced:           16 kB\n"
    (tmp_path / "smaps").write_text(MAPS + grown)
    assert counters.touched_bytes(lambda: None, tmp_path) == 28 * 1024


def test_memory_is_not_counted_without_the_kernels_files(tmp_path):
    assert counters.touched_bytes(lambda: None, tmp_path / "missing") is None


# In a process of its own: one that has run a thousand tests has huge pages, and touches many
TOUCHED = """
import torch
from study.bench import counters
large, small = torch.zeros(2**23), torch.zeros(2**10)
print(counters.touched_bytes(small.sum), counters.touched_bytes(large.sum), large.nbytes)
"""


def test_a_call_touches_what_it_reads():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    told = subprocess.check_output([sys.executable, "-c", TOUCHED], env=environment, text=True)
    if told.startswith("None"):
        pytest.skip("this machine does not mark the pages that are used")
    few, much, size = map(int, told.split())
    assert few < size <= much < 2 * size


def domain(folder, number, name, microjoules, span=1000):
    made = folder / f"intel-rapl:{number}"
    made.mkdir()
    values = {"name": name, "energy_uj": microjoules, "max_energy_range_uj": span}
    for file, value in values.items():
        (made / file).write_text(f"{value}\n")
    return made


def test_processors_have_packages_and_memory(tmp_path):
    names = {"0": "package-0", "0:0": "core", "0:1": "dram", "1": "psys"}
    for number, name in names.items():
        domain(tmp_path, number, name, 2_500_000, 10_000_000)
    found = counters.meters("cpu", tmp_path)
    assert [meter.name for meter in found] == ["RAPL package-0", "RAPL dram"]
    assert [(meter.read(), meter.span) for meter in found] == [(2.5, 10.0)] * 2


def test_what_cannot_be_read_is_left_out(tmp_path):
    (domain(tmp_path, "0", "package-0", 1) / "energy_uj").unlink()
    assert counters.meters("cpu", tmp_path) == []
    assert counters.meters("cpu", tmp_path / "missing") == []


def test_joules_of_a_call_outlive_the_counters_end():
    state = {"joules": 7.0}

    def call():
        state["joules"] = (state["joules"] + 2) % 10

    meter = Meter("made by hand", lambda: state["joules"], span=10)
    assert counters.joules_of(call, [meter], 0, "cpu") == 2  # one call to warm up, one counted


def test_without_a_meter_nothing_is_called():
    assert counters.joules_of(lambda: pytest.fail("called"), [], 1, "cpu") is None


class Driver:
    """NVML, as far as it is asked."""

    def nvmlInit_v2(self):
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index, handle):
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle, millijoules):
        millijoules._obj.value = 1500
        return 0


def test_the_gpus_driver_counts_millijoules(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver())
    assert [meter.read() for meter in counters.meters("cuda")] == [1.5]


def test_no_driver_is_no_meter(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert counters.meters("cuda") == []
