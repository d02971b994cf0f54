"""The document of the long trials says of each what happened, and of none what did not."""

from tools import reliability

pytest_plugins = ("pytester",)
CONFTEST = "from tests.long.conftest import report"
TRIALS = """
import pytest

def test_good(report):
    report("a|b", 10_000, "fine")

def test_bad(report):
    report("it", 3, "fine")
    assert 1 == 2, "seven of them"

def test_worse(report):
    raise ValueError("before it could report")

def test_skipped(report):
    pytest.skip("no tmpfs here")

def test_silent():
    pass

def test_left_out(report):
    report("it", 1, "fine")
"""


def test_every_trial_has_a_row_and_a_failed_one_says_so(pytester, tmp_path):
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_tried=TRIALS, test_broken="import no_such_module")
    recorder = reliability.Recorder(tmp_path / "docs" / "reliability.md")
    arguments = ("--continue-on-collection-errors", "-k", "not left_out")
    pytester.inline_run(*arguments, plugins=[recorder])
    text = recorder.document.read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][1:]
    found = {row[-1].split("`")[1].partition("::")[2]: [row[0][2:], *row[1:3]] for row in rows}
    assert found == {
        "test_good": ["a\\|b", "10,000", "fine"],
        "test_bad": ["it", "3", "**FAILED**: AssertionError: seven of them"],
        "test_worse": ["worse", "–", "**FAILED**: ValueError: before it could report"],
        "test_skipped": ["skipped", "–", "skipped: no tmpfs here"],
        "test_silent": ["silent", "–", "**FAILED**: 0 rows were reported, not 1"],
        "test_left_out": ["left_out", "–", "not run"],
        "": ["test_broken.py", "–", found[""][2]],
    }
    assert found[""][2].startswith("**FAILED**") and "no_such_module" in found[""][2]
    assert recorder.failed() == 4
    assert "7 kinds of trial, 4 failed, 1 not run" in text


def test_a_call_keeps_what_an_earlier_one_found_but_not_on_another_machine(
    pytester, tmp_path, monkeypatch
):
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_tried=TRIALS)
    document = tmp_path / "reliability.md"

    def rows_after(expression: str) -> list[str]:
        pytester.inline_run("-k", expression, plugins=[reliability.Recorder(document)])
        return [line for line in document.read_text().splitlines() if line.endswith("` |")]

    first, second = rows_after("good or bad"), rows_after("silent or bad")
    assert second[:4] == first[:4] and second[5] == first[5]  # one of them is good, one has failed
    assert "not run" in first[4] and "0 rows were reported" in second[4]
    monkeypatch.setattr(reliability, "machine", lambda: "another machine")
    third = rows_after("left_out")
    assert all("not run" in row for row in third[:5]) and "fine" in third[5]


def test_plain_pytest_leaves_the_long_trials_alone(pytestconfig):
    assert "tests/long" in pytestconfig.getini("norecursedirs")
