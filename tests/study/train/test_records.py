"""An edited or mixed-up run record fails the tests of what is committed."""

import shutil

import pytest
import test_results
from tampering import fails, noticed, tampered
from test_results import METRICS, RECORDS, RESULTS

from bnnlib import network_file
from study.train import runs

SAMPLE = RECORDS[::80]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "results"
    shutil.copytree(RESULTS / "runs", folder / "runs")
    return folder


@pytest.mark.parametrize("path", SAMPLE, ids=lambda p: p.relative_to(RESULTS / "runs").as_posix())
def test_tampering_is_noticed(path, results, monkeypatch):
    record = results / path.relative_to(RESULTS)
    assert not noticed(record, monkeypatch)
    assert [way.__name__ for way in tampered(record) if not noticed(record, monkeypatch)] == []


def test_a_page_that_names_a_missing_record_is_noticed(monkeypatch):
    check = test_results.test_a_page_states_what_its_records_give
    named = [page for page in METRICS if '"digest"' in page.read_text()]
    assert named and not fails(check, named[0])
    monkeypatch.setattr(test_results, "RECORDS", [])
    assert all(fails(check, page) for page in named)


def test_a_path_may_be_a_string(tmp_path):
    record = {"schema": runs.SCHEMA}
    runs.write_record(str(tmp_path / "record.json"), record)
    assert runs.read_record(str(tmp_path / "record.json"))["schema"] == runs.SCHEMA
    (tmp_path / "broken").write_text("no network")
    readers = {"run record": runs.read_record, "network file": network_file.load_network}
    for kind, read in readers.items():
        with pytest.raises(ValueError, match=f"broken .*is no intact {kind}"):
            read(str(tmp_path / "broken"))
