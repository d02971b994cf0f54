"""What the benchmark of the C file compares before it times."""

import shutil

import pytest
import torch

from benchmarks import bench_export, bench_page
from bnnlib import packed
from bnnlib.export.network import convert
from bnnlib.layers import Normalization
from tests.support.random_networks import images, random_network


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
def test_a_library_is_compared_image_by_image(tmp_path):
    network = random_network("mlp", (70, 130), Normalization.EXACT)
    library = bench_export.Library(convert(network, "n"), ["-O2"], tmp_path)
    bits, pixels = packed.pack(network), images(network, 5)
    assert bench_export.differing(library, bits, pixels) == 0
    assert torch.equal(library(pixels[:1]), bits(pixels[:1]))
    other = packed.pack(random_network("mlp", (70, 130), Normalization.SHIFT_CODED))
    assert bench_export.differing(library, other, pixels) == 5


def test_a_page_s_times_are_summed_up_by_rank():
    ms = bench_page.summary([float(n) for n in range(1, 101)])
    assert (ms["p50"], ms["most"]) == (50.5, 100.0) and 95 <= ms["p95"] <= 96
