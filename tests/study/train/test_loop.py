import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import twin

from bnnlib import models
from bnnlib.binarize import Binarization
from bnnlib.rounding import Rounding
from study import recipes
from study.data.training_data import Images, training_data
from study.train import build, checkpoints, eager, evaluation, loop

SMOKE = recipes.at_profile(recipes.MNIST_THEANO, "smoke")


@pytest.fixture(scope="module")
def training():
    return training_data(SMOKE, "smoke")


def test_squared_hinge_and_its_gradient_equal_their_twin():
    scores = torch.from_numpy(np.resize(twin.SPECIAL, (4, 10)).copy()).requires_grad_()
    labels = torch.tensor([0, 3, 9, 3])
    loss = eager.squared_hinge(scores, labels)
    loss.backward()
    expected, gradient = twin.squared_hinge(scores.detach().numpy(), labels.numpy())
    assert loss.item() == pytest.approx(expected, rel=1e-13)
    np.testing.assert_allclose(scores.grad, gradient, rtol=1e-12)


def test_evaluate_counts_every_image_once(monkeypatch):
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", 4)
    labels = torch.arange(10)
    scores = torch.eye(10) * 2 - 1  # every class right, each margin met exactly
    scores[7] = scores[8]  # one wrong

    class Lookup(torch.nn.Module):
        def forward(self, x):
            return scores[x]

    loss, error = evaluation.evaluate(Lookup(), Images(torch.arange(10), labels))
    assert error == 10.0
    assert loss == pytest.approx(2 * 2**2 / 100)  # two classes of one image miss by 2


def test_the_same_seed_gives_the_same_run_bit_by_bit(training):
    noisy = replace(SMOKE, weights=Binarization.STOCHASTIC, activations=Binarization.STOCHASTIC)
    (first, outcome, network), (second, same, other) = (
        loop.fit(noisy, training, seed=1) for _ in range(2)
    )
    without_time = lambda history: [{**e, "seconds": 0} for e in history]  # noqa: E731
    assert without_time(first) == without_time(second)
    assert outcome == same
    for a, b in zip(network.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_another_seed_gives_another_run(training):
    losses = {loop.fit(SMOKE, training, seed)[0][0]["train_loss"] for seed in range(2)}
    assert len(losses) == 2


def test_a_run_leaves_the_global_generator_alone(training):
    before = torch.get_rng_state()
    loop.fit(SMOKE, training, seed=0)
    assert torch.equal(before, torch.get_rng_state())


def test_the_network_sees_the_images_scaled_as_the_data_say(training):
    state = loop.begin(SMOKE, replace(training, scale=0.5, offset=-3.0), seed=0)
    image = torch.full((1, 28, 28), 8, dtype=torch.uint8)
    assert torch.equal(state.network[0](image), torch.ones(1, 28, 28))


def test_training_moves_every_parameter_and_keeps_latent_weights_in_range(training):
    untrained = dict(build.build_network(SMOKE, 0).named_parameters())
    *_, network = loop.fit(SMOKE, training, seed=0)
    for name, parameter in network.named_parameters():
        assert not torch.equal(parameter, untrained[name]), name
    for layer in models.binary_layers(network).values():
        assert layer.weight.abs().max() <= 1


def test_64_images_can_be_learnt_by_heart(training):
    few = Images(training.train.images[:64], training.train.labels[:64])
    memorize = replace(training, train=few, validation=few, test=few)
    recipe = replace(SMOKE, hidden=(256, 256), epochs=60, batch_size=16)
    recipe = replace(recipe, input_dropout=0.0, hidden_dropout=0.0)
    _, outcome, _ = loop.fit(recipe, memorize, seed=0)
    assert outcome["test_error"] == 0


def test_the_test_error_is_that_of_the_best_validation_epoch(training, monkeypatch):
    """Epochs 2 and 3 tie; the latest counts, and its network is the one returned."""
    errors = iter([50.0, 40.0, 40.0, 45.0])
    weights, real = [], evaluation.evaluate

    def evaluate(network, split):
        if split is not training.validation:
            return real(network, split)
        weights.append(models.binary_layers(network)["3"].weight.detach().clone())
        return 0.5, next(errors)

    monkeypatch.setattr(evaluation, "evaluate", evaluate)
    _, outcome, network = loop.fit(replace(SMOKE, epochs=4), training, seed=0)
    assert outcome["best_epoch"] == 3
    assert torch.equal(models.binary_layers(network)["3"].weight, weights[2])
    assert outcome["test_error"] == real(network, training.test)[1]


def test_the_selected_network_is_evaluated_on_as_many_training_images_as_are_held_out(training):
    _, outcome, network = loop.fit(SMOKE, training, seed=0)
    count = len(training.validation.images)
    assert 0 < count < len(training.train.images)
    seen = Images(training.train.images[:count], training.train.labels[:count])
    loss, error = evaluation.evaluate(network, seen)
    assert (outcome["selected_train_loss"], outcome["selected_train_error"]) == (loss, error)


def test_latent_weights_are_kept_in_their_bits_and_the_first_forward_pass_is_the_same(training):
    for rounding in Rounding:
        recipe = replace(SMOKE, latent_bits=4, rounding=rounding)
        *_, network = loop.fit(recipe, training, seed=0)
        for layer in models.binary_layers(network).values():
            whole = (layer.weight * 7.5 + 7.5).double()  # 0 .. 15
            assert (whole - whole.round()).abs().max() < 1e-5
    state, rounded = (loop.begin(r, training, seed=0) for r in (SMOKE, recipe))
    assert torch.equal(
        state.network.eval()(training.test.images[:9]),
        rounded.network.eval()(training.test.images[:9]),
    )


def test_history_tells_of_every_epoch(training):
    history, _, network = loop.fit(SMOKE, training, seed=0)
    assert [entry["epoch"] for entry in history] == [1, 2]
    assert history[0]["learning_rate"] == SMOKE.learning_rate
    assert history[0]["sign_flips"].keys() == models.binary_layers(network).keys()
    assert 0 < history[0]["sign_flips"]["3"] < 1


def test_convnet_history_counts_filters():
    recipe = replace(recipes.at_profile(recipes.CIFAR10_THEANO, "smoke"), epochs=1)
    history, _, network = loop.fit(recipe, training_data(recipe, "smoke"), seed=0)
    counts = history[0]["unique_filters"]
    assert len(counts) == 6
    assert next(iter(counts.values()))["total"] == 3 * recipe.hidden[0]


def bad_from_step(step: int, monkeypatch):
    """The loss is NaN in one step, counted from 0 over all epochs."""
    real, steps = eager.squared_hinge, iter(range(1000))

    def loss(scores, labels):
        return real(scores, labels) * (math.nan if next(steps) == step else 1)

    monkeypatch.setattr(eager, "squared_hinge", loss)
    monkeypatch.setattr(evaluation, "evaluate", lambda *_: (0.0, 0.0))


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(training, monkeypatch):
    bad_from_step(13, monkeypatch)
    with pytest.raises(FloatingPointError, match="mnist-theano: .* nan in epoch 2, step 4 of 10"):
        loop.fit(SMOKE, training, seed=0)


def test_a_loss_that_is_not_finite_leaves_the_last_good_checkpoint(training, monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoints, "EVERY", 0)
    monkeypatch.setattr(checkpoints, "SHARE", math.inf)
    bad_from_step(13, monkeypatch)
    path = tmp_path / "cpu-seed0.checkpoint"
    with pytest.raises(FloatingPointError, match="nan in epoch 2, step 4 of 10"):
        loop.fit(SMOKE, training, seed=0, checkpoint=path)
    assert checkpoints.done(path) == (1, 3)
    _, tensors = checkpoints.read(path)
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_a_latent_weight_that_is_not_finite_stops_the_run_though_no_loss_tells(training):
    state = loop.begin(SMOKE, training, seed=0)
    models.binary_layers(state.network)["3"].weight.data[5, 7] = math.nan
    state.order, state.losses = torch.arange(1000), [torch.tensor(1.0)]
    with pytest.raises(FloatingPointError, match="3.weight is not finite in epoch 1, after step 1"):
        loop._require_finite(state, SMOKE)


def test_a_validation_loss_that_is_not_finite_stops_the_run(training, monkeypatch):
    monkeypatch.setattr(evaluation, "evaluate", lambda *_: (math.inf, 0.0))
    with pytest.raises(FloatingPointError, match="mnist-theano: validation loss inf after epoch 1"):
        loop.fit(SMOKE, training, seed=0)


def test_a_negative_seed_and_a_batch_above_the_data_are_refused(training):
    with pytest.raises(ValueError, match="seed must not be negative, got -1"):
        loop.fit(SMOKE, training, seed=-1)
    with pytest.raises(ValueError, match="a batch is larger"):
        training_data(replace(SMOKE, train_images=50), "smoke")


def test_the_returned_network_is_in_evaluation_mode(training):
    *_, network = loop.fit(SMOKE, training, seed=0)
    assert not network.training
