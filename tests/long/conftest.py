"""The frame of the long trials: `make test-long`, or `python -m tools.reliability [-k EXPRESSION]`.

- A module here is an ordinary pytest module `test_*.py`; plain `pytest` does not collect it.
- How often its trials are made is a constant at its top, such as `KILLS = 50`. Its short form is a
  test in tests/ with a small fixed sample; both share a plain module of tests/support/.
- A test is one family of trials. It asserts, and as its last act calls the fixture
  `report(what, tried, happened)` once: `report("SIGKILL while training", KILLS, "same numbers")`.
  `what` is the fault or the input, `happened` says what the test has just asserted, with counts
  where it has some; both are one line of plain words, without machine paths.
- tools/reliability.py makes docs/reliability.md of that after each test, with the commit and how
  long it took. A test that fails, is skipped or never calls `report` has a row that says so.
"""

import time
from pathlib import Path

import pytest
from faults import copy, numbers, reproduce, require_success


@pytest.fixture
def report(request):
    """Put a row into docs/reliability.md: report(what: str, tried: int, happened: str)."""

    def row(what: str, tried: int, happened: str) -> None:
        request.node.user_properties.append(("row", (what, tried, happened)))

    return row


class Undisturbed:
    """A smoke reproduction of every notebook that nothing befell."""

    def __init__(self, folder: Path):
        self.folder = copy(folder)
        began = time.monotonic()
        require_success(reproduce(folder))
        self.seconds = time.monotonic() - began
        self.numbers = numbers(folder)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    return Undisturbed(tmp_path_factory.mktemp("undisturbed") / "copy")
