"""Dask schedulers and workers as processes of their own, and what tests of runs on them share."""

import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch

from study import ROOT
from study.recipes.recipe import Recipe
from study.train import runner, runs

PATIENCE = 300  # seconds for a process to start: other work may take all cores
LOOPBACK = "127.0.0.1"
Command = Sequence[str]
Pair = tuple[Recipe, int]


def start(arguments: list[str], folder: Path, host: str, within: Command) -> subprocess.Popen:
    """`dask ARGUMENTS` that listens on the host alone; `within` is put before the command."""
    folder.mkdir(parents=True, exist_ok=True)
    listening = ["--host", host, "--dashboard-address", f"{host}:0"]
    settings = {"PYTHONPATH": str(ROOT), "BNN_RUNS": str(folder / "runs"), "OMP_NUM_THREADS": "1"}
    with (folder / f"{arguments[0]}-{secrets.token_hex(4)}.log").open("w") as log:
        return subprocess.Popen(
            [*within, sys.executable, "-m", "dask", *arguments, *listening],
            cwd=folder,
            env=os.environ | settings,
            stdout=log,
            stderr=log,
        )


@contextmanager
def scheduler(folder: Path, host: str = LOOPBACK, within: Command = ()) -> Iterator[str]:
    """-> its address."""
    file = folder / "scheduler.json"
    process = start(
        ["scheduler", "--port", "0", "--scheduler-file", str(file)], folder, host, within
    )
    try:
        wait_for(lambda: file.exists() and file.read_text().endswith("}"))
        yield json.loads(file.read_text())["address"]
    finally:
        stop(process)


def worker(
    address: str, folder: Path, host: str = LOOPBACK, within: Command = ()
) -> subprocess.Popen:
    """With its records in the folder, and without a nanny that would start it again."""
    arguments = ["worker", address, "--nthreads", "1", "--no-nanny", "--memory-limit", "0"]
    return start(arguments, folder, host, within)


def stop(*processes: subprocess.Popen) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()


def wait_for(condition: Callable[[], object]) -> None:
    """Until it holds; raises TimeoutError if it does not for long."""
    ends = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError("what was waited for did not come")
        time.sleep(0.02)


class Meanwhile(threading.Thread):
    """Does something while a test waits for runs; what it raises, the test raises at the end."""

    def __init__(self, action: Callable[[], object]):
        super().__init__(daemon=True)
        self.action, self.problem = action, None

    def run(self) -> None:
        try:
            self.action()
        except BaseException as problem:
            self.problem = problem

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, failed: type | None, *_) -> None:
        if failed:
            return  # what is waited for may never come
        self.join()
        if self.problem:
            raise self.problem


def measured(pairs: list[Pair]) -> dict[Pair, dict]:
    """Of each run's record and network, all but when and where they were made."""
    return {pair: _measured(*pair) for pair in pairs}


def _measured(recipe: Recipe, seed: int) -> dict:
    path = runs.fresh_path(recipe, "cpu", seed)
    record, network = runs.read_record(path), path.with_suffix(".safetensors")
    made = record.pop("provenance")
    record.pop("digest")
    for entry in record["history"]:
        entry.pop("seconds")
    same = {name: made[name] for name in ("sources", "data", "threads", "arithmetic")}
    return record | same | {"network": network.read_bytes() if network.exists() else None}


def measured_alone(pairs: list[Pair], folder: Path) -> dict[Pair, dict]:
    """The same of a sequential execution on one thread, whose records go to the folder."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with patch.object(runs, "FRESH", folder):
            for recipe, seed in pairs:
                runner.run(recipe, "smoke", seed)
            return measured(pairs)
    finally:
        torch.set_num_threads(threads)
