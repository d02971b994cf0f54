"""The run records and networks that pages rest on, copied beside them to trace numbers by.

    python -m tools.collect RECIPE --profile P

puts the finished runs of a recipe, made by `python -m study.train`, among the committed ones: for
maintainers, and for what takes too long to be made along with a page.
"""

import argparse
import json
import sys
from pathlib import Path

from bnnlib.files import print_anywhere
from study import recipes
from study.recipes import ablations, open_questions, paper, sweeps
from study.train import runs
from study.train.runner import network_name
from tools import site
from tools.files import replace_all

# No page reads the networks of these recipes: their records are kept, their networks are not.
RECORD_ALONE = {
    recipe.name
    for recipe in (
        paper.MNIST_TORCH7_CODE,
        paper.MNIST_THEANO_FIRST_EPOCH,
        *sweeps.RATE_RECIPES,
        *ablations.GRADIENTS_LATER,
        *ablations.SHIFT[1:],
        *ablations.GAPS_MNIST,
        *ablations.GAPS_CIFAR10,
        *paper.SVHN_PART,
        *open_questions.OPEN_BITS,
        *open_questions.OPEN_REGULARIZERS,
    )
}


def collect(metrics: dict, results: Path, to_commit: bool = False) -> dict[Path, bytes]:
    """Target in the results folder -> content, for every record that a page's metrics name.

    A network goes with its record if one lies beside it and pages read it. Raises ValueError naming
    a record that is nowhere to be found or, `to_commit`, that is not fit to be committed.
    """
    known = _by_digest(runs.COMMITTED, runs.FRESH)
    contents: dict[Path, bytes] = {}
    for record in metrics["records"]:
        recipe, profile = record["recipe"], record["profile"]
        name = f"{recipe}/{profile}/{record['device']}-seed{record['seed']}"
        if record["digest"] not in known:
            raise ValueError(f"{metrics['notebook']} names the run {name}, which is nowhere")
        source = known[record["digest"]]
        if to_commit:
            _require_fit(name, source)
        contents |= _copies(source, results, name)
    return contents


def _copies(source: Path, results: Path, name: str) -> dict[Path, bytes]:
    """Target -> content of a record, recipe/profile/device-seed by name, and of its network."""
    copies = {results / "runs" / f"{name}.json": source.read_bytes()}
    network, (recipe, profile, stem) = source.with_suffix(".safetensors"), name.split("/")
    if network.exists() and recipe not in RECORD_ALONE:
        seed = int(stem.split("-seed")[1])
        copies[results / "models" / network_name(recipe, profile, seed)] = network.read_bytes()
    return copies


def finished(recipe: str, profile: str, results: Path) -> dict[Path, bytes]:
    """Target -> content, for every run of a named recipe that build/runs holds.

    Raises ValueError where there is none, or one that is not fit to be committed.
    """
    folder = runs.fresh_path(recipes.at_profile(recipes.by_name(recipe), profile), "cpu", 0).parent
    contents: dict[Path, bytes] = {}
    for source in sorted(folder.glob("*-seed*.json")):
        if runs.read_record(source)["profile"] != profile:
            continue  # the very same recipe, made for another profile
        name = f"{recipe}/{profile}/{source.stem}"
        _require_fit(name, source)
        contents |= _copies(source, results, name)
    if not contents:
        raise ValueError(f"{runs.FRESH} holds no finished run of {recipe} at {profile}")
    return contents


def _require_fit(name: str, source: Path) -> None:
    """Raise ValueError for a run on stand-in data or from sources that no commit holds."""
    provenance = json.loads(source.read_bytes())["provenance"]
    flaws = {"dirty": "was made from uncommitted sources", "stand_in": "was made on stand-in data"}
    for flag, flaw in flaws.items():
        if provenance[flag]:
            raise ValueError(
                f"the run {name} {flaw} and can't be committed: remove "
                f"{source.parent.name}/{source.name} from {source.parent.parent.name}/ and repeat"
            )


def _by_digest(*folders: Path) -> dict[str, Path]:
    """Digest -> path of the record that has it."""
    paths = [path for folder in folders for path in folder.rglob("*-seed*.json")]
    return {json.loads(path.read_bytes())["digest"]: path for path in paths}


def superseded(models: Path) -> list[Path]:
    """Network files of a recipe beside one of a more faithful profile: only the best is kept."""
    best: dict[str, list[Path]] = {}
    for profile in recipes.FAITHFUL:
        files = models.glob(f"*-{profile}.safetensors")
        seeded = models.glob(f"*-{profile}-seed*.safetensors")
        for path in [*files, *seeded]:
            best.setdefault(path.stem.replace(f"-{profile}", ""), []).append(path)
    return [path for paths in best.values() for path in paths[1:]]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.collect", description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--profile", required=True)
    options = parser.parse_args(arguments)
    try:
        results = runs.ROOT / "results"
        contents = finished(options.recipe, options.profile, results)
        replace_all(contents)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    outdated = superseded(runs.NETWORKS)
    for path in outdated:
        path.unlink()
    replace_all({results / "index.html": site.index(results).encode()})  # it lists all runs
    for path in sorted(set(contents) - set(outdated)):
        print(path.relative_to(runs.ROOT))
    return 0


if __name__ == "__main__":
    print_anywhere()
    sys.exit(main())
