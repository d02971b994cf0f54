"""Runs side by side, each in a process of its own, without Dask."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from study import ROOT, recipes
from study.train import checkpoints, runner, runs, side_by_side, worker

NAMES = ("open-baseline", "mnist-theano-first-epoch")
PAIRS = [(recipes.at_profile(recipes.by_name(name), "smoke"), 0) for name in NAMES]
COMMAND = "make reproduce PROFILE=smoke"
MANY = 1000  # more than are done before a busy machine gets round to interrupting them
CALL = f"""
from study import recipes
from study.train import side_by_side
recipe = recipes.at_profile(recipes.by_name("open-baseline"), "smoke")
print(side_by_side.work_through([(recipe, seed) for seed in range({MANY})], "smoke", 2, "make"))
"""
NO_TEXT = """
import sys
for _ in sys.stdin:
    sys.stdout.buffer.write(b'\\xff\\n["ended", ""]\\n')
    sys.stdout.flush()
"""  # a worker whose C library writes what isn't UTF-8


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch) -> Path:
    """An empty folder of runs, for workers, too."""
    monkeypatch.setattr(runs, "FRESH", tmp_path)
    monkeypatch.setenv("BNN_RUNS", str(tmp_path))
    return tmp_path


def records() -> list[dict]:
    return [runs.read_record(runs.fresh_path(recipe, "cpu", seed)) for recipe, seed in PAIRS]


def test_records_are_those_of_one_run_after_another_on_one_thread(fresh, monkeypatch, capfd):
    assert side_by_side.work_through(PAIRS, "smoke", 2, COMMAND) == []
    side = records()
    assert {run["provenance"]["threads"] for run in side} == {1}
    assert {run["provenance"]["command"] for run in side} == {COMMAND}
    assert capfd.readouterr() == ("", "")  # no terminal, nothing to say
    monkeypatch.setattr(runs, "FRESH", fresh / "alone")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for recipe, seed in PAIRS:
        runner.run(recipe, "smoke", seed)
    torch.set_num_threads(threads)
    for ours, alone in zip(side, records(), strict=True):
        assert ours["test_error"] == alone["test_error"]
        losses = ([epoch["train_loss"] for epoch in run["history"]] for run in (ours, alone))
        assert len({tuple(each) for each in losses}) == 1


def test_what_is_there_starts_no_process(monkeypatch):
    side_by_side.work_through(PAIRS, "smoke", 2, COMMAND)
    monkeypatch.setattr(side_by_side, "_Crew", lambda *_: pytest.fail("a process was started"))
    assert side_by_side.work_through(PAIRS, "smoke", 2, COMMAND) == []
    with pytest.raises(pytest.fail.Exception):  # now the real data could be had
        side_by_side.work_through(PAIRS, "smoke", 2, COMMAND, ["mnist"])


def test_a_run_that_fails_keeps_no_other_from_training():
    recipe, _ = PAIRS[0]
    path = runs.fresh_path(recipe, "cpu", 1)
    path.parent.mkdir()
    path.write_text("no record")
    (failure,) = side_by_side.work_through([(recipe, 1), *PAIRS], "smoke", 1, COMMAND)
    assert failure.startswith("open-baseline seed 1: ") and "\n" not in failure
    assert len(records()) == 2


def test_a_worker_that_dies_is_replaced(monkeypatch):
    """As where the system takes back its memory: the first run kills its process."""
    code = "import os, sys; sys.stdin.readline(); os._exit(9)"
    real, started = subprocess.Popen, []

    def popen(args, **rest):
        started.append(args)
        return real([sys.executable, "-c", code] if len(started) == 1 else args, **rest)

    monkeypatch.setattr(side_by_side.subprocess, "Popen", popen)
    (failure,) = side_by_side.work_through(PAIRS, "smoke", 1, COMMAND)
    assert failure.endswith("its process ended, exit status 9") and len(started) == 2


def test_a_run_whose_thread_stumbles_is_reported_and_the_next_one_trains(monkeypatch):
    """Over whatever it may be: the run is told of, and its process, still busy, ended."""
    real, read = worker.read, []

    def stumble_once(line):
        read.append(line)
        return real(line) if len(read) > 1 else real(None)

    monkeypatch.setattr(worker, "read", stumble_once)
    (failure,) = side_by_side.work_through(PAIRS, "smoke", 1, COMMAND)
    last, first = sorted((recipe for recipe, _ in PAIRS), key=side_by_side.work)
    assert failure.startswith(f"{first.name} seed 0: ") and "NoneType" in failure
    assert runs.fresh_path(last, "cpu", 0).exists()


def test_bytes_that_are_no_text_lose_no_run(monkeypatch):
    real = subprocess.Popen
    fake = lambda args, **rest: real([sys.executable, "-c", NO_TEXT], **rest)  # noqa: E731
    heard, read = [], worker.read
    monkeypatch.setattr(side_by_side.subprocess, "Popen", fake)
    monkeypatch.setattr(worker, "read", lambda line: heard.append(line) or read(line))
    assert side_by_side.work_through(PAIRS, "smoke", 1, COMMAND) == []
    assert heard == ["\ufffd\n", '["ended", ""]\n'] * len(PAIRS)


@pytest.mark.parametrize(
    "stray", ["7", "null", "[1, 2]", '["ended"]', '["other", "text"]', '["ended", 1]', "no JSON"]
)
def test_a_line_that_no_worker_wrote_is_what_a_run_says(stray):
    assert worker.read(f"{stray}\n") == (worker.SAID, stray)


@pytest.mark.parametrize("kind", [worker.SAID, worker.ENDED])
def test_what_a_worker_writes_is_read(kind, capsys):
    worker.write(sys.stdout, kind, "a [text]")
    assert worker.read(capsys.readouterr().out) == (kind, "a [text]")


def test_an_interrupt_ends_all_processes_and_the_next_call_goes_on(fresh):
    making = subprocess.Popen(
        [sys.executable, "-c", CALL],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(fresh.glob("*/*.json")) and making.poll() is None:
        time.sleep(0.02)
    workers = psutil.Process(making.pid).children()
    making.send_signal(signal.SIGINT)
    said = making.communicate()
    assert "KeyboardInterrupt" in said[1], said
    _, alive = psutil.wait_procs(workers, timeout=300)
    assert len(workers) == 2 and not alive
    recipe, _ = PAIRS[0]
    done = len(list(fresh.glob("*/*.json")))
    assert done < MANY
    some = [(recipe, seed) for seed in range(4)]
    assert side_by_side.work_through(some, "smoke", 2, COMMAND) == []
    assert all(runs.fresh_path(recipe, "cpu", seed).exists() for _, seed in some)


def test_as_many_processes_as_cores_and_memory_allow(monkeypatch):
    monkeypatch.setattr(side_by_side, "_free_memory", lambda: 4 * side_by_side.WORKER_BYTES)
    assert side_by_side.workers_for(100, 2) == 2
    assert side_by_side.workers_for(100, 64) == 4
    assert side_by_side.workers_for(3, 64) == 3
    monkeypatch.setattr(side_by_side, "_free_memory", lambda: 0)
    assert side_by_side.workers_for(100, 64) == 1
    monkeypatch.setattr(runner, "default_device", lambda: "cuda")
    assert side_by_side.workers_for(100, 64) == 1


def test_where_the_system_does_not_tell_its_memory_cores_alone_count(monkeypatch):
    def refuse():
        raise OSError("no /proc/meminfo")

    monkeypatch.setattr(psutil, "virtual_memory", refuse)
    assert side_by_side.workers_for(100, 2) == 2
    assert side_by_side.workers_for(3, 64) == 3


def test_only_a_large_network_gets_idle_cores_and_what_is_begun_keeps_its_threads(monkeypatch):
    small, large = PAIRS[0][0], recipes.CIFAR10_THEANO
    assert side_by_side._threads(small, 0, 16, 1) == 1
    assert side_by_side._threads(large, 0, 16, 3) == 5
    assert side_by_side._threads(large, 0, 2, 3) == 1
    monkeypatch.setattr(checkpoints, "threads", lambda _: 7)
    assert side_by_side._threads(large, 0, 16, 3) == 7


def test_longer_runs_have_more_work():
    small = PAIRS[0][0]
    assert side_by_side.work(replace(small, epochs=2 * small.epochs)) > side_by_side.work(small)
    order = ("open-baseline", "gradients-baseline", "mnist-theano", "cifar10-theano")
    quick = [recipes.at_profile(recipes.by_name(name), "quick") for name in order]
    assert sorted(quick, key=side_by_side.work) == quick
