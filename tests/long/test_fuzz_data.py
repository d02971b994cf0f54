"""Every reader of the data sets on much bad input: refused in a sentence, or read right."""

import pytest
import trials
from fuzzed_data import READERS
from fuzzing import trials_of

CASES = 100_000  # of each, behind the known traps


@pytest.mark.parametrize("place", range(len(READERS)), ids=[reader.name for reader in READERS])
def test_bad_input(place, report, tmp_path):
    (one,) = trials_of("fuzzed_data", READERS, CASES)[place : place + 1]
    found = trials.run([one], tmp_path)[one.name]
    assert found.total() == one.count > found["read"]
    report(f"bad input: {one.name}", one.count, trials.told(found))
