"""Committed run records that someone edited or mixed up, and the tests that must notice."""

import json
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import test_results
from faults import SEED

from study.train import runs

CHECKS = (
    test_results.test_a_record_is_intact_and_lies_where_its_content_says,
    test_results.test_a_record_is_of_a_named_recipe_on_real_data_from_committed_sources,
    test_results.test_the_epoch_that_was_selected_is_the_latest_best_one,
)


def edited(path: Path) -> None:
    """The first digit of one number is another; the last one of a float may not change it."""
    text = path.read_text()
    places = [found.end() - 1 for found in re.finditer(r": -?\d", text)]
    place = random.Random(f"{SEED} {path}").choice(places)
    digit = (int(text[place]) + 1) % 10
    path.write_text(f"{text[:place]}{digit}{text[place + 1 :]}")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def sealed_again(path: Path, **changed) -> None:
    """As one would who knows how a digest is made."""
    record = json.loads(path.read_bytes())
    runs.write_record(path, record | changed)


def bettered(path: Path) -> None:
    sealed_again(path, test_error=json.loads(path.read_bytes())["test_error"] - 0.5)


def of_other_sources(path: Path) -> None:
    provenance = json.loads(path.read_bytes())["provenance"]
    sealed_again(path, provenance=provenance | {"sources": "0" * 64})


def of_a_stand_in(path: Path) -> None:
    provenance = json.loads(path.read_bytes())["provenance"]
    sealed_again(path, provenance=provenance | {"stand_in": True})


def of_another_recipe(path: Path) -> None:
    """Its numbers under the name of a recipe that did not make them."""
    recipe = json.loads(path.read_bytes())["recipe"]
    sealed_again(path, recipe=recipe | {"batch_size": recipe["batch_size"] + 1})


def of_another_seed(path: Path) -> None:
    """Another run's record in its place."""
    record = json.loads(path.read_bytes())
    sealed_again(path, seed=record["seed"] + 1)


def of_another_place(path: Path) -> None:
    """An intact record of another recipe in its place."""
    others = sorted(path.parents[2].glob("*/*/*.json"))
    other = next(p for p in others if p.parent.parent != path.parent.parent)
    shutil.copy(other, path)


WAYS: tuple[Callable[[Path], None], ...] = (
    *(edited, cut, bettered, of_other_sources, of_a_stand_in),
    *(of_another_recipe, of_another_seed, of_another_place),
)


def noticed(path: Path, patch: pytest.MonkeyPatch) -> bool:
    """Whether a test of what is committed fails, of those that look at this record."""
    results = path.parents[3]
    patch.setattr(test_results, "RESULTS", results)
    patch.setattr(test_results, "RECORDS", sorted((results / "runs").glob("*/*/*.json")))
    pages = [page for page in test_results.METRICS if named_by(page, path)]
    checks = [(check, path) for check in CHECKS]
    checks += [(test_results.test_a_page_states_what_its_records_give, page) for page in pages]
    return any(fails(check, on) for check, on in checks)


def named_by(page: Path, path: Path) -> bool:
    recipe, profile, file = path.parts[-3:]
    return any(
        (run["recipe"], run["profile"], f"{run['device']}-seed{run['seed']}.json")
        == (recipe, profile, file)
        for run in json.loads(page.read_bytes())["records"]
    )


def fails(check: Callable[[Path], None], path: Path) -> bool:
    try:
        check(path)
    except (AssertionError, ValueError, KeyError):
        return True
    return False


def tampered(path: Path) -> Iterator[Callable[[Path], None]]:
    """The record in each way's hands, one after another; as it was in the end."""
    content = path.read_bytes()
    for way in WAYS:
        way(path)
        yield way
        path.write_bytes(content)
