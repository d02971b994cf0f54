"""What is committed under results/ is whole, follows from the sources and says where it is from."""

import json
import re
import subprocess

import pytest

from bnnlib import ROOT, claims, data, models, recipes, runs, train
from tools import site, summary

RESULTS = ROOT / "results"
RECORDS = sorted((RESULTS / "runs").glob("*/*/*.json"))
METRICS = sorted(RESULTS.glob("[!l]*/metrics/*.json"))
NETWORKS = sorted((RESULTS / "models").glob("*.safetensors"))
MOST_BYTES = 30 * 2**20

every_record = pytest.mark.parametrize(
    "path", RECORDS, ids=lambda p: p.relative_to(RESULTS / "runs").as_posix()
)
every_page = pytest.mark.parametrize(
    "path", METRICS, ids=lambda p: p.relative_to(RESULTS).as_posix()
)


def test_there_are_results():
    assert RECORDS
    assert METRICS


@every_record
def test_a_record_is_intact_and_lies_where_its_content_says(path):
    record = runs.read_record(path)
    place = (record["recipe"]["name"], record["profile"], record["provenance"]["device"])
    assert place == (*path.parts[-3:-1], path.stem.split("-seed")[0])
    assert path.stem.endswith(f"-seed{record['seed']}")


@every_record
def test_a_record_is_of_a_named_recipe_on_real_data_from_committed_sources(path):
    record = runs.read_record(path)
    named = recipes.at_profile(recipes.by_name(record["recipe"]["name"]), record["profile"])
    assert record["recipe"] == json.loads(runs.canonical(vars(named)))
    assert not record["provenance"]["stand_in"]
    assert not record["provenance"]["dirty"]
    assert len(record["history"]) == named.epochs


@every_record
def test_the_epoch_that_was_selected_is_the_latest_best_one(path):
    record = runs.read_record(path)
    errors = [epoch["validation_error"] for epoch in record["history"]]
    latest_best = max(i for i, error in enumerate(errors, start=1) if error == min(errors))
    assert record["best_epoch"] == latest_best


@every_page
def test_a_page_states_what_its_records_give(path):
    """Values, verdicts and the records behind them, computed again from the committed runs."""
    metrics = json.loads(path.read_text())
    digests = {runs.read_record(p)["digest"] for p in RECORDS}
    assert {record["digest"] for record in metrics["records"]} <= digests
    by_name = {p.relative_to(RESULTS / "runs").with_suffix("").as_posix(): p for p in RECORDS}
    for entry in metrics["claims"]:
        made_by = [runs.read_record(by_name[name]) for name in entry["records"]]
        if not made_by:
            continue
        result = claims.Result(entry["id"], entry["values"], made_by, entry["reference"])
        assert entry["verdict"] == result.verdict
        if claims.claims()[entry["id"]].selection.startswith("test error"):
            assert set(entry["values"]) <= {r["test_error"] for r in made_by}


@pytest.mark.parametrize("path", NETWORKS, ids=lambda path: path.stem)
def test_a_committed_network_gives_the_test_error_of_its_record(path):
    profile = path.stem.rsplit("-", 1)[1]
    recipe = recipes.at_profile(recipes.by_name(path.stem.rsplit("-", 1)[0]), profile)
    record = runs.read_record(runs.committed_paths(recipe, profile, 0)[0])
    try:
        test = data.load(recipe.dataset)
    except data.DataUnavailable:
        pytest.skip("the real data can't be had here")
    images = train.Images(*map(train.torch.tensor, (test.test_images, test.test_labels)))
    error = train.evaluate(models.load_network(path), images)[1]
    # One image in ten thousand may fall the other way where sums are rounded otherwise.
    assert error == pytest.approx(record["test_error"], abs=0.02)


def test_the_readme_shows_the_table_that_the_metrics_give():
    text = (ROOT / "README.md").read_text()
    table = summary.as_markdown(summary.rows(summary.load(RESULTS)))
    assert summary.replace_block(text, table) == text


def test_the_index_is_the_one_that_the_metrics_give():
    assert (RESULTS / "index.html").read_text() == site.index(RESULTS)


def test_nothing_committed_names_a_machine_or_a_folder_of_it():
    for path in tracked("results"):
        if path.suffix in (".json", ".ipynb", ".html", ".svg", ".csv"):
            found = re.search(r"(/home/|/root/|/work/|/tmp/|/Users/)\w*", path.read_text())
            assert not found, f"{path.name}: {found[0]}"


def test_the_tracked_tree_is_small():
    assert sum(path.stat().st_size for path in tracked(".")) <= MOST_BYTES


def tracked(folder: str) -> list:
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", folder], capture_output=True, check=True
    )
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name]
