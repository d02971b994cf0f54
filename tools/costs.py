"""Costs of a notebook: noted in build/timings/, said beforehand of the next time."""

import json

import nbformat

from tools import site
from tools.files import replace_all
from tools.run_notebooks import BUILD, Outcome

TIMINGS = BUILD / "timings"


def note(profile: str, outcome: Outcome) -> None:
    """Keep what the notebook took in build/timings/<profile>.json."""
    path = TIMINGS / f"{profile}.json"
    costs = json.loads(path.read_bytes()) if path.exists() else {}
    costs[outcome.notebook] = {
        "seconds": round(outcome.seconds, 1),
        "peak_memory_gb": round(outcome.peak_memory, 2),
    }
    replace_all({path: json.dumps(costs, indent=1).encode()})


def expected(profile: str, notebook: str) -> float:
    """The seconds that it took here last, or else for the committed page; 0 if neither is known."""
    noted, page = TIMINGS / f"{profile}.json", site.COMMITTED / profile / f"{notebook}.ipynb"
    costs = json.loads(noted.read_bytes()) if noted.exists() else {}
    if notebook in costs:
        return costs[notebook]["seconds"]
    if page.exists():
        return nbformat.read(page, as_version=4).metadata.get("execution", {}).get("seconds", 0)
    return 0
