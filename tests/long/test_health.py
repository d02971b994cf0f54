"""Long runs and many of them: memory and disk do not grow."""

import json
import os
import shutil
import subprocess
import sys

from faults import numbers, reproduce, require_success
from machines import disk_use

from study import ROOT

EPOCHS = 200
SETTLED = 50  # epochs, after which memory must not grow
MOST_GROWTH = 16 * 2**20  # bytes in 150 epochs: a leak of one batch or layer an epoch is above it
REPRODUCTIONS = 10
SLACK = 0.01  # of the disk use: times have more or fewer digits
TRAINED = """
import gc, json, sys
from dataclasses import replace
from pathlib import Path
import psutil
from study import recipes
from study.data.training_data import training_data
from study.train import checkpoints, loop, malloc

epochs, path = int(sys.argv[1]), Path(sys.argv[2])
recipe = replace(recipes.at_profile(recipes.MNIST_THEANO, "smoke"), epochs=epochs)
ended, taken = loop._end_epoch, []

def end_epoch(*arguments):
    ended(*arguments)
    gc.collect()
    taken.append(psutil.Process().memory_info().rss)

checkpoints.EVERY, checkpoints.SHARE, loop._end_epoch = 1, 1, end_epoch
with malloc.keep_freed_memory():  # as `runner.run` does
    loop.fit(recipe, training_data(recipe, "smoke"), 0, "cpu", path)
print(json.dumps(taken))
"""


def test_memory_over_many_epochs(tmp_path, report):
    """Of a run that leaves checkpoints meanwhile."""
    done = subprocess.run(
        [sys.executable, "-c", TRAINED, str(EPOCHS), str(tmp_path / "checkpoint")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    taken = json.loads(done.stdout.splitlines()[-1])
    assert len(taken) == EPOCHS
    growth = max(taken[SETTLED:]) - taken[SETTLED - 1]
    assert growth <= MOST_GROWTH
    report(
        f"Memory of a training of {EPOCHS} epochs",
        EPOCHS,
        f"{taken[SETTLED - 1] / 2**20:.0f} MiB after epoch {SETTLED}, at most "
        f"{growth / 2**20:+.1f} MiB from there on ({MOST_GROWTH >> 20} allowed)",
    )


def test_disk_use_of_many_reproductions(undisturbed, tmp_path, report):
    """Each executes every notebook again; half of them train everything again as well."""
    folder = shutil.copytree(undisturbed.folder, tmp_path / "copy")
    outside = [tmp_path / name for name in ("home", "temporary")]
    for place in outside:
        place.mkdir()
    places = {"HOME": str(outside[0]), "TMPDIR": str(outside[1])}
    names, used = [], []
    for n in range(REPRODUCTIONS):
        shutil.rmtree(folder / "build" / "stamps")
        if n % 2:
            shutil.rmtree(folder / "build" / "runs")
        require_success(reproduce(folder, **places))
        assert numbers(folder) == undisturbed.numbers
        found = (path for place in (folder, *outside) for path in place.rglob("*"))
        names.append({path.relative_to(tmp_path) for path in found})
        used.append(disk_use(folder, *outside))
    assert names[-1] == names[0]
    assert used[-1] <= used[0] * (1 + SLACK)
    report(
        "Smoke reproductions in a row, every notebook executed each time",
        REPRODUCTIONS,
        f"no file more in checkout, home or temporary folder; {used[0]:,} bytes after the first, "
        f"{used[-1]:,} after the last",
    )
