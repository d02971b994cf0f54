"""Runs that are interrupted anywhere end as if they had not been, bit by bit."""

import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from bnnlib.binarize import Binarization
from bnnlib.rounding import Rounding
from study import ROOT, recipes
from study.data.training_data import training_data
from study.train import checkpoints, eager, loop, provenance

STOCHASTIC = {"weights": Binarization.STOCHASTIC, "activations": Binarization.STOCHASTIC}
NOISY = replace(recipes.at_profile(recipes.MNIST_THEANO, "smoke"), **STOCHASTIC)
CONVNET = recipes.at_profile(recipes.CIFAR10_THEANO, "smoke")
ROUNDED = {"latent_bits": 6, "gradient_bits": 4, "rounding": Rounding.STOCHASTIC}
OTHERS = ("mnist-torch7-code", "gaps-cifar10-shift", "shift-adamax-printed", "mnist-theano-float")
RECIPES = (
    NOISY,
    CONVNET,
    replace(NOISY, name="rounded", **ROUNDED),
    replace(CONVNET, name="rounded-convnet", **ROUNDED),  # has no noise of its own
    *(recipes.at_profile(recipes.by_name(name), "smoke") for name in OTHERS),
)
# One training that leaves a checkpoint after every step: undisturbed, then in processes of its own,
# killed at random moments, then to the end. A life that was long enough to end the run killed
# nothing: all begins anew, with shorter ones. One thread, because threads don't survive a fork.
LIVES = """
import math, os, random, signal, sys, time
from pathlib import Path
import test_checkpoints as t

def train(path):
    t.loop.fit(t.NOISY, training, 3, "cpu", Path(path))

def killed(seconds):
    process = os.fork()
    if not process:
        signal.setitimer(signal.ITIMER_PROF, seconds)  # processor time: others' work counts nothing
        train("parts")
        os._exit(0)
    end = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert end in (0, -signal.SIGPROF), end
    return end != 0

training = t.training_data(t.NOISY, "smoke")
t.checkpoints.EVERY, t.checkpoints.SHARE = 0, math.inf
train("whole")
began = time.process_time()
train("again")
length, chance, deaths = time.process_time() - began, random.Random(2016), 0
while deaths < 5:
    if killed(length * chance.uniform(0.01, 0.4)):
        deaths += 1
    else:
        t.checkpoints.remove(Path("parts"))
        length, deaths = length / 2, 0
        assert length > 1e-3, "signals end no life"
train("parts")
"""


@pytest.fixture
def at_every_step(monkeypatch):
    monkeypatch.setattr(checkpoints, "EVERY", 0)
    monkeypatch.setattr(checkpoints, "SHARE", math.inf)


def content(path) -> tuple[dict, dict]:
    """Everything in a checkpoint but how long it took."""
    facts, tensors = checkpoints.read(path)
    history = [{**entry, "seconds": 0} for entry in facts["history"]]
    return {**facts, "history": history, "seconds": 0}, tensors


def assert_same(path, other):
    (facts, tensors), (expected, same) = content(path), content(other)
    assert facts == expected
    assert tensors.keys() == same.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == same[name].dtype and torch.equal(tensor, same[name]), name


class Killed(BaseException):
    pass


def fit_until(step: int, recipe, path, monkeypatch):
    """Train until so many steps of this process are done."""
    real, steps = eager.squared_hinge, iter(range(10_000))

    def loss(scores, labels):
        if scores.requires_grad and next(steps) == step:
            raise Killed
        return real(scores, labels)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(eager, "squared_hinge", loss)
        loop.fit(recipe, training_data(recipe, "smoke"), 3, checkpoint=path)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_run_interrupted_at_many_steps_ends_as_one_that_never_was(
    recipe, at_every_step, tmp_path, monkeypatch
):
    recipe = replace(recipe, batch_size=50, train_images=300)
    training = training_data(recipe, "smoke")
    steps = len(training.train.images) // 50
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    loop.fit(recipe, training, 3, checkpoint=whole)
    for more in (0, 1, steps // 2, steps // 2, 3):  # the fourth gets into the second epoch
        fit_until(more, recipe, parts, monkeypatch)
    history, outcome, network = loop.fit(recipe, training, 3, checkpoint=parts)
    assert_same(parts, whole)
    monkeypatch.setattr(checkpoints, "EVERY", math.inf)
    expected, same, undisturbed = loop.fit(recipe, training, 3)
    assert outcome == same
    assert [{**e, "seconds": 0} for e in history] == [{**e, "seconds": 0} for e in expected]
    for a, b in zip(network.state_dict().values(), undisturbed.state_dict().values(), strict=True):
        assert torch.equal(a, b) and a.stride() == b.stride()


def test_a_run_killed_at_random_moments_ends_as_one_that_never_was(tmp_path):
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    alone = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    lives = subprocess.run(
        [sys.executable, "-c", LIVES],
        cwd=tmp_path,
        env={**os.environ, **alone},
        capture_output=True,
        text=True,
    )
    assert lives.returncode == 0, lives.stderr
    assert_same(tmp_path / "parts", tmp_path / "whole")


@pytest.fixture(scope="module")
def two_generations(tmp_path_factory):
    """A run's folder after its sixth step: what every test copies before it does damage."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "EVERY", 0)
        patch.setattr(checkpoints, "SHARE", math.inf)
        fit_until(6, NOISY, folder / "cpu-seed3.checkpoint", patch)
    return folder


@pytest.fixture
def path(two_generations, tmp_path):
    shutil.copytree(two_generations, tmp_path / "run")
    return tmp_path / "run" / "cpu-seed3.checkpoint"


def resume(path, recipe=NOISY, seed=3) -> checkpoints.State:
    """A run that goes on from there, before its next step."""
    training = training_data(recipe, "smoke")
    state = loop.begin(recipe, training, seed)
    binding = provenance.binding(recipe, training.sha256, seed, "cpu")
    checkpoints.Keeper(path, binding).resume(state)
    return state


def flip(path, place: float):
    """One bit, at this fraction of the file."""
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 16
    path.write_bytes(content)


def foreign() -> bytes:
    return safetensors.torch.save({"weight": torch.ones(3)}, {"facts": "{}"})


DAMAGE = {
    "cut off": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "a bit of the header": lambda path: flip(path, 0.01),
    "a bit of a tensor": lambda path: flip(path, 0.7),
    "the last byte": lambda path: flip(path, 0.999999),
    "another safetensors file": lambda path: path.write_bytes(foreign()),
    "safetensors without metadata": lambda path: path.write_bytes(
        safetensors.torch.save({"weight": torch.ones(3)})
    ),
    "a pickle": lambda path: torch.save({"weight": 1}, path),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_gives_way_to_the_previous_one(damage, path, capsys):
    assert len(resume(path).losses) == 6
    DAMAGE[damage](path)
    assert len(resume(path).losses) == 5
    said = capsys.readouterr().out.splitlines()[-2:]
    assert said[0].startswith("mnist-theano seed 3: cpu-seed3.checkpoint in run is damaged (")
    assert said[1] == "mnist-theano seed 3 goes on in epoch 1 after 5 steps"
    assert not path.exists()  # so that it can't become the previous one


def test_with_both_damaged_a_run_starts_anew(path, capsys):
    for generation in checkpoints.generations(path):
        flip(generation, 0.5)
    state = resume(path)
    assert (state.epoch, state.losses) == (0, [])
    assert capsys.readouterr().out.count("is damaged") == 2
    assert list(path.parent.iterdir()) == []


def test_from_the_previous_checkpoint_too_a_run_ends_as_one_that_never_was(
    path, at_every_step, tmp_path
):
    flip(path, 0.5)
    training = training_data(NOISY, "smoke")
    loop.fit(NOISY, training, 3, checkpoint=path)
    loop.fit(NOISY, training, 3, checkpoint=tmp_path / "whole")
    assert_same(path, tmp_path / "whole")


def test_a_process_killed_between_the_two_renamings_loses_nothing(path):
    path.rename(path.with_name(f"{path.name}-previous"))
    assert len(resume(path).losses) == 6


@pytest.mark.parametrize("current", [True, False], ids=["current", "previous alone"])
def test_the_checkpoint_of_another_run_is_refused_and_kept(current, path, monkeypatch):
    if not current:
        flip(path, 0.5)
    with pytest.raises(ValueError, match="belongs to a run that differs in recipe: go on with it"):
        resume(path, replace(NOISY, learning_rate=1.0))
    with pytest.raises(ValueError, match="differs in seed 3, now 4: go on .* or remove it"):
        resume(path, seed=4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    with pytest.raises(ValueError, match=r"differs in threads \d, now 64"):
        resume(path)
    assert checkpoints.done(path) == (0, 6 if current else 5)


def test_other_data_and_other_sources_are_another_run_too(path, monkeypatch):
    monkeypatch.setattr(provenance, "source_hash", lambda: "other")
    with pytest.raises(ValueError, match="differs in data; sources"):
        checkpoints.Keeper(path, provenance.binding(NOISY, "other", 3, "cpu")).resume(None)


def test_short_runs_write_nothing(tmp_path):
    loop.fit(NOISY, training_data(NOISY, "smoke"), 3, checkpoint=tmp_path / "checkpoint")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_is_due_every_two_minutes_or_seldom_enough_to_cost_little(
    tmp_path, monkeypatch, capsys
):
    now, took = [0.0], [1.0]

    def slow(state, path, binding):
        now[0] += took[0]
        path.write_bytes(bytes(3_000_000))

    monkeypatch.setattr(checkpoints.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(checkpoints, "save", slow)
    binding = {"recipe": {"name": "slow"}, "seed": 0}
    keeper = checkpoints.Keeper(tmp_path / "checkpoint", binding)
    for took[0], wait in ((1.0, 120.0), (10.0, 120.0), (0.0, 500.0)):
        now[0] += wait - 0.1
        assert not keeper.due()
        now[0] += 0.2
        assert keeper.due()
        keeper.keep(None)
    said = capsys.readouterr().out
    assert said == "slow seed 0 can be interrupted now; this takes 2 x 3 MB of disk\n"
    assert not checkpoints.Keeper(None, binding).due()


def test_what_is_done_is_known_without_resuming(path):
    assert checkpoints.done(path) == (0, 6)
    assert checkpoints.done(path.with_name("none")) == (0, 0)
    assert len(list(path.parent.iterdir())) == 2


def test_removing_takes_both_generations_and_what_a_killed_writer_left(path):
    beside = path.with_suffix(".json")
    beside.write_text("{}")
    path.with_name(f".{path.name}.{'0' * 16}").write_bytes(b"half")
    checkpoints.remove(path)
    assert list(path.parent.iterdir()) == [beside]


def test_a_full_disk_leaves_the_checkpoints_that_are_there(path, monkeypatch):
    state = resume(path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoints.save(state, path, {})
    assert len(resume(path).losses) == 6


def test_a_checkpoint_that_another_worker_is_replacing_is_no_failure(tmp_path, monkeypatch):
    """While one is written, for a moment only the previous one has its name."""
    path = tmp_path / "checkpoint"
    keeper = checkpoints.Keeper(path, {"recipe": {"name": "twice"}, "seed": 0})
    monkeypatch.setattr(checkpoints, "save", lambda *_: None)
    keeper.keep(None)
    assert not keeper.told
    path.write_bytes(b"back")
    keeper.keep(None)
    assert keeper.told
