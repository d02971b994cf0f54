"""Many runs on this machine, side by side: a process for each, which trains on one thread.

Small networks gain little from a second thread, and beside another busy process they lose much:
each waits for the other at every layer. Two runs side by side never wait.
"""

import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from study import ROOT
from study.data import store
from study.recipes.recipe import Recipe
from study.recipes.shapes import connections
from study.train import checkpoints, runner, runs, worker
from study.train.cluster_progress import Overview

WORKER_BYTES = 1.5e9  # torch, the data, and a network at most as large as the paper's
PASSES_PER_IMAGE = 3  # in training: forward, and backward to inputs and to weights
EVALUATED_IMAGES = 10_000  # an epoch, about
MULTIPLY_ADD_SECONDS = 5e-11  # of a pass
STEP_SECONDS = 1.5e-3  # beside the multiply-adds of its passes
LARGE_NETWORK = 5e7  # multiply-adds an image from which on a step gains from several threads

WORKER_PROCESS = {
    "args": [sys.executable, "-m", "study.train.worker"],
    "cwd": ROOT,
    "stdin": subprocess.PIPE,
    "stdout": subprocess.PIPE,
    "text": True,
    "encoding": "utf-8",
    "errors": "replace",
}


@dataclass(frozen=True)
class Job:
    """A named recipe at a profile, with a seed, and the threads that it is trained on."""

    recipe: Recipe
    profile: str
    seed: int
    threads: int = 1

    @property
    def name(self) -> str:
        return f"{self.recipe.name} seed {self.seed}"

    @property
    def line(self) -> str:
        """The line by which a worker is told of it: JSON."""
        return json.dumps([self.recipe.name, self.profile, self.seed, self.threads]) + "\n"


def work(recipe: Recipe) -> float:
    """Seconds of a run on one thread, roughly: as on the machine where this was written."""
    images, _ = store.SIZES[recipe.dataset]
    trained = min(images, recipe.train_images or images) * recipe.epochs
    evaluated = EVALUATED_IMAGES * (recipe.epochs + 2)
    passes = trained * PASSES_PER_IMAGE + evaluated
    steps = trained / recipe.batch_size
    return passes * connections(recipe) * MULTIPLY_ADD_SECONDS + steps * STEP_SECONDS


def work_through(
    pairs: Iterable[tuple[Recipe, int]],
    profile: str,
    cores: int,
    command: str,
    real: Iterable[str] = (),
) -> list[str]:
    """Train each recipe with its seed unless that is done, the longest first.

    cores: the most threads that may be busy at once. command: what the records name. real: the data
    sets that can be had; a record on stand-in data of one of these counts for nothing. Returns a
    line for each run that failed, which keeps no other from training. Interrupted, it ends its
    workers, and the next call goes on from their checkpoints.
    """
    missing = [pair for pair in pairs if not _is_there(*pair, profile, real)]
    missing.sort(key=lambda pair: -work(pair[0]))
    jobs = [Job(r, profile, seed, _threads(r, seed, cores, len(missing))) for r, seed in missing]
    if not jobs:
        return []
    with Overview({job.name: work(job.recipe) for job in jobs}) as view:
        crew = _Crew(jobs, view, command)
        try:
            crew.work(workers_for(len(jobs), cores))
        finally:
            crew.end()
    return crew.failures


def workers_for(jobs: int, cores: int) -> int:
    """Number of processes: one a core, as far as there are runs and memory for them."""
    if runner.default_device() == "cuda":
        return 1
    return max(1, int(min(jobs, cores, _free_memory() / WORKER_BYTES)))


def _free_memory() -> float:
    """Bytes that may still be taken; no limit where the system doesn't say."""
    with suppress(AttributeError, ValueError, OSError):
        import psutil

        return psutil.virtual_memory().available
    return float("inf")


def _threads(recipe: Recipe, seed: int, cores: int, jobs: int) -> int:
    """One, but for a large network that leaves cores idle; what is begun keeps its number."""
    path = runs.fresh_path(recipe, runner.default_device(), seed)
    if begun := checkpoints.threads(path.with_suffix(".checkpoint")):
        return begun
    return max(1, cores // jobs) if connections(recipe) >= LARGE_NETWORK else 1


def _is_there(recipe: Recipe, seed: int, profile: str, real: Iterable[str]) -> bool:
    """True if the run seems to be done. The notebook that asks for it looks at the data, too."""
    path = runs.fresh_path(recipe, runner.default_device(), seed)
    try:
        record = runs.read_record(path)
    except (FileNotFoundError, ValueError):  # a damaged one is named by the run itself
        return False
    outdated = record["provenance"]["stand_in"] and recipe.dataset in real
    return record["profile"] == profile and not outdated


class _Crew:
    """The workers, a thread of this process for each, and what they have still to do."""

    def __init__(self, jobs: list[Job], view: Overview, command: str):
        self.jobs = deque(jobs)
        self.view = view
        self.environment = os.environ | {"BNN_COMMAND": command}
        self.failures: list[str] = []
        self.processes: list[subprocess.Popen] = []
        self.ended = False
        self.lock = threading.Lock()

    def work(self, count: int) -> None:
        """Return when all is done; an interrupt is seen at once."""
        threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)

    def end(self) -> None:
        """Leave no worker behind."""
        with self.lock:
            self.ended = True
            self.jobs.clear()
            for process in self.processes:
                process.kill()
        for process in self.processes:
            process.wait()

    def _serve(self) -> None:
        """Give one worker a run after another, and take a new one where it died."""
        process = None
        while job := self._next():
            try:
                process = process or self._start()
                failure = self._train(process, job) if process else "interrupted"
            except Exception as problem:  # whatever it is: the other runs can be trained
                failure = worker.reason(problem)
                if process:  # what it still says is of this run
                    process.kill()
                    process.wait()
            if failure:
                self.failures.append(f"{job.name}: {failure}")
            if process and process.poll() is not None:
                process = None
            self.view.done(job.name)
        if process:
            process.stdin.close()
            process.wait()

    def _next(self) -> Job | None:
        with self.lock:
            return self.jobs.popleft() if self.jobs else None

    def _start(self) -> subprocess.Popen | None:
        with self.lock:
            if self.ended:
                return None
            process = subprocess.Popen(env=self.environment, **WORKER_PROCESS)
            self.processes.append(process)
        return process

    def _train(self, process: subprocess.Popen, job: Job) -> str:
        """Have a worker do it; -> why it failed, or nothing."""
        with suppress(BrokenPipeError):
            process.stdin.write(job.line)
            process.stdin.flush()
            for line in process.stdout:
                kind, text = worker.read(line)
                if kind == worker.ENDED:
                    return text
                self.view.hear(job.name, text)
        return f"its process ended, exit status {process.wait()}"
