"""Every reader on much bad input: refused in a sentence, or read right."""

import fuzzed_data
import fuzzed_files
import pytest
import trials
from fuzzing import trials_of

CASES = 100_000  # of each, behind the known traps
EACH = trials_of("fuzzed_data", fuzzed_data.READERS, CASES)
EACH += trials_of("fuzzed_files", fuzzed_files.READERS, CASES)


@pytest.mark.parametrize("one", EACH, ids=lambda one: one.name)
def test_bad_input(one, report, tmp_path):
    found = trials.run([one], tmp_path)[one.name]
    assert found.total() == one.count > found["read"]
    report(f"bad input: {one.name}", one.count, trials.told(found))
