"""Many runs on a Dask cluster, each one task. Dask is known here alone; see docs/scale.md.

The client decides what is finished and what comes first. A worker trains as `runner.run` does, in
its own BNN_RUNS, and sends the files that it left; where that folder is the client's, they are
there already. Workers must agree in all that a run's numbers depend on.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import dask
import torch
from distributed import (
    Client,
    Future,
    KilledWorker,
    LocalCluster,
    Security,
    as_completed,
    comm,
    get_worker,
)
from distributed.client import FutureCancelledError
from distributed.comm import CommClosedError

from study.recipes.recipe import Recipe
from study.train import runner, runs
from study.train.cluster_progress import Overview
from study.train.progress import Lines
from study.train.same_platform import agree, differs, facts
from study.train.task import Task, files_of
from study.train.worker import reason

PATIENCE = 5  # seconds for a scheduler to answer
LOOPBACK = "127.0.0.1"
TOPIC = "bnnlib"  # of the events by which workers tell how far they are
SETTINGS = {
    # Memory is managed as without a cluster; Dask's setting is for tables that come and go.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
    "logging.distributed": "critical",  # what goes wrong on a worker is said in a line of ours
}


class OtherWorker(ValueError):
    """A worker that joined late can't train as the rest does. Its one argument says why, and begins
    with the worker's address."""


@contextmanager
def local(workers: int) -> Iterator[Client]:
    """A cluster of this machine's processes, a run each, that listens on loopback alone."""
    with (
        dask.config.set(SETTINGS),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host=LOOPBACK,
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": f"{LOOPBACK}:0"},  # of its health page
            silence_logs=logging.ERROR,
            memory_limit=0,  # none: a run takes what it takes, as without a cluster
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@contextmanager
def connect(address: str) -> Iterator[Client]:
    """The cluster of a scheduler that runs somewhere. Raises ValueError if it doesn't answer.

    For tls:// Dask's own configuration names the certificates.
    """
    try:
        asyncio.run(_knock(address))  # first: a client that finds nobody goes on trying
    except (OSError, ValueError, TypeError, RuntimeError, MemoryError) as problem:
        reason = str(problem).split("\n")[0] or f"it says nothing for {PATIENCE} s"
        raise ValueError(f"no Dask scheduler can be used at {address}: {reason}") from None
    with Client(address, timeout=PATIENCE, set_as_default=False) as client:
        yield client


async def _knock(address: str) -> None:
    certificates = Security().get_connection_args("client")
    async with asyncio.timeout(PATIENCE):
        await (await comm.connect(address, timeout=PATIENCE, **certificates)).close()


def work_through(
    client: Client,
    pairs: list[tuple[Recipe, int]],
    profile: str,
    threads: int = 1,
    device: str = "",
) -> list[str]:
    """Train what isn't finished of these recipes, each with a seed, the first ones first.

    Returns what is left: a run that fails doesn't keep others from training. threads: of each run
    on a CPU; as many give the same numbers without a cluster. device: where they must be made, if
    that matters. Raises ValueError before any work if there is no worker or one is unfit,
    ConnectionError if the scheduler goes away.
    """
    of_each_set = {recipe.dataset: recipe for recipe, _ in pairs if _has_data(recipe, profile)}
    samples = tuple(of_each_set.values())
    agreed = agree(client, samples, profile)
    if device not in ("", agreed["device"]):
        raise ValueError(f"the workers train on {agreed['device']}, and {device} is needed")
    todo, left = _unfinished(pairs, profile, agreed)
    command = os.environ.get("BNN_COMMAND", "interactive")
    with watched(client, [task.name for task in todo]) as view:
        futures = {}
        for place, task in enumerate(todo):
            given = (task.recipe, profile, task.seed, threads, samples, agreed, command)
            key = f"bnnlib-{task.path.parent.name}-{task.path.stem}-{threads}"
            futures[client.submit(_train, *given, key=key, priority=-place)] = task
        return left + _collect(client, futures, view)


@contextmanager
def watched(client: Client, names: list[str]) -> Iterator[Overview]:
    """Show what runs say on their workers; all count as equally long."""
    with Overview(dict.fromkeys(names, 1.0)) as view:
        client.subscribe_topic(TOPIC, lambda event: view.hear(**event[1]))
        try:
            yield view
        finally:
            client.unsubscribe_topic(TOPIC)


def _has_data(recipe: Recipe, profile: str) -> bool:
    try:
        runner.require_data(recipe, profile)
    except runner.FAILURES:
        return False
    return True


def _unfinished(pairs: list, profile: str, agreed: dict[str, str]) -> tuple[list[Task], list[str]]:
    """(tasks to be trained, names of those that can't be); prints why, and finished results."""
    todo, left = [], []
    for recipe, seed in pairs:
        data_hash = agreed.get(f"{recipe.dataset} data", "")
        path = runs.fresh_path(recipe, agreed["device"], seed)
        task = Task(recipe, profile, seed, data_hash, path)
        try:
            runner.require_data(recipe, profile)
            if task.is_finished():
                print(task.result(), flush=True)
            else:
                todo.append(task)
        except runner.FAILURES as problem:
            print(f"{task.name} failed: {reason(problem)}", file=sys.stderr, flush=True)
            left.append(task.name)
    return todo, left


def _collect(client: Client, futures: dict[Future, Task], view: Overview) -> list[str]:
    """Keep the files of each run as it ends. Returns what failed.

    What is finished stays as it is: a run that comes back twice counts once, and on a shared folder
    the worker has written the files.
    """
    left, ended = [], as_completed(list(futures), loop=client.loop)
    for future in ended:
        task = futures[future]
        try:
            files = future.result()
            if not task.is_finished():
                task.keep(files)
        except OtherWorker as problem:  # send it away: another one takes the run
            view.say(f"sent away: worker {problem}", sys.stderr)
            client.retire_workers([str(problem).split()[0]])
            future.retry()
            ended.add(future)
            continue
        except (FutureCancelledError, CommClosedError):
            raise ConnectionError(
                "the cluster's scheduler is gone: what came back is kept, the same command goes on"
            ) from None
        except (KilledWorker, *runner.FAILURES) as problem:
            view.end(task.name, f"{task.name} failed: {_reason(problem)}", sys.stderr)
            left.append(task.name)
        else:
            view.end(task.name, task.result(), sys.stdout)
        del futures[future]  # so that the worker forgets the files
    return left


def _reason(problem: Exception) -> str:
    """Say why a run failed."""
    if isinstance(problem, KilledWorker):
        return f"its worker died, {problem.allowed_failures + 1} times"
    return reason(problem)


def _tell(worker, name: str, said: str) -> None:
    """Send a line that a run said from its worker, Dask's own object, to who looks on."""
    worker.loop.add_callback(worker.log_event, TOPIC, {"name": name, "said": said})


def _train(
    recipe: Recipe,
    profile: str,
    seed: int,
    threads: int,
    samples: tuple[Recipe, ...],
    agreed: dict[str, str],
    command: str,
) -> dict[str, bytes]:
    """The files that a run leaves, trained unless they are here already, by suffix."""
    worker = get_worker()
    try:
        problem = differs(facts(samples, profile), agreed)
    except runner.FAILURES as failure:
        problem = f"can't train: {reason(failure)}"
    if problem:
        raise OtherWorker(f"{worker.address} {problem}")
    os.environ["BNN_COMMAND"] = command
    torch.set_num_threads(threads)
    lines = Lines(lambda said: _tell(worker, f"{recipe.name} seed {seed}", said))
    run = (recipe, profile, seed, agreed["device"])
    with redirect_stdout(lines), redirect_stderr(lines):
        try:
            runner.run(*run)
        except FileNotFoundError:  # a worker given up for lost has ended it, and cleared up
            runner.run(*run)
    return files_of(runs.fresh_path(recipe, agreed["device"], seed))
