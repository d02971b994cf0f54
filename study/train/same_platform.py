"""Facts of a platform on which a run's numbers depend, and whether all who make runs share them.

client: Dask's, which is asked, and not imported.
"""

import asyncio
from functools import cache
from importlib.metadata import version
from urllib.parse import urlsplit

from bnnlib import functional, parallel
from study import data
from study.recipes.recipe import Recipe
from study.train import provenance, runner

SHOWN = 12  # digits of a hash


def agree(client, samples: tuple[Recipe, ...], profile: str) -> dict[str, str]:
    """Facts that all workers share and that determine a run: see `facts`; samples: as there.

    Sources, torch and data must also be the client's; it may itself be another machine. Raises
    ValueError, naming a worker and both values, else, and for a worker with several Dask threads.
    """
    workers = client.nthreads()
    if not workers:
        raise ValueError("the cluster has no workers: start some, then repeat")
    for address, slots in workers.items():
        if slots != 1:
            raise ValueError(f"worker {address} has {slots} threads: start it with --nthreads 1")
    first_of = {urlsplit(address).hostname: address for address in reversed(workers)}
    first = list(first_of.values())  # of each host: they fetch the data, alone
    rest = [address for address in workers if address not in first]
    theirs = _ask(client, first, samples, profile) | _ask(client, rest, samples, profile)
    wanted = theirs[first[0]] | {
        name: value for name, value in facts(samples, profile).items() if "device" not in name
    }
    for address in workers:
        if problem := differs(theirs[address], wanted):
            raise ValueError(f"worker {address} {problem}")
    return wanted


def _ask(client, workers: list[str], samples: tuple, profile: str) -> dict[str, dict]:
    """Worker -> its facts. Raises ValueError for one that has none, without data or our sources."""
    if not workers:
        return {}
    asked = (_facts_of_worker, samples, profile)
    answers = client.run(*asked, workers=workers, on_error="return")
    for address, answer in answers.items():
        if isinstance(answer, Exception):
            reason = str(answer).split("\n")[0]
            raise ValueError(f"worker {address} can't train: {type(answer).__name__}, {reason}")
    return answers


async def _facts_of_worker(samples: tuple[Recipe, ...], profile: str) -> dict[str, str]:
    """Ask in a thread: a download must not keep the worker from answering its scheduler."""
    return await asyncio.to_thread(facts, samples, profile)


@cache
def facts(samples: tuple[Recipe, ...], profile: str) -> dict[str, str]:
    """Name -> value of what a run in this process depends on; samples: a recipe of each data set.

    Gets the data if need be. Raises DataUnavailable.
    """
    device = runner.default_device()
    found = {
        "sources": provenance.source_hash(),
        "torch": version("torch"),
        "device": device,
        "device name": provenance.device_name(device),
        "device arithmetic": functional.arithmetic(device),
    }
    for recipe in samples:
        runner.require_data(recipe, profile)
        found[f"{recipe.dataset} data"] = runner.data_hash(recipe, profile)
    return found


def differs(theirs: dict[str, str], wanted: dict[str, str]) -> str:
    """The first difference of a worker, for a sentence; empty if there is none."""
    for name, value in wanted.items():
        if theirs[name] != value:
            hashed = len(value) == 64
            found, expected = (each[:SHOWN] if hashed else each for each in (theirs[name], value))
            return f"has {name} {found} and should have {expected}"
    return ""


def require_same_processes(recipe: Recipe, profile: str) -> None:
    """Raise ValueError unless torchrun's processes agree in what determines a run: see `facts`.

    And, before data are looked for, unless they can share a batch evenly. Raises DataUnavailable
    if no process has the data.
    """
    processes = parallel.size()
    if recipe.batch_size % processes:
        raise ValueError(
            f"{recipe.name}: a batch of {recipe.batch_size} does not divide among {processes}"
            " processes"
        )
    problem, found = "", {}
    with parallel.first_of_each_host_first():  # it fetches the data, alone
        try:
            found = facts((recipe,), profile)
        except data.DataUnavailable as missing:
            problem = str(missing)
    parallel.require_same({f"whether it has {recipe.dataset}": problem})
    if problem:
        raise data.DataUnavailable(problem)
    parallel.require_same(found)
