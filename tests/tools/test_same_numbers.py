"""Sources that make the same numbers are told from those that do not."""

import shutil

import pytest

from study import ROOT
from study.train import provenance, runs
from tools import same_numbers

NAMES = ["gradients-baseline"]


@pytest.fixture(scope="module")
def now():
    return same_numbers.fingerprints(ROOT, [*NAMES, "made-later"])


def changed(folder, *changes: tuple[str, str, str]):
    """A copy of the code with changes: (module, old text, new text)."""
    shutil.copytree(ROOT / "study", folder / "study")
    shutil.copytree(ROOT / "bnnlib", folder / "bnnlib")
    for name, old, new in changes:
        module = folder / name
        source = module.read_text()
        assert source.count(old) == 1
        module.write_text(source.replace(old, new))
    return folder


def test_a_recipe_that_a_checkout_does_not_know_is_left_out(now):
    assert now.keys() == {"sources", *NAMES}


ALPHA = "bnnlib/normalization.py", "ALPHA = 0.1"
SIZES = "study/recipes/profiles.py", 'EVENING_GRADIENTS = {"epochs": 8'


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ([(*ALPHA, "ALPHA = 0.2 / 2"), (*SIZES, f'{SIZES[1]}, "hidden": (64,)')], []),
        ([(*ALPHA, "ALPHA = 0.1000001")], NAMES),
    ],
    ids=["other words, and another profile's sizes", "another constant"],
)
def test_other_numbers_are_found_and_other_sources_alone_are_none(now, tmp_path, changes, found):
    before = same_numbers.fingerprints(changed(tmp_path, *changes), NAMES)
    assert before.keys() == now.keys()
    assert before.pop("sources") != now["sources"] == provenance.source_hash()
    assert same_numbers.different(before, {name: now[name] for name in NAMES}) == found


def test_recipes_that_came_later_are_no_difference(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runs, "SAME", tmp_path / "same_numbers.json")
    monkeypatch.setattr(
        same_numbers, "fingerprints", lambda *_: {"sources": "now", "a": "1", "later": "2"}
    )
    monkeypatch.setattr(same_numbers, "of_commit", lambda *_: {"sources": "old", "a": "1"})
    assert same_numbers.main(["0123456"]) == 0
    assert capsys.readouterr().out.startswith("1 recipes make the numbers of 0123456")


def test_what_one_side_lacks_differs():
    assert same_numbers.different({"a": "1", "b": "2"}, {"a": "1", "c": "3"}) == ["b", "c"]


def test_the_file_keeps_what_leads_to_the_present_sources_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "SAME", tmp_path / "same_numbers.json")
    assert runs.same_numbers() == []
    entered = [("old", "new"), ("older", "new"), ("old", "new"), ("new", "newest"), ("lone", "end")]
    kept = [
        {("old", "new")},
        {("old", "new"), ("older", "new")},
        {("old", "new"), ("older", "new")},
        {("old", "new"), ("older", "new"), ("new", "newest")},
        {("lone", "end")},
    ]
    for (before, now), expected in zip(entered, kept, strict=True):
        same_numbers.enter(before, now, "0123456", 3)
        assert {(pair["before"], pair["now"]) for pair in runs.same_numbers()} == expected
    text = runs.SAME.read_text()
    runs.SAME.write_text(text.replace("lone", "latest"))
    with pytest.raises(ValueError, match="digest"):
        runs.same_numbers()


def test_sources_taken_back_are_the_present_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "SAME", tmp_path / "same_numbers.json")
    same_numbers.enter("old", "new", "0123456", 3)
    same_numbers.enter("new", "old", "789abcd", 3)
    assert [pair["before"] for pair in runs.same_numbers()] == ["new"]


def test_numbers_are_alike_by_way_of_others():
    pairs = [{"before": "a", "now": "b"}, {"before": "b", "now": "c"}, {"before": "d", "now": "e"}]
    assert runs.made_alike("c", pairs) == {"a", "b", "c"}
    assert runs.made_alike("b", pairs) == {"a", "b"}


def test_each_commit_is_told_apart(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runs, "SAME", tmp_path / "same_numbers.json")
    monkeypatch.setattr(same_numbers, "fingerprints", lambda *_: {"sources": "now", "a": "1"})
    made = {"0123456": {"sources": "old", "a": "1"}, "789abcd": {"sources": "other", "a": "2"}}
    monkeypatch.setattr(same_numbers, "of_commit", lambda commit, names: dict(made[commit]))
    assert same_numbers.main(["789abcd", "0123456"]) == 1
    assert [pair["before"] for pair in runs.same_numbers()] == ["old"]
    assert "789abcd: other numbers: a" in capsys.readouterr().err
    assert same_numbers.main(["0123456"]) == 0
