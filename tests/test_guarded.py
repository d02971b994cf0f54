"""CPU kernels on a fixed sample of shapes, with guard pages; tests/long has 10,000."""

import pytest
import trials
from trials import Trials

pytest.importorskip("numba")
STRESSED = pytest.importorskip("stressed_kernels").STRESSED
SHAPES = 24  # of each kernel: both ends, both paths, one to three threads


def test_kernels_stay_in_their_memory_and_equal_the_reference(tmp_path):
    several = [Trials(name, stress, SHAPES, stress.told) for name, stress in STRESSED.items()]
    outcomes = trials.run(several, tmp_path, trials.COMPILING, confined=False)
    assert outcomes == {name: {"equal": SHAPES} for name in STRESSED}
