from dataclasses import replace

import pytest
import torch

from bnnlib import models
from bnnlib.binarize import Binarization
from study import recipes
from study.data.training_data import training_data
from study.train import averaged, build, eager, evaluation, loop, runner

STOCHASTIC = Binarization.STOCHASTIC
WEIGHTS = recipes.at_profile(recipes.GRADIENTS_STOCHASTIC_WEIGHTS, "smoke")
NOISY = [
    WEIGHTS,
    recipes.at_profile(recipes.GRADIENTS_STOCHASTIC_ACTIVATIONS, "smoke"),
    replace(WEIGHTS, activations=STOCHASTIC, input_dropout=0.2, hidden_dropout=0.5),
    replace(WEIGHTS, filter_scale=True),
    recipes.at_profile(recipes.GAPS_CIFAR10_STOCHASTIC, "smoke"),
]


def started(recipe):
    """(network after one step, test images): batch normalization has seen a batch."""
    data = training_data(recipe, "smoke")
    state = loop.begin(recipe, data, 0)
    first = slice(recipe.batch_size)
    state.network.train()
    eager.step(state.network, state.optimizer, data.train.images[first], data.train.labels[first])
    return state.network, data.test


@pytest.mark.parametrize("recipe", NOISY, ids=lambda recipe: recipe.name)
def test_nothing_of_the_network_changes(recipe):
    network, split = started(recipe)
    noise = build.noise_generator(network)
    before = evaluation.evaluate(network, split)
    state = noise.get_state()
    values = {name: value.clone() for name, value in network.state_dict().items()}
    error = averaged.averaged_error(network, split, 0)
    assert error == averaged.averaged_error(network, split, 0)
    assert torch.equal(noise.get_state(), state)
    assert build.noise_generator(network) is noise
    assert not any(module.training for module in network.modules())
    assert all(torch.equal(values[name], value) for name, value in network.state_dict().items())
    assert evaluation.evaluate(network, split) == before


@pytest.mark.parametrize("recipe", NOISY, ids=lambda recipe: recipe.name)
def test_many_draws_are_averaged_and_one_is_a_draw(recipe):
    network, split = started(recipe)
    images = split.images[:50]
    with torch.no_grad(), averaged._drawing(network, torch.Generator().manual_seed(1)):
        one, other = network(images), network(images)
        many = averaged._scores(network, images, 400) / 400
        again = averaged._scores(network, images, 400) / 400
    assert not torch.equal(one, other)
    spread = (one - other).std()
    assert (many - again).std() < spread / 5  # 1 / sqrt(400) of it, but for chance


@pytest.mark.parametrize("recipe", NOISY, ids=lambda recipe: recipe.name)
def test_what_does_not_draw_is_shared_by_the_draws_and_changes_nothing(recipe):
    network, split = started(recipe)
    images = split.images[:50]
    with torch.no_grad(), averaged._drawing(network, torch.Generator().manual_seed(1)):
        wanted = torch.stack([network(images) for _ in range(3)]).sum(0)
    with torch.no_grad(), averaged._drawing(network, torch.Generator().manual_seed(1)):
        assert torch.equal(averaged._scores(network, images, 3), wanted)


def test_where_nothing_is_left_to_chance_it_is_the_test_by_signs():
    network, split = started(WEIGHTS)
    with torch.no_grad():
        for layer in models.binary_layers(network).values():
            layer.weight.copy_(torch.where(layer.weight >= 0, 1.0, -1.0))  # drawn as it is, surely
    assert averaged.averaged_error(network, split, 0) == evaluation.evaluate(network, split)[1]


def test_arms_that_draw_are_tested_by_draws_and_the_paper_s_networks_are_not():
    quick, evening = (
        [each.name for each in recipes.RECIPES if averaged.is_tested_by_draws(each, profile)]
        for profile in ("quick", "evening")
    )
    assert quick == [f"gradients-stochastic-{part}" for part in ("weights", "activations", "both")]
    assert evening == [*quick, "gaps-mnist-stochastic", "gaps-cifar10-stochastic"]
    assert recipes.CIFAR10_TORCH7.activations is STOCHASTIC


def test_a_record_has_it_where_the_recipe_draws(tmp_path, monkeypatch):
    monkeypatch.setattr(runner.runs, "FRESH", tmp_path)
    record = runner.run(WEIGHTS, "smoke", 0)
    assert 0 <= record["averaged_test_error"] <= 100
    assert record["averaged_draws"] == averaged.DRAWS
    baseline = recipes.at_profile(recipes.GRADIENTS_BASELINE, "smoke")
    assert "averaged_test_error" not in runner.run(baseline, "smoke", 0)
