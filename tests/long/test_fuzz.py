"""Every reader on much bad input: refused in a sentence, or read right."""

from collections import Counter

import fuzzed_data
import fuzzed_files
import pytest
import trials
from fuzzing import trials_of

CASES = 100_000  # of each, behind the known traps
# In one process: safetensors 0.8 keeps 64 bytes for each tensor that it ever read from a file, and
# a process of trials may take little memory.
AT_ONCE = 10_000
EACH = trials_of("fuzzed_data", fuzzed_data.READERS, CASES)
EACH += trials_of("fuzzed_files", fuzzed_files.READERS, CASES)


@pytest.mark.parametrize("one", EACH, ids=lambda one: one.name)
def test_bad_input(one, report, tmp_path):
    found = Counter()
    for part in one.parts(AT_ONCE):
        folder = tmp_path / str(part.first)
        folder.mkdir()
        found += trials.run([part], folder)[one.name]
    assert found.total() == one.count > found["read"]
    report(f"bad input: {one.name}", one.count, trials.told(found))
