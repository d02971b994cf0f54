"""Runs on a Dask cluster, of this machine and of workers that share no folder."""

import os
import signal
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from study import data, recipes, train
from study.train import __main__ as command
from study.train import cluster, runner, runs, same_platform
from tests.support import dask_processes
from tests.support.dask_processes import Meanwhile, measured, wait_for

TINY = recipes.at_profile(recipes.MNIST_THEANO, "smoke")
PAIRS = [(TINY, 0), (TINY, 1), (recipes.at_profile(recipes.GRADIENTS_BASELINE, "smoke"), 0)]
LONG = replace(TINY, epochs=8)
KEEP_EACH_STEP = """
import time
from study.train import checkpoints
checkpoints.EVERY, checkpoints.SHARE = 0, 1e9
checkpoints.real = getattr(checkpoints, "real", checkpoints.save)
checkpoints.save = lambda *state: (checkpoints.real(*state), time.sleep(0.04))
"""  # LONG then takes some seconds
HOLD_LONG = f"""{KEEP_EACH_STEP}
from pathlib import Path
def save_and_hold(state, path, binding):
    checkpoints.real(state, path, binding)
    while binding["recipe"]["epochs"] == {LONG.epochs} and not Path(until).exists():
        time.sleep(0.02)
checkpoints.save = save_and_hold
"""  # LONG then goes on when a file is there


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The client's folder of records, which processes that it starts have in common with it."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "FRESH", folder)
        patch.setenv("BNN_RUNS", str(folder))
        yield folder


@pytest.fixture(scope="module")
def here(home):
    """Two workers of this machine, which share the client's folder."""
    with cluster.local(2) as client:
        yield client


@pytest.fixture(scope="module")
def apart(home, tmp_path_factory):
    """Three workers with folders of their own, and nothing that starts them again."""
    folder = tmp_path_factory.mktemp("apart")
    with dask_processes.scheduler(folder / "scheduler") as address:
        workers = [dask_processes.worker(address, folder / name) for name in "abc"]
        try:
            with cluster.connect(address) as client:
                client.wait_for_workers(3, timeout=dask_processes.PATIENCE)
                yield client
        finally:
            dask_processes.stop(*workers)


@pytest.fixture(autouse=True)
def nothing_finished(home):
    assert runs.FRESH == home
    for record in home.glob("*/*"):
        record.unlink()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What a sequential execution makes: pair -> what was measured."""
    pairs = [*PAIRS, (LONG, 0), (LONG, 1)]
    return dask_processes.measured_alone(pairs, tmp_path_factory.mktemp("alone"))


def assert_as_alone(alone, pairs):
    assert measured(pairs) == {pair: alone[pair] for pair in pairs}


def said(client) -> list[str]:
    return [message["said"] for _, message in client.get_events(cluster.TOPIC)]


def busy_worker(client) -> int:
    """The process that trains LONG, once there is one."""
    found = []

    def look():
        key = runs.fresh_path(LONG, "cpu", 0).parent.name
        busy = [w for w, keys in client.processing().items() if any(key in str(k) for k in keys)]
        found.extend(busy)
        return found

    wait_for(look)
    return client.run(os.getpid)[found[0]]


@pytest.mark.parametrize("kind", ["here", "apart"])
def test_records_are_those_of_a_sequential_execution(kind, request, alone, capsys):
    client = request.getfixturevalue(kind)
    assert cluster.work_through(client, PAIRS, "smoke") == []
    assert_as_alone(alone, PAIRS)
    lines = capsys.readouterr().out.splitlines()
    names = [f"{recipe.name} seed {seed}" for recipe, seed in PAIRS]
    assert sorted(line.split(":")[0] for line in lines) == sorted(names)


def test_what_is_finished_is_not_repeated_and_a_second_copy_is_ignored(here, alone, monkeypatch):
    cluster.work_through(here, PAIRS, "smoke")
    before = {path: path.read_bytes() for path in runs.FRESH.glob("*/*")}
    monkeypatch.setattr(cluster, "_train", lambda *_: pytest.fail("trained again"))
    assert cluster.work_through(here, PAIRS, "smoke") == []
    again = here.submit(dict, {".safetensors": b"of another training", ".json": b"the same"})
    task = cluster.Task(
        TINY,
        "smoke",
        0,
        runs.read_record(runs.fresh_path(TINY, "cpu", 0))["provenance"]["data"],
        runs.fresh_path(TINY, "cpu", 0),
    )
    with cluster.watched(here, [task.name]) as view:
        assert cluster._collect(here, {again: task}, view) == []
    assert {path: path.read_bytes() for path in runs.FRESH.glob("*/*")} == before


def test_nothing_listens_but_on_loopback(here):
    processes = [psutil.Process(), *map(psutil.Process, here.run(os.getpid).values())]
    listening = [
        connection.laddr
        for process in processes
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= len(processes)
    assert {address.ip for address in listening} == {"127.0.0.1"}


def train_on(address: str) -> int:
    return command.main(["mnist-theano", "--profile", "smoke", "--cluster", address])


@pytest.mark.parametrize(
    ("change", "undo", "sentence"),
    [
        (
            "provenance.kept, provenance.source_hash = provenance.source_hash, lambda: 'f' * 64",
            "provenance.source_hash = provenance.kept",
            "has sources ffffffffffff and should have ",
        ),
        (
            "training_data.SMOKE_IMAGES['train'] = 1300",
            "training_data.SMOKE_IMAGES['train'] = 1200",
            "has mnist data ",
        ),
        (
            "same_platform.kept, same_platform.version = same_platform.version, lambda _: '1.0'",
            "same_platform.version = same_platform.kept",
            "has torch 1.0 and should have 2.",
        ),
        (
            "provenance.kept, provenance.source_hash = provenance.source_hash, None",
            "provenance.source_hash = provenance.kept",
            "can't train: TypeError, ",
        ),
    ],
)
def test_a_worker_that_differs_is_refused_before_any_work(here, change, undo, sentence, capsys):
    forget = "from study.data import training_data\n"
    forget += "from study.train import provenance, same_platform\n"
    forget += "same_platform.facts.cache_clear(), training_data._dataset.cache_clear()\n"
    worker = list(here.nthreads())[1]
    here.run(exec, forget + change, {}, workers=[worker])
    try:
        assert train_on(here.scheduler.address) == 2
    finally:
        here.run(exec, forget + undo, {}, workers=[worker])
    error = capsys.readouterr().err
    assert error.startswith(f"error: worker {worker} {sentence}") and error.count("\n") == 1
    assert not list(runs.FRESH.glob("*/*"))


def test_a_late_worker_that_differs_is_sent_away(apart, alone, capsys):
    """Its run, which it gets first, goes to another one."""
    agreed = same_platform.agree(apart, (TINY,), "smoke")
    late = list(apart.nthreads())[0]
    code = "from study.train import cluster; facts = cluster.facts\n"
    code += "cluster.facts = lambda *asked: facts(*asked) | {'torch': '1.0'}"
    apart.run(exec, code, {}, workers=[late])
    path = runs.fresh_path(TINY, "cpu", 0)
    task = cluster.Task(TINY, "smoke", 0, agreed["mnist data"], path)
    asked = (TINY, "smoke", 0, 1, (TINY,), agreed, "make test")
    future = apart.submit(cluster._train, *asked, workers=[late], allow_other_workers=True)
    with cluster.watched(apart, [task.name]) as view:
        assert cluster._collect(apart, {future: task}, view) == []
    assert_as_alone(alone, [(TINY, 0)])
    error = capsys.readouterr().err
    assert f"sent away: worker {late} has torch 1.0 and should have 2." in error
    wait_for(lambda: late not in apart.nthreads())


@pytest.mark.parametrize("workers", [{}, {"tcp://10.0.0.1:1": 8}])
def test_no_workers_and_workers_with_several_threads_are_refused(workers):
    client = SimpleNamespace(nthreads=lambda: workers)
    sentence = "worker tcp://10.0.0.1:1 has 8 threads" if workers else "the cluster has no workers"
    with pytest.raises(ValueError, match=sentence):
        cluster.agree(client, (TINY,), "smoke")


@pytest.mark.parametrize("answer", [None, b"HTTP/1.1 400 Bad Request\r\n\r\n" * 9])
def test_an_address_where_no_scheduler_answers_is_refused(answer, monkeypatch, capsys):
    """Nobody there, or somebody else, such as a web server."""
    monkeypatch.setattr(cluster, "PATIENCE", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with Meanwhile(lambda: server.accept()[0].sendall(answer) if answer else None):
            assert train_on(address) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: no Dask scheduler can be used at {address}: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--workers", "0"], "--workers must be at least 1, got 0"),
        (["--threads", "0"], "--threads must be at least 1, got 0"),
        (["--workers", "2", "--cluster", "tcp://127.0.0.1:1"], "give one"),
        (["--workers", "2", "--budget-min", "5"], "--budget-min is for one machine"),
        (["--cluster", "nowhere"], "missing port number in address 'nowhere'"),
    ],
)
def test_the_command_refuses_in_one_sentence(arguments, sentence, capsys):
    assert command.main(["--all", "--profile", "smoke", *arguments]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


def test_without_dask_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "study.train.cluster")
    monkeypatch.delattr(train, "cluster")
    assert train_on("tcp://127.0.0.1:1") == 2
    assert "pip install -e '.[cluster]'" in capsys.readouterr().err


def test_a_run_that_fails_does_not_keep_others_from_training(here, alone, monkeypatch, capsys):
    def offline(name):
        raise data.DataUnavailable(f"{name} could not be had")

    too_large, diverging = replace(TINY, batch_size=5000), replace(TINY, learning_rate=1e38)
    left = cluster.work_through(here, [(too_large, 5), (diverging, 6), *PAIRS], "smoke")
    assert sorted(left) == ["mnist-theano seed 5", "mnist-theano seed 6"]  # in any order
    assert_as_alone(alone, PAIRS)
    error = capsys.readouterr().err
    assert "mnist-theano seed 5 failed: mnist-theano: a batch is larger than" in error
    assert "mnist-theano seed 6 failed: mnist-theano: the training loss is" in error
    monkeypatch.setattr(data, "load", offline)
    runner._missing.cache_clear()
    assert cluster.work_through(here, [(TINY, 7)], "quick") == ["mnist-theano seed 7"]
    assert "mnist-theano seed 7 failed: mnist could not be had" in capsys.readouterr().err
    runner._missing.cache_clear()


def test_a_worker_that_stops_for_a_while_goes_on(here, alone):
    def stop_for_a_while():
        worker = busy_worker(here)
        os.kill(worker, signal.SIGSTOP)
        time.sleep(2)
        os.kill(worker, signal.SIGCONT)

    here.run(exec, KEEP_EACH_STEP, {})
    with Meanwhile(stop_for_a_while):
        assert cluster.work_through(here, [(LONG, 0), (LONG, 1)], "smoke") == []
    assert_as_alone(alone, [(LONG, 0), (LONG, 1)])


def kill_with_a_checkpoint(client, folder):
    """Kill the worker of LONG, seed 0, when it has kept its state in one of the folder's."""
    wait_for(lambda: list(folder.rglob("cpu-seed0.checkpoint")))
    os.kill(busy_worker(client), signal.SIGKILL)


def test_what_a_killed_worker_did_is_not_lost_where_the_folder_is_shared(here, home, alone):
    here.run(exec, KEEP_EACH_STEP, {})
    with Meanwhile(lambda: kill_with_a_checkpoint(here, home)):
        assert cluster.work_through(here, [(LONG, 0)], "smoke") == []
    assert_as_alone(alone, [(LONG, 0)])
    assert any("goes on in epoch" in line for line in said(here))
    assert {path.suffix for path in home.glob("*/*")} == {".json", ".safetensors"}


def test_a_run_that_kills_its_workers_fails(here, home, capsys):
    here.cluster.scheduler.allowed_failures = 0
    task = cluster.Task(TINY, "smoke", 9, "", home / "nothing.json")
    with cluster.watched(here, [task.name]) as view:
        assert cluster._collect(here, {here.submit(os._exit, 1): task}, view) == [task.name]
    assert "mnist-theano seed 9 failed: its worker died, 1 times" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("allocate", "size", "reason"),
    [(torch.empty, 10**15, "DefaultCPUAllocator"), (bytearray, 2**62, "MemoryError\n")],
)
def test_a_run_that_finds_no_memory_fails(allocate, size, reason, here, home, capsys):
    """In torch and in Python, which gives no reason."""
    task = cluster.Task(TINY, "smoke", 9, "", home / "nothing.json")
    with cluster.watched(here, [task.name]) as view:
        assert cluster._collect(here, {here.submit(allocate, size): task}, view) == [task.name]
    error = capsys.readouterr().err
    assert "mnist-theano seed 9 failed: " in error and reason in error


def test_a_killed_worker_without_a_shared_folder_has_its_run_done_from_the_start(apart, alone):
    apart.run(exec, KEEP_EACH_STEP, {})
    folder = Path(apart.run(os.getcwd).popitem()[1]).parent
    with Meanwhile(lambda: kill_with_a_checkpoint(apart, folder)):
        assert cluster.work_through(apart, [(LONG, 0), (LONG, 1)], "smoke") == []
    assert_as_alone(alone, [(LONG, 0), (LONG, 1)])
    assert not any("goes on in epoch" in line for line in said(apart))


def test_a_scheduler_that_goes_away_is_said_and_what_came_back_is_kept(apart, alone, tmp_path):
    """In the middle of a run that no worker has made for an earlier test."""
    tried, folder = tmp_path / "tried", Path(apart.run(os.getcwd).popitem()[1]).parent

    def kill_the_scheduler():
        try:
            wait_for(lambda: runs.fresh_path(TINY, "cpu", 0).exists())
            wait_for(lambda: list(folder.rglob("cpu-seed2.checkpoint")))
            os.kill(apart.run_on_scheduler(os.getpid), signal.SIGKILL)
        finally:
            tried.touch()  # so that nothing waits for ever for a scheduler that was not killed

    apart.run(exec, HOLD_LONG, {"until": str(tried)})
    with Meanwhile(kill_the_scheduler), pytest.raises(ConnectionError, match="scheduler is gone"):
        cluster.work_through(apart, [(TINY, 0), (LONG, 2)], "smoke")
    assert_as_alone(alone, [(TINY, 0)])
