"""The rules that every source notebook keeps, and a smoke run of each by the path make uses."""

import ast
import json
import os
import re
from pathlib import Path
from unittest.mock import patch

import nbformat
import pytest

from study import ROOT, claims, recipes, verdicts
from study.train import runs
from tools import pages, run_notebooks

NOTEBOOKS = run_notebooks.find()
LONGEST_CELL, LONGEST_FUNCTION = 25, 5

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: Path, kind: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == kind]


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def syntax(cell: nbformat.NotebookNode) -> ast.Module:
    return ast.parse(cell.source)


@every_notebook
def test_sources_are_stripped_and_their_cells_have_readable_ids(path):
    for cell in nbformat.read(path, 4).cells:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", cell.id)
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
        assert set(cell.metadata) <= {"tags", "alt"}


@every_notebook
def test_the_only_parameters_cell_comes_first_and_holds_literals(path):
    tagged = [i for i, cell in enumerate(cells(path, "code")) if "parameters" in tags(cell)]
    assert tagged == [0]
    cell = cells(path, "code")[0]
    for statement in syntax(cell).body:
        assert isinstance(statement, ast.Assign)
        ast.literal_eval(statement.value)
    for line in cell.source.splitlines():  # an = in the comment hides the parameter from papermill
        assert re.fullmatch(r"\w+ = [^=#]+  # [^=]+", line)


@every_notebook
def test_by_default_a_notebook_draws_the_committed_quick_runs(path):
    namespace: dict = {}
    exec(cells(path, "code")[0].source, namespace)
    assert (namespace["profile"], namespace["retrain"]) == ("quick", False)


@every_notebook
def test_no_name_is_a_parameter_that_the_notebook_has_not(path):
    with pytest.raises(ValueError, match="has no parameter 'sedes'"):
        run_notebooks.parameters(path, "smoke", True, {"sedes": 3})


@every_notebook
def test_cells_and_functions_are_short_and_there_is_no_class(path):
    for cell in cells(path, "code"):
        assert len(cell.source.splitlines()) <= LONGEST_CELL, cell.id
        for node in ast.walk(syntax(cell)):
            assert not isinstance(node, ast.ClassDef), cell.id
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < LONGEST_FUNCTION, cell.id


@every_notebook
def test_a_notebook_saves_a_figure_and_publishes_last_of_all(path):
    sources = [cell.source for cell in cells(path, "code")]
    code = "\n".join(sources)
    assert "report.save(" in code
    assert code.count("report.publish(") == 1
    assert any("report.publish(" in source for source in sources[-2:])
    assert f'report.start("{path.stem}", profile)' in code


@every_notebook
def test_every_figure_has_a_caption_right_after_it(path):
    number = int(path.stem[:2])
    for count, caption in enumerate(figure_captions(path), start=1):
        assert caption.startswith(f"**Figure {number}.{count}.**")


@every_notebook
def test_figures_are_as_wide_as_a_phone_can_show_and_have_no_smaller_text(path):
    code = "\n".join(cell.source for cell in cells(path, "code"))
    widths = re.findall(r"(?:fig)?size\b[^=\n]*= ?\(([\w.]+),", code)
    assert set(widths) <= {"figures.WIDTH"} and "x-small" not in code


@every_notebook
def test_a_caption_tells_and_asks_nothing(path):
    """What is seen stands above the caption, computed; readers are not sent to look for it."""
    asking = re.compile(r"\b(Look|Compare|Watch|whether|[Ii]f)\b|\?")
    assert not [caption for caption in figure_captions(path) if asking.search(caption)]


def figure_captions(path: Path) -> list[str]:
    """What follows each figure; between them there may be the finding."""
    every = nbformat.read(path, 4).cells
    shown = [cell for cell in every if not pages.FINDING.fullmatch(cell.source)]
    following = zip(shown, shown[1:], strict=False)
    return [after.source for cell, after in following if "report.save(" in cell.source]


@every_notebook
def test_claims_are_known_and_answered_by_the_notebook_that_they_name(path):
    code = "\n".join(cell.source for cell in cells(path, "code"))
    mine = [name for name, claim in claims.load().items() if claim.notebook == path.stem]
    for name in mine:
        known = name in recipes_answered() or not claims.load()[name].recipes
        assert not known or name in code or name.removeprefix("first_epoch_") in code, name


def recipes_answered() -> set[str]:
    """Claims whose recipes all exist."""
    existing = {recipe.name for recipe in recipes.RECIPES}
    return {name for name, claim in claims.load().items() if set(claim.recipes) <= existing}


@every_notebook
def test_a_number_of_the_paper_in_prose_is_the_one_in_claims_toml(path):
    """Numbers with a % in a title or a quotation."""
    known = {claim.printed for claim in claims.load().values()}
    for cell in cells(path, "markdown"):
        for line in cell.source.splitlines():
            if line.startswith(("# ", ">")):
                assert set(re.findall(r"([\d.]+) ?%", line)) <= known, line


@pytest.mark.parametrize("profile", recipes.PROFILES)
def test_the_parameter_file_of_a_profile_fits_the_notebooks(profile):
    run_notebooks.check_profile_file(profile)
    for path in NOTEBOOKS:
        assert run_notebooks.parameters(path, profile, False)["profile"] == profile


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """One folder for the run records of all smoke runs: what one has trained, the next finds."""
    return tmp_path_factory.mktemp("trained")


@every_notebook
def test_smoke_run(path, tmp_path, trained, monkeypatch):
    """Through the path that make uses: it trains, executes, publishes, and earns no verdict."""
    monkeypatch.setenv("BNN_RUNS", str(trained))  # the kernel inherits it
    metrics = execute(path, run_notebooks.parameters(path, "smoke", True), tmp_path)
    digests = {runs.read_record(record)["digest"] for record in trained.rglob("*-seed*.json")}
    shown = {run["digest"] for run in metrics["records"] if run["profile"] == "smoke"}
    assert shown <= digests
    earned = {claim["verdict"] for claim in metrics["claims"]}
    assert earned <= {verdicts.STAND_IN, verdicts.NOT_RUN, verdicts.OTHER_SETTINGS}


def without_a_run(path) -> set[str]:
    """A notebook's claims on recipes of which no run at evening or paper is committed."""
    folder = ROOT / "results" / "runs"
    run = {name.parent.name for name in [*folder.glob("*/evening"), *folder.glob("*/paper")]}
    mine = {name: each for name, each in claims.load().items() if each.notebook == path.stem}
    return {name for name, each in mine.items() if each.recipes and not run & set(each.recipes)}


PARTLY_RUN = ("04_mnist", "08_filters")  # of their runs some, not all, are there at evening


@pytest.mark.parametrize(
    "path",
    [path for path in NOTEBOOKS if without_a_run(path) or path.stem in PARTLY_RUN],
    ids=lambda path: path.stem,
)
def test_a_profile_with_few_runs_or_none_says_so_and_does_not_fail(path, tmp_path, monkeypatch):
    """At `evening` what takes training and has no committed run reads "not run".

    Of the page's parameters only `profile` and `retrain` are evening's: the others are smoke's.
    """
    monkeypatch.setenv("BNN_RUNS", str(tmp_path / "runs"))  # empty
    values = run_notebooks.parameters(path, "evening", False)
    small = run_notebooks.parameters(path, "smoke", False)
    short = {name: small[name] for name in small if not name.endswith("seeds")}
    metrics = execute(path, short | values, tmp_path)
    told = {claim["id"]: claim["verdict"] for claim in metrics["claims"]}
    missing = without_a_run(path) & told.keys()
    assert {told[name] for name in missing} <= {verdicts.NOT_RUN}


def execute(path: Path, values: dict, folder: Path) -> dict:
    """Execute a notebook into a folder of the test's own; -> its metrics."""
    output = folder / values["profile"] / path.name
    build = run_notebooks.BUILD / os.environ.get("PYTEST_XDIST_WORKER", "")  # a process's own
    with patch.object(run_notebooks, "BUILD", build):
        outcome = run_notebooks.execute(path, values, output, "make test", str(folder))
    assert outcome.error == ""
    return json.loads((output.parent / "metrics" / f"{path.stem}.json").read_text())
