"""The run records and networks that pages rest on, copied beside them to trace numbers by."""

import json
from pathlib import Path

from bnnlib import runs
from tools.summary import FAITHFUL


def collect(metrics: dict, results: Path, to_commit: bool = False) -> dict[Path, bytes]:
    """Target in the results folder -> content, for every record that a page's metrics name.

    A network goes with its record if one lies beside it. Raises ValueError naming a record that is
    nowhere to be found or, `to_commit`, that is not fit to be committed.
    """
    known = _by_digest(runs.COMMITTED, runs.FRESH)
    contents = {}
    for record in metrics["records"]:
        recipe, profile = record["recipe"], record["profile"]
        name = f"{recipe}/{profile}/{record['device']}-seed{record['seed']}"
        if record["digest"] not in known:
            raise ValueError(f"{metrics['notebook']} names the run {name}, which is nowhere")
        source = known[record["digest"]]
        if to_commit:
            _require_fit(name, source)
        contents[results / "runs" / f"{name}.json"] = source.read_bytes()
        network = source.with_suffix(".safetensors")
        if network.exists():
            contents[results / "models" / f"{recipe}-{profile}.safetensors"] = network.read_bytes()
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
    for profile in FAITHFUL:
        for path in models.glob(f"*-{profile}.safetensors"):
            best.setdefault(path.name.removesuffix(f"-{profile}.safetensors"), []).append(path)
    return [path for paths in best.values() for path in paths[1:]]
