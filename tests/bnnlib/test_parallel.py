"""One run on several processes, started by torchrun: the run that one process makes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import processes
import pytest
import safetensors.torch
import torch
from processes import REFUSED, STEPS, TINY
from torch import Generator

from bnnlib import parallel
from study import ROOT
from study.train import __main__ as command
from study.train import runner, runs

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone")
TORCHRUN += ("--local-addr", "127.0.0.1", "--nproc-per-node")
TRAINING = (TINY.name, "--profile", "smoke")


def launch(count: int, arguments: tuple, folder: Path) -> subprocess.CompletedProcess:
    settings = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "BNN_RUNS": str(folder)}
    return subprocess.run(
        [*TORCHRUN, str(count), *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="module", params=[2, 4])
def played(request, tmp_path_factory):
    """(how many processes, where they left what they found); the last scene kills one of them."""
    folder = tmp_path_factory.mktemp("played")
    scenes = (*STEPS, *REFUSED, "killed")
    ended = launch(request.param, (processes.__file__, folder, *scenes), folder / "runs")
    assert ended.returncode, ended.stderr
    return request.param, folder


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def torchrun_of_one(monkeypatch):
    """This process as torchrun starts one alone."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    settings = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "none"}
    for name, value in (settings | {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1}).items():
        monkeypatch.setenv(name, str(value))


def of_all(played, scene: str) -> list[dict]:
    """What each process found in a step."""
    count, folder = played
    paths = (folder / f"rank{rank}-{scene}.safetensors" for rank in range(count))
    return [safetensors.torch.load_file(path) for path in paths]


def require_close(ours: torch.Tensor, theirs: torch.Tensor, what: str) -> None:
    scale = theirs.abs().max().item() if theirs.numel() else 0
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-8 * scale + 1e-12, msg=what)


@pytest.mark.parametrize("scene", STEPS)
def test_a_step_of_several_is_that_of_one_within_the_rounding_of_a_sum(scene, played):
    first, *others = of_all(played, scene)
    for name, value in first.items():
        assert all(torch.equal(value, other[name]) for other in others), name
    alone = processes.step(scene)
    assert alone.keys() == first.keys()
    for name, value in alone.items():
        gradient = alone.get(f"gradient {name.removeprefix('after ')}")
        if name == "noise":
            assert torch.equal(first[name], value)
        elif name.startswith("after ") and gradient is not None:
            # of a gradient that is zero but for rounding Adam makes as large a step as of any
            certain = gradient.abs() > 1e-9
            require_close(first[name][certain], value[certain], name)
            assert certain.any() or name.endswith(".bias")  # batch norm takes a bias back
        else:
            require_close(first[name], value, name)


def test_what_several_processes_can_not_make_together_is_refused_by_all(played):
    count, folder = played
    for rank in range(count):
        said = {name: (folder / f"rank{rank}-{name}.txt").read_text() for name in REFUSED}
        batch = 2 * processes.BATCH + 1
        assert said.pop("indivisible").endswith(
            f"a batch of {batch} does not divide among {count} processes"
        )
        assert said.pop("other_sources") == "process 1 differs from process 0 in sources"
        assert "process 1 differs from process 0 in whether " in said.pop("other_folder")
        assert "name one recipe" in said.pop("everything")
        assert not said


def test_a_killed_run_goes_on_with_fewer_processes(played, monkeypatch, torchrun_of_one, capsys):
    count, folder = played
    monkeypatch.setattr(runs, "FRESH", folder / "runs")
    path = runs.fresh_path(TINY, "cpu", 0)
    assert not path.exists()
    if count == 2:
        assert command.main([*TRAINING]) == 0
        said = capsys.readouterr().out
    else:
        ended = launch(2, ("-m", "study.train", *TRAINING), runs.FRESH)
        assert ended.returncode == 0, ended.stderr
        said = ended.stdout
    assert said.count("goes on in epoch 1 after 7 steps") == 1  # the first one alone speaks
    assert {left.suffix for left in path.parent.iterdir()} == {".json", ".safetensors"}
    record = runs.read_record(path)
    assert record["provenance"]["processes"] == count // 2
    monkeypatch.setattr(runs, "FRESH", folder / "alone")
    alone = runner.run(TINY, "smoke", 0)
    for ours, theirs in zip(record["history"], alone["history"], strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-3)


def test_one_process_makes_the_very_same_run(tmp_path, monkeypatch, torchrun_of_one):
    left = []
    for folder, make in (
        (tmp_path / "torchrun", lambda: command.main([*TRAINING])),
        (tmp_path / "alone", lambda: runner.run(TINY, "smoke", 0)),
    ):
        monkeypatch.setattr(runs, "FRESH", folder)
        make()
        record = runs.read_record(runs.fresh_path(TINY, "cpu", 0))
        for entry in record["history"]:
            entry.pop("seconds")
        network = runs.fresh_path(TINY, "cpu", 0).with_suffix(".safetensors").read_bytes()
        left.append((record["history"], record["test_error"], network))
    assert left[0] == left[1]


def test_one_process_is_given_back_what_it_gives():
    x, noise = torch.rand(4, 3), Generator()
    assert parallel.rows(x) is x and parallel.mean(x) is x
    assert parallel.total(2.5, 3) == [2.5, 3]
    drawn = parallel.uniform(x, noise.manual_seed(1))
    assert torch.equal(drawn, torch.rand(4, 3, generator=noise.manual_seed(1)))
    parallel.require_same({"sources": "mine"})
