"""Every reader on a fixed sample of bad input; tests/long has 100,000 of each."""

import json
import pickle
from unittest.mock import patch

import fuzzed_data
import fuzzed_files
import numpy as np
import pytest
import trials
from fuzzing import put, trials_of
from mutations import pickles

from study.data import store
from tools import reproduce

CASES = 100  # random ones of each reader, behind the known traps
READERS = (*fuzzed_data.READERS, *fuzzed_files.READERS)


def test_bad_input_is_refused_in_a_sentence_or_read_as_it_was(tmp_path):
    several = trials_of("fuzzed_data", fuzzed_data.READERS, CASES)
    several += trials_of("fuzzed_files", fuzzed_files.READERS, CASES)
    outcomes = trials.run(several, tmp_path)
    for each in several:
        found = outcomes[each.name]
        assert sum(found.values()) == each.count
        assert found.total() > found["read"], f"{each.name}: nothing was refused"


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_a_case_is_the_same_each_time_it_is_made(reader):
    numbers = range(len(reader.traps), len(reader.traps) + 20)
    assert [reader.case(n) for n in numbers] == [reader.case(n) for n in numbers]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_a_pickle_is_refused_and_not_loaded(reader, tmp_path):
    folder, marker = tmp_path / "files", tmp_path / "unpickled"
    put(folder, reader.files)
    for content in pickles(str(marker)):
        file = next(iter(reader.files))
        put(folder, {file: content})
        try:
            assert reader.read(folder) is not None, "it was read"  # what goes on without it says so
        except reader.refusals:
            pass
        assert not marker.exists()


def test_the_pickles_would_run(tmp_path):
    plain, *_ = pickles(str(tmp_path / "unpickled"))
    pickle.loads(plain)
    assert (tmp_path / "unpickled").exists()


# What the trials had found, each by itself


def test_no_hash_is_no_hash_that_fits(tmp_path):
    put(tmp_path, fuzzed_data.CACHED)
    put(tmp_path, {"svhn-no-extra/sha256.json": json.dumps(dict.fromkeys(store.KEYS)).encode()})
    labels = np.load(tmp_path / "svhn-no-extra/train_labels.npy")
    np.save(tmp_path / "svhn-no-extra/train_labels.npy", labels[::-1])
    with patch.multiple(store, SIZES=fuzzed_data.PATCH["store"]["SIZES"]):
        with pytest.raises(ValueError, match="train_images.npy is altered"):
            store.read("svhn-no-extra", tmp_path)


@pytest.mark.parametrize("value", ["[1", "*a", "!!python/object/apply:os.getcwd []", "2001-13-45"])
def test_a_parameter_on_the_command_line_that_is_no_yaml_is_named(value, capsys):
    assert reproduce.main(["reproduce", "--only", "04", "-p", "seeds", value]) == 1
    assert capsys.readouterr().err.startswith("seeds is no plain YAML: ")
