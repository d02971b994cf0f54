import json
import math
from dataclasses import replace

import pytest

from bnnlib import network_file
from study import data, recipes
from study.data import training_data as inputs
from study.data.training_data import training_data
from study.train import __main__ as command
from study.train import backlog, checkpoints, eager, estimate, evaluation, loop, runner, runs

SMOKE = recipes.at_profile(recipes.MNIST_THEANO, "smoke")


@pytest.fixture(scope="module")
def training():
    return training_data(SMOKE, "smoke")


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """Run records go to a folder of this test's own."""
    monkeypatch.setattr(runs, "FRESH", tmp_path / "fresh")
    monkeypatch.setattr(runs, "COMMITTED", tmp_path / "committed")
    return tmp_path


def test_a_run_leaves_a_record_and_a_network_that_gives_its_test_error(fresh, training):
    record = runner.run(SMOKE, "smoke", 0)
    path = runs.fresh_path(SMOKE, "cpu", 0)
    assert runs.read_record(path) == record
    assert record["provenance"]["stand_in"]
    assert record["provenance"]["data"] == training.sha256
    network = network_file.load_network(path.with_suffix(".safetensors"))
    assert evaluation.evaluate(network, training.test)[1] == record["test_error"]


@pytest.mark.parametrize("inputs_like", [recipes.CIFAR10_THEANO, recipes.CIFAR10_TORCH7])
def test_a_finished_run_is_found_without_whitening(fresh, inputs_like, monkeypatch):
    recipe = recipes.at_profile(inputs_like, "smoke")
    record = runner.run(recipe, "smoke", 0)
    assert runner.data_hash(recipe, "smoke") == training_data(recipe, "smoke").sha256
    monkeypatch.setattr(inputs.preprocessing, "whitening", None)  # neither is called again
    monkeypatch.setattr(inputs.preprocessing, "moments", None)
    assert runner.run(recipe, "smoke", 0) == record


def test_only_seed_0_leaves_a_network_except_where_networks_are_compared(fresh):
    for recipe, kept in ((recipes.CODES_MNIST, True), (recipes.MNIST_THEANO, False)):
        small = recipes.at_profile(recipe, "smoke")
        assert runner.network_path(small, "smoke", False, seed=1) is None
        runner.run(small, "smoke", 1)
        path = runs.fresh_path(small, "cpu", 1).with_suffix(".safetensors")
        assert path.exists() is kept
        if kept:
            assert runner.network_path(small, "smoke", False, seed=1) == path
        assert runner.network_path(small, "smoke", False) is None


@pytest.mark.parametrize("retrain", [False, True])
def test_a_run_whose_network_is_not_there_is_an_error_and_never_another_network(fresh, retrain):
    record = runner.run(SMOKE, "smoke", 0)
    path = runs.fresh_path(SMOKE, "cpu", 0).with_suffix(".safetensors")
    assert runner.trained_networks(SMOKE, "smoke", retrain) == [(record, path)]
    path.unlink()
    for missing in (runner.network_path, runner.trained_networks):
        with pytest.raises(FileNotFoundError, match="remove the record and set retrain = True"):
            missing(SMOKE, "smoke", retrain)


def test_a_committed_run_never_gets_the_network_of_a_fresh_one(monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "FRESH", tmp_path)
    named = recipes.at_profile(recipes.MNIST_THEANO, "evening")
    path = runs.fresh_path(named, "cpu", 0).with_suffix(".safetensors")
    path.parent.mkdir(parents=True)
    path.touch()
    assert runner.network_path(named, "evening", False).parent == runs.NETWORKS
    monkeypatch.setattr(runs, "NETWORKS", tmp_path)
    with pytest.raises(FileNotFoundError, match="its network mnist-theano-evening.safetensors"):
        runner.network_path(named, "evening", False)


@pytest.mark.parametrize("retrain", [False, True])
def test_a_page_shows_the_network_of_the_most_faithful_committed_run(retrain):
    named = recipes.at_profile(recipes.MNIST_THEANO, "quick")
    [(run, path)] = runner.trained_networks(named, "quick", retrain)
    assert path == runs.NETWORKS / f"mnist-theano-{run['profile']}.safetensors"
    assert run["profile"] != "quick"


def test_a_finished_run_is_not_repeated_and_an_edited_one_is_refused(fresh, monkeypatch):
    record = runner.run(SMOKE, "smoke", 0)
    monkeypatch.setattr(loop, "fit", lambda *_: pytest.fail("trained again"))
    assert runner.run(SMOKE, "smoke", 0) == record
    path = runs.fresh_path(SMOKE, "cpu", 0)
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(ValueError, match="no intact run record"):
        runner.run(SMOKE, "smoke", 0)


def test_a_run_on_other_data_is_repeated(fresh, monkeypatch):
    first = runner.run(SMOKE, "smoke", 0)
    monkeypatch.setattr(inputs, "SMOKE_IMAGES", {"train": 1300, "test": 300})
    inputs._dataset.cache_clear()
    second = runner.run(SMOKE, "smoke", 0)
    inputs._dataset.cache_clear()
    assert first["provenance"]["data"] != second["provenance"]["data"]


def test_without_retraining_only_what_exists_is_returned(fresh):
    assert runner.obtain(SMOKE, "smoke", 3, retrain=False) == []
    path = runs.COMMITTED / SMOKE.name / "smoke" / "cpu-seed1.json"
    altered = replace(SMOKE, epochs=1)
    record = runner.run(altered, "smoke", 0)
    assert runner.network_path(altered, "smoke", False)  # one epoch leaves a network, too
    assert runner.obtain(altered, "smoke", 2, retrain=False) == [record]
    runs.write_record(path, {k: v for k, v in record.items() if k != "digest"})
    assert len(runner.obtain(SMOKE, "smoke", 3, retrain=False)) == 1
    fresh_run = runner.run(SMOKE, "smoke", 0)
    assert runner.obtain(SMOKE, "smoke", 3, retrain=False)[0] == fresh_run
    committed = runs.COMMITTED / SMOKE.name / "smoke" / "cpu-seed0.json"
    runs.write_record(committed, {**fresh_run, "profile": "as committed"})
    assert runner.obtain(SMOKE, "smoke", 1, retrain=False)[0]["profile"] == "as committed"
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        runner.obtain(SMOKE, "smoke", -1, retrain=False)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nope"], "unknown recipe 'nope'"),
        (["mnist-theano", "--profile", "fast"], "unknown profile 'fast'"),
        (["mnist-theano", "--seeds", "-1"], "--seeds must be at least 1"),
        ([], "name one recipe, or give --all"),
        (["mnist-theano", "--all"], "name one recipe, or give --all"),
        (["--all", "--budget-min", "0"], "--budget-min must be positive, got 0"),
        (["--all", "--budget-min", "nan"], "--budget-min must be positive, got nan"),
        (["mnist-theano", "--budget-min", "5"], "--budget-min belongs to --all"),
        (["--all", "--profile", "fast"], "unknown profile 'fast'"),
    ],
)
def test_the_command_refuses_in_one_sentence(arguments, sentence, capsys):
    assert command.main(arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_the_command_trains_and_names_itself_in_the_record(fresh, capsys, monkeypatch):
    monkeypatch.setenv("BNN_COMMAND", "")
    assert command.main(["mnist-theano", "--profile", "smoke", "--seeds", "2"]) == 0
    assert capsys.readouterr().out.count("% test error") == 2
    (record,) = [json.loads(p.read_text()) for p in fresh.rglob("*-seed1.json")]
    assert record["provenance"]["command"].startswith("python -m study.train mnist-theano")


def test_the_command_trains_on_no_stand_in_by_surprise(fresh, monkeypatch, capsys):
    def offline(name):
        raise data.DataUnavailable(f"{name} could not be had")

    monkeypatch.setattr(data, "load", offline)
    runner._missing.cache_clear()
    assert command.main(["mnist-theano", "--profile", "quick"]) == 2
    assert "mnist could not be had" in capsys.readouterr().err


@pytest.fixture
def short(monkeypatch):
    """Three runs to work through, which take no time but what a test says."""
    monkeypatch.setattr(recipes, "RECIPES", (recipes.GRADIENTS_BASELINE, recipes.MNIST_THEANO))
    monkeypatch.setattr(backlog, "FIRST", ("mnist-theano",))


def test_a_run_that_was_interrupted_goes_on_and_leaves_no_checkpoint(fresh, monkeypatch):
    path = runs.fresh_path(SMOKE, "cpu", 0)
    monkeypatch.setattr(checkpoints, "EVERY", 0)
    monkeypatch.setattr(checkpoints, "SHARE", math.inf)
    ended = loop._end_epoch

    def interrupted(*arguments):
        ended(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "_end_epoch", interrupted)
        runner.run(SMOKE, "smoke", 0)
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "cpu-seed0.checkpoint",
        "cpu-seed0.checkpoint-previous",
    ]
    record = runner.run(SMOKE, "smoke", 0)
    assert sorted(p.suffix for p in path.parent.iterdir()) == [".json", ".safetensors"]
    undisturbed = loop.fit(SMOKE, training_data(SMOKE, "smoke"), 0)[0]
    assert [e["train_loss"] for e in record["history"]] == [e["train_loss"] for e in undisturbed]


def test_a_record_counts_the_seconds_of_all_parts(fresh, monkeypatch):
    now = [100.0]
    for module in (loop, checkpoints):
        monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(checkpoints, "EVERY", 10)
    real = eager.squared_hinge

    def step(seconds, last):
        def loss(scores, labels):
            if scores.requires_grad:
                now[0] += seconds
                if now[0] > last:
                    raise KeyboardInterrupt
            return real(scores, labels)

        return loss

    monkeypatch.setattr(eager, "squared_hinge", step(4, 115))  # is kept after 12 s, 3 steps
    with pytest.raises(KeyboardInterrupt):
        runner.run(SMOKE, "smoke", 0)
    now[0] = 5000.0
    monkeypatch.setattr(eager, "squared_hinge", step(1, math.inf))
    record = runner.run(SMOKE, "smoke", 0)
    assert [entry["seconds"] for entry in record["history"]] == [3 * 4 + 7, 10]
    assert record["provenance"]["seconds"] == 29


def test_a_record_tells_how_products_were_formed(fresh):
    assert runner.run(SMOKE, "smoke", 0)["provenance"]["arithmetic"]


def test_all_recipes_are_queued_once_a_seed_the_main_results_first():
    queued = [(recipe.name, seed) for recipe, seed in backlog.queue("paper", 2)]
    assert len(queued) == len(set(queued)) == 2 * len(recipes.RECIPES)
    assert [name for name, _ in queued[: len(backlog.FIRST)]] == list(backlog.FIRST)
    assert [seed for _, seed in queued] == sorted(seed for _, seed in queued)
    first_seed = [name for name, seed in queued if seed == 0]
    svhn = [name for name in first_seed if name.startswith("svhn")]
    assert first_seed[len(first_seed) - len(svhn) :] == svhn


def test_the_part_of_svhn_comes_before_the_whole():
    queued = [recipe.dataset for recipe, _ in backlog.queue("paper", 1)]
    last = queued[queued.index("svhn-part") :]
    assert last == ["svhn-part"] * len(recipes.SVHN_PART) + ["svhn"] * queued.count("svhn")


def test_a_recipe_without_data_is_told_from_one_that_can_train(monkeypatch):
    def load(name):
        if name == "svhn":
            raise data.DataUnavailable("svhn could not be had: nowhere.\nPut it there.")

    monkeypatch.setattr(data, "load", load)
    runner._missing.cache_clear()
    assert runner.has_data(recipes.SVHN_PART_THEANO, "evening")
    assert not runner.has_data(recipes.SVHN_THEANO, "evening")
    assert runner.has_data(recipes.SVHN_THEANO, "smoke")
    with pytest.raises(data.DataUnavailable, match="nowhere"):
        runner.require_data(recipes.SVHN_THEANO, "evening")
    runner._missing.cache_clear()


def test_all_works_through_the_queue_and_says_what_is_left(fresh, short, capsys):
    assert command.main(["--all", "--profile", "smoke"]) == 0
    lines = capsys.readouterr().out.splitlines()
    results = [line for line in lines if "% test error" in line]
    assert [line.split(" seed 0: ")[0] for line in results] == [
        "mnist-theano",
        "gradients-baseline",
    ]
    assert lines[-1] == "left: nothing"


def test_a_run_that_fails_does_not_keep_the_others_from_training(fresh, short, capsys, monkeypatch):
    real = loop.fit

    def fail_on_mnist(recipe, *arguments):
        if recipe.name == "mnist-theano":
            raise FloatingPointError("mnist-theano: the training loss is nan")
        return real(recipe, *arguments)

    monkeypatch.setattr(loop, "fit", fail_on_mnist)
    assert command.main(["--all", "--profile", "smoke"]) == 1
    said = capsys.readouterr()
    assert said.err == "mnist-theano seed 0 failed: mnist-theano: the training loss is nan\n"
    assert "gradients-baseline seed 0: " in said.out
    assert said.out.endswith("left: mnist-theano seed 0\n")


def test_a_run_that_would_not_end_in_time_is_not_begun(fresh, short, capsys, monkeypatch):
    """30 minutes: the first recipe takes 20 a seed, the other one 8."""
    now, minutes = [0.0], {"mnist-theano": 20, "gradients-baseline": 8}
    needed = lambda recipe, *_: 60 * minutes[recipe.name]  # noqa: E731

    def run(recipe, profile, seed, device):
        now[0] += needed(recipe)
        return {"test_error": 1.0}

    monkeypatch.setattr(backlog.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(estimate, "seconds", needed)
    monkeypatch.setattr(runner, "run", run)
    assert command.main(["--all", "--profile", "smoke", "--seeds", "2", "--budget-min", "30"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "mnist-theano seed 0: 1.00 % test error",
        "gradients-baseline seed 0: 1.00 % test error",
        "mnist-theano seed 1 not begun: it takes 20.0 minutes, 2.0 are left",
        "gradients-baseline seed 1 not begun: it takes 8.0 minutes, 2.0 are left",
        "left: mnist-theano seed 1, gradients-baseline seed 1",
    ]


def test_when_the_time_is_up_nothing_more_is_measured(fresh, short, capsys, monkeypatch):
    """But what is finished counts as such."""
    runner.run(SMOKE, "smoke", 0)
    monkeypatch.setattr(backlog.time, "monotonic", iter(range(0, 10_000, 1000)).__next__)
    monkeypatch.setattr(estimate, "seconds", lambda *_: pytest.fail("measured"))
    assert command.main(["--all", "--profile", "smoke", "--budget-min", "5"]) == 1
    assert capsys.readouterr().out.endswith("left: gradients-baseline seed 0\n")


@pytest.mark.parametrize(
    ("checkpoints_kept", "told"),
    [(False, "begins anew, it had no checkpoint"), (True, "goes on after 0 steps of epoch 2")],
)
def test_an_interrupt_says_what_is_true(checkpoints_kept, told, fresh, monkeypatch, capsys):
    real = loop._end_epoch

    def interrupted(*arguments):
        real(*arguments)
        if checkpoints_kept:
            monkeypatch.setattr(checkpoints, "done", lambda _: (1, 0))
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_end_epoch", interrupted)
    assert command.main([SMOKE.name, "--profile", "smoke"]) == 130
    assert told in capsys.readouterr().err


def test_what_an_interrupted_run_has_done_is_not_counted_again(fresh, short, capsys, monkeypatch):
    """20 steps of a minute each, 14 of them done; evaluation is free, and there are 8 minutes."""
    monkeypatch.setattr(estimate, "pace", lambda *_: (60.0, 0.0))
    monkeypatch.setattr(estimate, "MARGIN", 1.0)
    monkeypatch.setattr(backlog.time, "monotonic", lambda: 0.0)
    done = {"cpu-seed0.checkpoint": (1, 4), "cpu-seed1.checkpoint": (0, 0)}
    monkeypatch.setattr(checkpoints, "done", lambda path: done[path.name])
    monkeypatch.setattr(runner, "run", lambda *_: {"test_error": 1.0})
    monkeypatch.setattr(recipes, "RECIPES", (recipes.MNIST_THEANO,))
    assert backlog.work_through("smoke", 2, minutes=8) == ["mnist-theano seed 1"]
    assert "seed 1 not begun: it takes 20.0 minutes, 8.0 are left" in capsys.readouterr().out


def test_an_estimate_counts_steps_and_evaluated_images(monkeypatch):
    monkeypatch.setattr(estimate, "pace", lambda *_: (2.0, 0.5))
    training = training_data(SMOKE, "smoke")
    images = 3 * len(training.validation.images) + 2 * len(training.test.images)
    expected = estimate.MARGIN * (2.0 * 20 + 0.5 * images)
    assert estimate.seconds(SMOKE, "smoke", "cpu") == pytest.approx(expected)


def test_a_pace_is_measured_on_real_steps(monkeypatch):
    estimate.pace.cache_clear()
    step, image = estimate.pace(SMOKE, "smoke", "cpu")
    assert 1e-5 < step < 1 and 1e-7 < image < 0.1
