"""Faults that are really done to a copy of this checkout; tests/ tries a few, tests/long many."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import nbformat
import psutil
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from study import ROOT, claims
from study.train import runs

ENDED = "ended"
SEED = 2016  # of every random moment, so that a failure can be sought again
TIMES = ("ms", "time", " / ", "share of the bound")  # in the names of findings that are times
PARAMETERS = 'profile = "quick"  # which\nretrain = False\nseeds = 1  # runs\nepochs = 0  # of each'
# What the notebooks of the study do: train, draw, judge, publish.
TRAINS = """
from study import recipes, report
from study.train import runner
page = report.start("01_small", profile)
recipe = recipes.lasting(recipes.at_profile(recipes.MNIST_THEANO, profile), epochs)
records = runner.obtain(recipe, profile, seeds, retrain)
figures = [report.save(page, report.learning_curves(records), "curves")]
results = [report.answer("mnist_theano", records)]
report.publish(page, results, records, figures=figures)
"""


# A copy, and calls in it


def copy(folder: Path) -> Path:
    """This checkout as it is now, without what was made from it."""
    made = shutil.ignore_patterns("__pycache__", "local")
    for name in ("bnnlib", "study", "tools", "notebooks", "results"):
        shutil.copytree(ROOT / name, folder / name, ignore=made)
    for name in ("README.md", "Makefile", "pyproject.toml", "requirements.txt"):
        shutil.copy(ROOT / name, folder)
    return folder


def small_copy(folder: Path) -> Path:
    """The code of this checkout with one small notebook that trains, and no results."""
    made = shutil.ignore_patterns("__pycache__")
    for name in ("bnnlib", "study", "tools"):
        shutil.copytree(ROOT / name, folder / name, ignore=made)
    (folder / "notebooks" / "params").mkdir(parents=True)
    shutil.copy(ROOT / "notebooks" / "claims.toml", folder / "notebooks")
    for profile in ("quick", "smoke"):
        text = f"defaults: {{profile: {profile}}}\n"
        (folder / "notebooks" / "params" / f"{profile}.yaml").write_text(text)
    parameters = new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    cells = [new_markdown_cell("# 01 · Does it survive?"), parameters, new_code_cell(TRAINS)]
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    notebook = new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / "notebooks" / "01_small.ipynb")
    return folder


def eager_checkpoints(folder: Path) -> None:
    """In a copy, runs of seconds leave checkpoints too."""
    path = folder / "study" / "train" / "checkpoints.py"
    text = path.read_text()
    for name, value in (("EVERY = 120", "EVERY = 0.1"), ("SHARE = 0.02", "SHARE = 1")):
        assert text.count(name) == 1, name
        text = text.replace(name, value)
    path.write_text(text)


def start(folder: Path, *arguments: str, before=(), profile="smoke", **environment):
    """`make reproduce PROFILE=smoke` in a copy, as the leader of a process group."""
    command = [*before, sys.executable, "-m", "tools.reproduce", "reproduce", "--profile", profile]
    alone = {"PYTHONPATH": str(folder), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        [*command, *arguments],
        cwd=folder,
        env=os.environ | alone | environment,
        start_new_session=True,
        **pipes,
    )


def reproduce(folder: Path, *arguments: str, **options) -> tuple[int, str, str]:
    """Call it and wait; -> exit status, standard output, standard error."""
    process = start(folder, *arguments, **options)
    stdout, stderr = process.communicate()
    return process.returncode, stdout, stderr


def require_success(ended: tuple[int, str, str]) -> str:
    """-> standard output; nothing may have been said on the other."""
    status, stdout, stderr = ended
    assert (status, stderr) == (0, ""), f"exit status {status}\n{stdout}\n{stderr}"
    return stdout


# What must be the same


def numbers(folder: Path, profile: str = "smoke") -> dict:
    """All that a reproduction found and left, but times and when it was."""
    local = folder / "results" / "local"
    found = {"files": files(local)}
    for path in sorted((local / profile / "metrics").glob("*.json")):
        metrics = json.loads(path.read_bytes())
        found[path.name] = {
            "claims": [_claim(claim) for claim in metrics["claims"]],
            "records": [{**record, "digest": ""} for record in metrics["records"]],
            "sources": metrics["sources"],
            "figures": metrics["figures"],
            **_untimed(metrics["findings"]),
        }
    for path in sorted((folder / "build" / "runs").rglob("*-seed*.json")):
        found[path.parent.name, path.name] = _run(runs.read_record(path))
    return found


def _untimed(findings: dict) -> dict:
    """Of times, only their names."""
    times = {name for name in findings if any(word in name for word in TIMES)}
    others = {name: value for name, value in findings.items() if name not in times}
    return {"findings": others, "times": sorted(times)}


def _claim(claim: dict) -> dict:
    """Of a ratio of times, only that it was judged, on what."""
    is_timed = claims.load()[claim["id"]].category == "speed"
    timed = ("values", "mean", "std", "reference") if is_timed else ()
    return {key: value for key, value in claim.items() if key not in ("date", *timed)}


def _run(record: dict) -> dict:
    history = [{**epoch, "seconds": 0} for epoch in record["history"]]
    made = {**record["provenance"], "seconds": 0, "started": ""}
    return {**record, "history": history, "provenance": made, "digest": ""}


def files(folder: Path) -> list[str]:
    """Every file below it, by its name there; what writers that were killed left has a dot."""
    found = (path for path in folder.rglob("[!.]*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in found)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files(folder)}


# SIGKILL


def kill_all(process: subprocess.Popen) -> None:
    """SIGKILL to it and to all that it started; kernels are in process groups of their own."""
    if process.poll() is not None:
        return
    main = psutil.Process(process.pid)
    main.suspend()  # so that it starts nothing more while its children are listed
    for child in main.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()
    os.killpg(process.pid, signal.SIGKILL)


def kill_once(folder: Path, seconds: float, **options) -> str:
    """Start a reproduction and kill it after so long; -> where it was, ENDED if it had."""
    process = start(folder, **options)
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    kill_all(process)
    stdout, stderr = process.communicate()
    if process.returncode == -signal.SIGKILL:
        return place(stdout, folder)
    require_success((process.returncode, stdout, stderr))
    return ENDED


def place(stdout: str, folder: Path) -> str:
    """What a killed reproduction was about, by what it had said and left."""
    if "  together" in stdout:
        return "pages"
    if not stdout.rpartition("\n")[2].strip():
        return "start"
    return "training" if list(folder.glob("build/runs/*/*.checkpoint")) else "notebook"


def survive(folder: Path, kills: int, longest: float, expected: dict, **options) -> Counter:
    """Kill reproductions at random moments until so many died, then let one end; -> where they did.

    One that ends before is followed by one from the start, so that there is always work to kill.
    All that end must have found what is expected: the `numbers` of an undisturbed one.
    """
    chance, places, profile = random.Random(SEED), Counter(), options.get("profile", "smoke")
    while places.total() - places[ENDED] < kills:
        where = kill_once(folder, chance.uniform(0, longest), **options)
        places[where] += 1
        if where == ENDED:
            assert numbers(folder, profile) == expected
            anew(folder)
    require_success(reproduce(folder, **options))
    assert numbers(folder, profile) == expected
    return places


def anew(folder: Path) -> None:
    """Forget all that was made in a copy."""
    for made in ("build", "results/local"):
        shutil.rmtree(folder / made, ignore_errors=True)


def told(places: Counter) -> str:
    """Where kills hit, for the report."""
    return ", ".join(f"{places[where]} in {where}" for where in sorted(places) if where != ENDED)


def wait_until_gone(processes: list[psutil.Process]) -> None:
    """Raises AssertionError if one of them is there after five minutes."""
    _, alive = psutil.wait_procs(processes, timeout=300)
    assert not alive


def kernels_of(process: subprocess.Popen) -> list[psutil.Process]:
    """The processes that a reproduction has started, as soon as there is one."""
    found: list[psutil.Process] = []
    while not found and process.poll() is None:
        time.sleep(0.1)
        found = psutil.Process(process.pid).children(recursive=True)
    return found
