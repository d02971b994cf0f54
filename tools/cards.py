"""A model card beside every committed network: python -m tools.cards.

What a network was trained on, its labels and its error are written into its file's metadata, too,
where `bnnlib.classify` reads them; its numbers stay as they are. `make results` calls this.
"""

import re
import sys
import tempfile
from pathlib import Path

from bnnlib.cards import card
from bnnlib.files import print_anywhere
from bnnlib.network_file import trained_on, with_training
from study import data, recipes
from study.data import store
from study.train import runs
from tools.files import replace_all

LICENCE = "mit"  # this repository's
NAME = re.compile(rf"(.+)-({'|'.join(recipes.PROFILES)})(?:-seed(\d+))?")


def contents(models: Path = runs.NETWORKS, records: Path = runs.COMMITTED) -> dict[Path, bytes]:
    """Target -> content of every network with its metadata, and of its card.

    Raises ValueError, naming it, for a network whose record is nowhere.
    """
    made: dict[Path, bytes] = {}
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(models.glob("*.safetensors")):
            told = with_training(path.read_bytes(), _training(path, records))
            described = Path(folder) / path.name
            described.write_bytes(told)
            made[path] = told
            made[path.with_suffix(".md")] = card(described, licence=LICENCE).encode()
    return made


def _training(path: Path, records: Path) -> dict:
    """Training of a network, as its record tells it."""
    if not (found := NAME.fullmatch(path.stem)):
        raise ValueError(f"{path.name} is not named after a recipe and a profile")
    recipe, profile, number = found.groups()
    seed = int(number or 0)
    paths = [records / recipe / profile / f"{kind}-seed{seed}.json" for kind in ("cuda", "cpu")]
    there = next((each for each in paths if each.exists()), None)
    if there is None:
        raise ValueError(f"{path.name} has no record: {paths[-1].relative_to(records)} is missing")
    record = runs.read_record(there)
    dataset = record["recipe"]["dataset"]
    tested = store.SIZES[dataset][1]
    name = f"{there.relative_to(records).as_posix()} of commit {record['provenance']['commit'][:7]}"
    return trained_on(dataset, data.LABELS[dataset], record["test_error"], tested, name)


def outdated(models: Path) -> list[Path]:
    """Cards whose network is gone."""
    return [path for path in models.glob("*.md") if not path.with_suffix(".safetensors").exists()]


def write(models: Path = runs.NETWORKS, records: Path = runs.COMMITTED) -> None:
    """Put every card beside its network, and its metadata into it."""
    replace_all(contents(models, records))
    for path in outdated(models):
        path.unlink()


def main() -> int:
    try:
        write()
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(list(runs.NETWORKS.glob('*.md')))} model cards beside their networks")
    return 0


if __name__ == "__main__":
    print_anywhere()
    sys.exit(main())
