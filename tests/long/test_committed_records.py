"""Every committed run record, edited or mixed up in every way that `tampering` knows."""

import shutil

from tampering import WAYS, noticed, tampered
from test_results import RECORDS, RESULTS


def test_tampering(tmp_path, monkeypatch, report):
    results = tmp_path / "results"
    shutil.copytree(RESULTS / "runs", results / "runs")
    for path in RECORDS:
        record = results / path.relative_to(RESULTS)
        assert not noticed(record, monkeypatch)
        for way in tampered(record):
            assert noticed(record, monkeypatch), (record.relative_to(results), way.__name__)
    ways = ", ".join(way.__name__.replace("_", " ") for way in WAYS)
    report(
        f"Each committed run record: {ways}",
        len(RECORDS) * len(WAYS),
        "a test of `make test` fails each time",
    )
