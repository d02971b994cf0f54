"""Cards of the committed networks, in step with networks and records."""

import pytest
import safetensors.torch
import torch

from bnnlib import network_file
from bnnlib.network_file import save_network
from study import recipes
from study.train import runs
from study.train.build import build_network, file_shape
from tests.support.hand_made import record
from tools import cards


@pytest.fixture
def results(tmp_path):
    """A network of the smoke profile and its record, as results/ holds them."""
    recipe = recipes.at_profile(recipes.CIFAR10_THEANO, "smoke")
    models, records = tmp_path / "models", tmp_path / "runs"
    models.mkdir()
    content = save_network(build_network(recipe, 0), file_shape(recipe))
    (models / "cifar10-theano-smoke.safetensors").write_bytes(content)
    made = record(recipes.CIFAR10_THEANO, "smoke", 0, 12.5)
    runs.write_record(records / "cifar10-theano" / "smoke" / "cpu-seed0.json", made)
    return models, records


def test_a_network_gets_a_card_and_its_labels_and_keeps_its_numbers(results):
    models, records = results
    path = models / "cifar10-theano-smoke.safetensors"
    before = safetensors.torch.load(path.read_bytes())
    (models / "gone.md").write_text("of a network that is gone")
    cards.write(models, records)
    after = safetensors.torch.load(path.read_bytes())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    told = network_file.about(path)
    assert told.labels[3] == "cat" and told.error == 12.5 and told.tested == 10_000
    card = path.with_suffix(".md").read_text("utf-8")
    assert "12.50 %, n = 10000" in card and "license: mit" in card
    assert "cifar10-theano/smoke/cpu-seed0.json of commit 0123456" in card
    assert not (models / "gone.md").exists()


def test_cards_are_made_the_same_again(results):
    cards.write(*results)
    first = {path.name: path.read_bytes() for path in results[0].iterdir()}
    cards.write(*results)
    assert {path.name: path.read_bytes() for path in results[0].iterdir()} == first


def test_a_network_without_a_record_is_named(results):
    models, records = results
    (models / "mnist-theano-quick-seed3.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="quick-seed3.safetensors has no record: .*cpu-seed3.json"):
        cards.contents(models, records)


def test_the_committed_cards_are_those_that_the_tool_makes():
    there = sorted(runs.NETWORKS.glob("*.md"))
    if not there:
        pytest.skip("no cards yet: python -m tools.cards makes them")
    made = cards.contents()
    assert [path for path in made if path.suffix == ".md"] == there
    assert not [path.name for path in made if path.read_bytes() != made[path]]
