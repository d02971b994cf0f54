"""A process that trains one run after another for `side_by_side`: python -m study.train.worker

It reads a run a line on standard input, and writes what the run says, and how it ended, as lines of
JSON on standard output.
"""

import json
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from typing import TextIO

import torch

from study import recipes
from study.train import runner
from study.train.progress import Lines

SAID = "said"  # one line of what a run says
ENDED = "ended"  # why a run failed, or nothing


def write(file: TextIO, kind: str, text: str) -> None:
    """Tell the parent one thing of a kind, SAID or ENDED."""
    print(json.dumps([kind, text]), file=file, flush=True)


def read(line: str) -> tuple[str, str]:
    """(kind, text) of a line that a worker wrote, or that a library of its wrote between."""
    with suppress(ValueError):
        match json.loads(line):
            case [str(kind), str(text)] if kind in (SAID, ENDED):
                return kind, text
    return SAID, line.strip()


def reason(problem: Exception) -> str:
    """Say on one line why a run failed: the error's text, or its kind if it has none."""
    return " ".join(str(problem).split()) or type(problem).__name__


def train(name: str, profile: str, seed: int, threads: int) -> str:
    """Train a named recipe on so many threads; -> why that failed, on one line, or nothing."""
    torch.set_num_threads(threads)
    recipe = recipes.at_profile(recipes.by_name(name), profile)
    try:
        runner.run(recipe, profile, seed, runner.default_device())
    except runner.FAILURES as problem:
        return reason(problem)
    return ""


def main() -> None:
    """Train what standard input names, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    parent = sys.stdout
    lines = Lines(lambda said: write(parent, SAID, said))
    for line in sys.stdin:
        with redirect_stdout(lines), redirect_stderr(lines):
            failure = train(*json.loads(line))
        write(parent, ENDED, failure)


if __name__ == "__main__":
    main()
