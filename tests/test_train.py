import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import twin

from bnnlib import inputs, models, recipes, runs, train
from bnnlib.binarize import Binarization

SMOKE = recipes.at_profile(recipes.MNIST_THEANO, "smoke")


@pytest.fixture(scope="module")
def training():
    return train.training_data(SMOKE, "smoke")


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """Run records go to a folder of this test's own."""
    monkeypatch.setattr(runs, "FRESH", tmp_path / "fresh")
    monkeypatch.setattr(runs, "COMMITTED", tmp_path / "committed")
    return tmp_path


def test_squared_hinge_and_its_gradient_equal_their_twin():
    scores = torch.from_numpy(np.resize(twin.SPECIAL, (4, 10)).copy()).requires_grad_()
    labels = torch.tensor([0, 3, 9, 3])
    loss = train.squared_hinge(scores, labels)
    loss.backward()
    expected, gradient = twin.squared_hinge(scores.detach().numpy(), labels.numpy())
    assert loss.item() == pytest.approx(expected, rel=1e-13)
    np.testing.assert_allclose(scores.grad, gradient, rtol=1e-12)


def test_evaluate_counts_every_image_once(monkeypatch):
    monkeypatch.setattr(train, "EVALUATION_BATCH", 4)
    labels = torch.arange(10)
    scores = torch.eye(10) * 2 - 1  # every class right, each margin met exactly
    scores[7] = scores[8]  # one wrong

    class Lookup(torch.nn.Module):
        def forward(self, x):
            return scores[x]

    loss, error = train.evaluate(Lookup(), train.Images(torch.arange(10), labels))
    assert error == 10.0
    assert loss == pytest.approx(2 * 2**2 / 100)  # two classes of one image miss by 2


def test_the_same_seed_gives_the_same_run_bit_by_bit(training):
    noisy = replace(SMOKE, weights=Binarization.STOCHASTIC, activations=Binarization.STOCHASTIC)
    (first, outcome, network), (second, same, other) = (
        train.fit(noisy, training, seed=1) for _ in range(2)
    )
    without_time = lambda history: [{**e, "seconds": 0} for e in history]  # noqa: E731
    assert without_time(first) == without_time(second)
    assert outcome == same
    for a, b in zip(network.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_another_seed_gives_another_run(training):
    losses = {train.fit(SMOKE, training, seed)[0][0]["train_loss"] for seed in range(2)}
    assert len(losses) == 2


def test_a_run_leaves_the_global_generator_alone(training):
    before = torch.get_rng_state()
    train.fit(SMOKE, training, seed=0)
    assert torch.equal(before, torch.get_rng_state())


def test_training_moves_every_parameter_and_keeps_latent_weights_in_range(training):
    untrained = dict(train.build_network(SMOKE, 0).named_parameters())
    *_, network = train.fit(SMOKE, training, seed=0)
    for name, parameter in network.named_parameters():
        assert not torch.equal(parameter, untrained[name]), name
    for layer in models.binary_layers(network).values():
        assert layer.weight.abs().max() <= 1


def test_64_images_can_be_learnt_by_heart(training):
    few = train.Images(training.train.images[:64], training.train.labels[:64])
    memorize = replace(training, train=few, validation=few, test=few)
    recipe = replace(SMOKE, hidden=(256, 256), epochs=60, batch_size=16)
    recipe = replace(recipe, input_dropout=0.0, hidden_dropout=0.0)
    _, outcome, _ = train.fit(recipe, memorize, seed=0)
    assert outcome["test_error"] == 0


def test_the_test_error_is_that_of_the_best_validation_epoch(training, monkeypatch):
    """Epochs 2 and 3 tie; the latest counts, and its network is the one returned."""
    errors = iter([50.0, 40.0, 40.0, 45.0])
    weights, real = [], train.evaluate

    def evaluate(network, split):
        if split is not training.validation:
            return real(network, split)
        weights.append(models.binary_layers(network)["3"].weight.detach().clone())
        return 0.5, next(errors)

    monkeypatch.setattr(train, "evaluate", evaluate)
    _, outcome, network = train.fit(replace(SMOKE, epochs=4), training, seed=0)
    assert outcome["best_epoch"] == 3
    assert torch.equal(models.binary_layers(network)["3"].weight, weights[2])
    assert outcome["test_error"] == real(network, training.test)[1]


def test_history_tells_of_every_epoch(training):
    history, _, network = train.fit(SMOKE, training, seed=0)
    assert [entry["epoch"] for entry in history] == [1, 2]
    assert history[0]["learning_rate"] == SMOKE.learning_rate
    assert history[0]["sign_flips"].keys() == models.binary_layers(network).keys()
    assert 0 < history[0]["sign_flips"]["3"] < 1


def test_convnet_history_counts_filters():
    recipe = replace(recipes.at_profile(recipes.CIFAR10_THEANO, "smoke"), epochs=1)
    history, _, network = train.fit(recipe, train.training_data(recipe, "smoke"), seed=0)
    counts = history[0]["unique_filters"]
    assert len(counts) == 6
    assert next(iter(counts.values()))["total"] == 3 * recipe.hidden[0]


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(training, monkeypatch):
    real, steps = train.squared_hinge, iter(range(100))

    def bad_at_step_14(scores, labels):
        return real(scores, labels) * (math.nan if next(steps) == 13 else 1)

    monkeypatch.setattr(train, "squared_hinge", bad_at_step_14)
    monkeypatch.setattr(train, "evaluate", lambda *_: (0.0, 0.0))
    with pytest.raises(FloatingPointError, match="mnist-theano: .* nan in epoch 2, step 4 of 10"):
        train.fit(SMOKE, training, seed=0)


def test_a_run_leaves_a_record_and_a_network_that_gives_its_test_error(fresh, training):
    record = train.run(SMOKE, "smoke", 0)
    path = runs.fresh_path(SMOKE, "cpu", 0)
    assert runs.read_record(path) == record
    assert record["provenance"]["stand_in"]
    assert record["provenance"]["data"] == training.sha256
    network = models.load_network(path.with_suffix(".safetensors"))
    assert train.evaluate(network, training.test)[1] == record["test_error"]


def test_a_finished_run_is_not_repeated_and_an_edited_one_is_refused(fresh, monkeypatch):
    record = train.run(SMOKE, "smoke", 0)
    monkeypatch.setattr(train, "fit", lambda *_: pytest.fail("trained again"))
    assert train.run(SMOKE, "smoke", 0) == record
    path = runs.fresh_path(SMOKE, "cpu", 0)
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(ValueError, match="no intact run record"):
        train.run(SMOKE, "smoke", 0)


def test_a_run_on_other_data_is_repeated(fresh, monkeypatch):
    first = train.run(SMOKE, "smoke", 0)
    monkeypatch.setattr(inputs, "SMOKE_IMAGES", {"train": 1300, "test": 300})
    inputs._dataset.cache_clear()
    second = train.run(SMOKE, "smoke", 0)
    inputs._dataset.cache_clear()
    assert first["provenance"]["data"] != second["provenance"]["data"]


def test_without_retraining_only_what_exists_is_returned(fresh):
    assert train.obtain(SMOKE, "smoke", 3, retrain=False) == []
    path = runs.COMMITTED / SMOKE.name / "smoke" / "cpu-seed1.json"
    altered = replace(SMOKE, epochs=1)
    record = train.run(altered, "smoke", 0)
    assert train.obtain(altered, "smoke", 2, retrain=False) == [record]
    runs.write_record(path, {k: v for k, v in record.items() if k != "digest"})
    assert len(train.obtain(SMOKE, "smoke", 3, retrain=False)) == 1
    fresh_run = train.run(SMOKE, "smoke", 0)
    assert train.obtain(SMOKE, "smoke", 3, retrain=False)[0] == fresh_run
    committed = runs.COMMITTED / SMOKE.name / "smoke" / "cpu-seed0.json"
    runs.write_record(committed, {**fresh_run, "profile": "as committed"})
    assert train.obtain(SMOKE, "smoke", 1, retrain=False)[0]["profile"] == "as committed"
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        train.obtain(SMOKE, "smoke", -1, retrain=False)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nope"], "unknown recipe 'nope'"),
        (["mnist-theano", "--profile", "fast"], "unknown profile 'fast'"),
        (["mnist-theano", "--seeds", "-1"], "--seeds must be at least 1"),
    ],
)
def test_the_command_refuses_in_one_sentence(arguments, sentence, capsys):
    assert train.main(arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_the_command_trains_and_names_itself_in_the_record(fresh, capsys, monkeypatch):
    monkeypatch.setenv("BNN_COMMAND", "")
    assert train.main(["mnist-theano", "--profile", "smoke", "--seeds", "2"]) == 0
    assert capsys.readouterr().out.count("% test error") == 2
    (record,) = [json.loads(p.read_text()) for p in fresh.rglob("*-seed1.json")]
    assert record["provenance"]["command"].startswith("python -m bnnlib.train mnist-theano")


def test_a_validation_loss_that_is_not_finite_stops_the_run(training, monkeypatch):
    monkeypatch.setattr(train, "evaluate", lambda *_: (math.inf, 0.0))
    with pytest.raises(FloatingPointError, match="mnist-theano: validation loss inf after epoch 1"):
        train.fit(SMOKE, training, seed=0)


def test_a_negative_seed_and_a_batch_above_the_data_are_refused(training):
    with pytest.raises(ValueError, match="seed must not be negative, got -1"):
        train.fit(SMOKE, training, seed=-1)
    with pytest.raises(ValueError, match="a batch is larger"):
        train.training_data(replace(SMOKE, train_images=50), "smoke")


def test_the_command_trains_on_no_stand_in_by_surprise(fresh, monkeypatch, capsys):
    def offline(name):
        raise train.data.DataUnavailable(f"{name} could not be had")

    monkeypatch.setattr(train.data, "load", offline)
    assert train.main(["mnist-theano", "--profile", "quick"]) == 2
    assert "mnist could not be had" in capsys.readouterr().err


def test_the_returned_network_is_in_evaluation_mode(training):
    *_, network = train.fit(SMOKE, training, seed=0)
    assert not network.training
