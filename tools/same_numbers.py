"""Whether the present sources make the numbers that those of older commits made, bit for bit.

    python -m tools.same_numbers COMMIT [COMMIT ...]

trains every recipe with all of them: whole at smoke, and some steps at its own size, that of the
paper profile, on stand-in data. Where everything is equal, results/same_numbers.json says so of
both sources' hashes, and pages say it of the records of the older ones, and of those whose numbers
the older ones were seen to make before. A faster way to the same numbers then outdates no record.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from study import ROOT, recipes
from study.train import runs

# Run by both sources' own bnnlib, so it uses only what both have: files say what that is, since an
# installed checkout lends its modules to all that lack them. A line a recipe: its name, and a
# hash of its history and network at smoke and of its network after the steps at its own size.
SCRIPT = """
import hashlib, os, sys
from dataclasses import replace
import torch
if os.path.isdir("study/train"):
    from study import recipes
    from study.data.training_data import training_data
    from study.train import loop, runs
else:  # commits in which the library and the study were one package
    from bnnlib import fit as loop, recipes, runs
    from bnnlib.inputs import training_data
if os.path.isfile("study/train/provenance.py"):
    from study.train.provenance import source_hash
else:  # commits in which the records' module told it
    source_hash = runs.source_hash
if os.path.isfile("study/train/eager.py"):
    from study.train.eager import step
else:  # commits in which the loop's module had the step
    step = loop.step

STEPS = 3
RATE = 2**-10  # whatever a profile's schedule was: that is part of a recipe, not of the sources
torch.set_num_threads(1)

def entered(digest, network):
    for name, value in network.state_dict().items():
        digest.update(name.encode() + value.contiguous().numpy().tobytes())

def of(name):
    digest = hashlib.sha256()
    recipe = recipes.at_profile(recipes.by_name(name), "smoke")
    history, outcome, network = loop.fit(recipe, training_data(recipe, "smoke"), 0)
    for epoch in history:
        del epoch["seconds"]
    digest.update(runs.canonical([history, outcome]))
    entered(digest, network)
    large = replace(recipes.by_name(name), learning_rate=RATE)  # no profile's size: those change
    training = training_data(large, "smoke")
    state = loop.begin(large, training, 0)
    state.network.train()
    for batch in torch.arange(STEPS * large.batch_size).split(large.batch_size):
        batch %= len(training.train.images)
        split = training.train.images[batch], training.train.labels[batch]
        step(state.network, state.optimizer, *split)
    entered(digest, state.network)
    return digest.hexdigest()

print("sources", source_hash())
known = {recipe.name for recipe in recipes.RECIPES}
for name in sys.argv[1:]:
    if name in known:  # an older commit doesn't have the recipes that came later
        print(name, of(name), flush=True)
"""


def fingerprints(checkout: Path, names: list[str]) -> dict[str, str]:
    """Recipe -> the hash of what a checkout makes of it; "sources" -> its sources' hash.

    Names that the checkout doesn't know are left out. Raises subprocess.CalledProcessError if it
    can't train one.
    """
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, *names],
            cwd=checkout,
            env=os.environ | {"PYTHONPATH": str(checkout), "BNN_RUNS": empty},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    lines = (line.split() for line in done.stdout.splitlines())
    return {line[0]: line[1] for line in lines if line[0] in ("sources", *names)}


def different(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """The recipes that do not make the same numbers, or that one side lacks."""
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def check_out(commit: str, folder: Path) -> None:
    """A clone at an older commit. Raises subprocess.CalledProcessError for an unknown one."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    subprocess.run(["git", "-C", str(folder), "checkout", "--quiet", commit], check=True)


def enter(before: str, now: str, commit: str, count: int) -> None:
    """Add a pair to the file; what was shown of sources that lead no longer to today's, goes."""
    date = datetime.now(UTC).date().isoformat()
    pair = {"before": before, "now": now, "commit": commit, "recipes": count, "date": date}
    pairs = [*(old for old in runs.same_numbers() if old["before"] not in (before, now)), pair]
    alike = runs.made_alike(now, pairs)
    kept = [each for each in pairs if each["now"] in alike]
    runs.write_record(runs.SAME, {"schema": runs.SCHEMA, "pairs": kept})


def of_commit(commit: str, names: list[str]) -> dict[str, str]:
    """The fingerprints of an older commit."""
    with tempfile.TemporaryDirectory() as folder:
        older = Path(folder) / "older"
        check_out(commit, older)
        return fingerprints(older, names)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 if all numbers are the same, 1 if some are not."""
    parser = argparse.ArgumentParser(prog="python -m tools.same_numbers", description=__doc__)
    parser.add_argument("commits", nargs="+", metavar="COMMIT", help="an older one")
    commits = parser.parse_args(arguments).commits
    names, status = [recipe.name for recipe in recipes.RECIPES], 0
    made = [of_commit(commit, names) for commit in commits]
    now = fingerprints(ROOT, names)
    sources = now.pop("sources")
    for commit, before in zip(commits, made, strict=True):
        older = before.pop("sources")
        kept = {name: now[name] for name in now if name in before}  # later recipes changed nothing
        if found := different(before, kept):
            print(f"{commit}: other numbers: {', '.join(found)}", file=sys.stderr)
            status = 1
        else:
            enter(older, sources, commit, len(kept))
            print(f"{len(kept)} recipes make the numbers of {commit}: {runs.SAME}")
    return status


if __name__ == "__main__":
    sys.exit(main())
