"""Choose each arm's learning rate by its sweep: `python -m tools.choose_rates`.

Reads the runs of three rates an arm (committed, else in build/runs or $BNN_RUNS) and writes
notebooks/rates.toml, which the evening profile reads. An arm without all three is left out.
"""

import sys

from bnnlib.files import atomic_write
from study import rates
from study.recipes import sweeps

HEAD = """\
# Learning rate of each ablation in the evening profile: the one of three with the lowest validation
# error. Made by python -m tools.choose_rates; no edits by hand.
"""


def text(chosen: dict[str, float]) -> str:
    """The file's content."""
    return HEAD + "".join(f"{name} = {rate!r}\n" for name, rate in chosen.items())


def main() -> int:
    """Write the file. Exit status: 0 if every arm has a rate, 1 if some sweeps are not over."""
    chosen = rates.choice()
    with atomic_write(sweeps.FILE) as file:
        file.write(text(chosen).encode())
    for arm in sweeps.SWEPT:
        rate = chosen.get(arm.name)
        print(f"{arm.name}: {'sweep not over' if rate is None else rates.shown(rate)}")
    return 0 if len(chosen) == len(sweeps.SWEPT) else 1


if __name__ == "__main__":
    sys.exit(main())
