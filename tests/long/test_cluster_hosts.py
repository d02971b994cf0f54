"""Dask workers on four hosts, which are network namespaces; and one that was given up for lost.

Needs root and `ip`. A host has its own address and folder; all are joined by a bridge.
"""

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from study import recipes
from study.train import cluster, runs
from tests.support import dask_processes
from tests.support.dask_processes import Meanwhile, measured, wait_for

HOSTS = 4  # with a worker each, beside the scheduler's
ROUNDS = 5
NET = "10.213.7"
Host = tuple[str, list[str]]
TINY = recipes.at_profile(recipes.MNIST_THEANO, "smoke")
PAIRS = [(replace(TINY, epochs=20), seed) for seed in range(12)]
KEEP_EACH_STEP = "import time\nfrom study.train import checkpoints\n"
KEEP_EACH_STEP += "checkpoints.EVERY, checkpoints.SHARE, save = 0, 1e9, checkpoints.save\n"
KEEP_EACH_STEP += "checkpoints.save = lambda *state: (save(*state), time.sleep(0.02))"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """-> the address of each host, and what runs a command there.

    This process is joined to the bridge, too, as the client's machine.
    """
    name = f"bnn{secrets.token_hex(2)}"
    with ExitStack() as undo:
        ip("link", "add", name, "type", "bridge")
        undo.callback(ip, "link", "del", name)
        ip("addr", "add", f"{NET}.254/24", "dev", name)
        ip("link", "set", name, "up")
        made = []
        for number in range(1, count + 1):
            host, ours, theirs = f"{name}-{number}", f"{name}a{number}", f"{name}b{number}"
            ip("netns", "add", host)
            undo.callback(ip, "netns", "del", host)
            ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", host)
            ip("link", "set", ours, "master", name, "up")
            ip("-n", host, "addr", "add", f"{NET}.{number}/24", "dev", theirs)
            ip("-n", host, "link", "set", theirs, "up")
            ip("-n", host, "link", "set", "lo", "up")
            made.append((f"{NET}.{number}", ["ip", "netns", "exec", host]))
        yield made


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict:
    """What a sequential execution makes: pair -> what was measured."""
    return dask_processes.measured_alone(PAIRS, tmp_path_factory.mktemp("alone"))


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and ip")
def test_four_hosts_of_which_one_dies_and_one_is_slow(alone, tmp_path, monkeypatch, report):
    for number in range(ROUNDS):
        folder = tmp_path / str(number)
        monkeypatch.setattr(runs, "FRESH", folder / "client")
        with hosts(1 + HOSTS) as (first, *others), on_hosts(folder, first, others) as found:
            train_in_trouble(folder, *found)
        assert measured(PAIRS) == alone
    what = f"{HOSTS} Dask hosts in network namespaces: one killed in a run, one stopped, then slow"
    report(what, ROUNDS, f"all {len(PAIRS)} runs complete, equal to a sequential execution's")


@contextmanager
def on_hosts(folder: Path, first: Host, others: list[Host]) -> Iterator[tuple]:
    """A scheduler on the first host, a worker on each other one -> the client, the workers."""
    with dask_processes.scheduler(folder / "scheduler", *first) as address:
        workers = [
            dask_processes.worker(address, folder / f"host{number}", *host)
            for number, host in enumerate(others)
        ]
        try:
            with cluster.connect(address) as client:
                client.wait_for_workers(len(others), timeout=dask_processes.PATIENCE)
                assert {urlsplit(each).hostname for each in client.nthreads()} == {
                    address for address, _ in others
                }
                yield client, workers
        finally:
            dask_processes.stop(*workers)


def train_in_trouble(folder: Path, client, workers: list[subprocess.Popen]) -> None:
    """Stop one host, then slow it down, and kill another, when both are in the middle of a run."""

    def trouble():
        slow, dying = workers[:2]
        for number in (0, 1):
            wait_for(lambda of=folder / f"host{number}": list(of.rglob("*.checkpoint")))
        os.kill(slow.pid, signal.SIGSTOP)
        os.kill(dying.pid, signal.SIGKILL)
        time.sleep(3)
        os.kill(slow.pid, signal.SIGCONT)
        os.setpriority(os.PRIO_PROCESS, slow.pid, 19)

    client.run(exec, KEEP_EACH_STEP, {})
    with Meanwhile(trouble):
        assert cluster.work_through(client, PAIRS, "smoke") == []
    assert len(client.nthreads()) == len(workers) - 1


def test_a_worker_given_up_for_lost_comes_back(alone, tmp_path, monkeypatch, report):
    """All have one folder. The scheduler gives the worker up after half a minute of silence."""
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL", "30 s")
    for number in range(ROUNDS):
        shared = tmp_path / str(number)
        monkeypatch.setattr(runs, "FRESH", shared / "runs")
        with dask_processes.scheduler(shared) as address:
            workers = [dask_processes.worker(address, shared) for _ in range(2)]
            try:
                train_in_silence(address, workers)
            finally:
                dask_processes.stop(*workers)
        assert measured(PAIRS[:4]) == {pair: alone[pair] for pair in PAIRS[:4]}
    happened = "another made its run; all records equal a sequential execution's"
    report("a Dask worker silent until it counts as lost, then back", ROUNDS, happened)


def train_in_silence(address: str, workers: list[subprocess.Popen]) -> None:
    """Stop a worker in the middle of a run until the scheduler has given it up."""

    def silence():
        wait_for(lambda: list(runs.FRESH.rglob("*.checkpoint")))
        os.kill(workers[0].pid, signal.SIGSTOP)
        wait_for(lambda: len(client.nthreads()) == 1)
        os.kill(workers[0].pid, signal.SIGCONT)

    with cluster.connect(address) as client:
        client.wait_for_workers(2, timeout=dask_processes.PATIENCE)
        client.run(exec, KEEP_EACH_STEP, {})
        with Meanwhile(silence):
            assert cluster.work_through(client, PAIRS[:4], "smoke") == []
