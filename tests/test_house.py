"""What each room of the house may import: the rules of CONTRIBUTING, read off the syntax trees."""

import ast
from graphlib import CycleError, TopologicalSorter

import pytest

from study import ROOT
from tools import rooms

# Floors of the study, ground first: a module imports its own floor or a lower one.
FLOORS = (
    {"study", "study.recipes"},
    {"study.data"},
    {"study.train"},
    {"study.bench", "study.claims", "study.verdicts", "study.evidence", "study.rates"},
    {"study.tables", "study.ablation_tables", "study.few_bits"},
    {"study.factorial", "study.figures", "study.curves", "study.filters"},
    {"study.energy", "study.randomness"},
    {"study.shared_filters", "study.generalization_gap", "study.retrieval", "study.page"},
    {"study.claim_tables", "study.captions", "study.measured_captions"},
    {"study.report", "study.playground"},
)
ALONE = {  # a package -> the only places that import it
    "torch.distributed": ("bnnlib.parallel",),
    "dask": ("study.train.cluster",),
    "distributed": ("study.train.cluster",),
    "numba": ("bnnlib.kernels.cpu", "study.bench.plain_kernels", "study.shared_filters"),
    "triton": ("bnnlib.kernels",),
}


def modules() -> dict[str, ast.Module]:
    """Every module of the library and the study, by its dotted name."""
    found = {}
    for folder in ("bnnlib", "study"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(path.read_text("utf-8"))
    return found


MODULES = modules()


def imports(name: str) -> set[str]:
    """The modules that one imports, at its top or in a function; ours by their full names."""
    found = set()
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            submodules = full & MODULES.keys()
            found |= submodules or {node.module}
            if submodules and submodules != full:
                found.add(node.module)
    return found - {name}


def inside(name: str, place: str) -> bool:
    return name == place or name.startswith(f"{place}.")


def floor(name: str) -> int:
    """The floor on which a module of the study stands."""
    for number, places in enumerate(FLOORS[1:], start=1):
        if any(inside(name, place) for place in places):
            return number
    assert name == "study" or inside(name, "study.recipes"), f"{name} has no floor"
    return 0


def test_the_library_knows_no_experiment():
    assert not [
        (m, i) for m in MODULES if inside(m, "bnnlib") for i in imports(m) if inside(i, "study")
    ]


@pytest.mark.parametrize(
    ("place", "allowed"), [("bnnlib.kernels", "bnnlib.kernels"), ("bnnlib.xnor", "bnnlib.kernels")]
)
def test_kernels_know_nothing_above_them(place, allowed):
    ours = {i for m in MODULES if inside(m, place) for i in imports(m) if inside(i, "bnnlib")}
    assert not [i for i in ours if not inside(i, allowed) and i != "bnnlib"]


def test_the_study_stands_floor_upon_floor():
    up = [
        (name, other)
        for name in MODULES
        if inside(name, "study")
        for other in imports(name)
        if inside(other, "study") and floor(other) > floor(name)
    ]
    assert not up


def test_nothing_goes_round_in_a_circle():
    ours = {name: imports(name) & MODULES.keys() for name in MODULES}
    for name in ours:  # a package's face offers its modules, which may ask for their package
        ours[name] -= {name.rpartition(".")[0]}
    try:
        tuple(TopologicalSorter(ours).static_order())
    except CycleError as circle:
        pytest.fail(" -> ".join(circle.args[1]))


def test_the_house_stands_on_nothing_of_its_workshop():
    workshop = ("tools", "tests", "benchmarks", "notebooks")
    assert not [
        (name, i) for name in MODULES for i in imports(name) if any(inside(i, w) for w in workshop)
    ]


@pytest.mark.parametrize("package", ALONE)
def test_what_one_room_alone_imports(package):
    users = {name for name in MODULES if any(inside(i, package) for i in imports(name))}
    assert users, package
    strangers = [n for n in users if not any(inside(n, place) for place in ALONE[package])]
    assert not strangers


def test_contributing_names_every_room_as_it_is_today():
    assert rooms.DOCUMENT.read_text("utf-8") == rooms.document(), "run python -m tools.rooms"


def test_every_folder_of_code_has_a_rule():
    folders = {path.parent.relative_to(ROOT).as_posix() for path in ROOT.rglob("*/__init__.py")}
    ours = {f for f in folders if f.split("/")[0] in ("bnnlib", "study", "tools", "benchmarks")}
    assert ours == rooms.FOLDERS.keys()
    assert all(rooms.purpose(path) for folder in ours for path in rooms.modules(folder))
