"""What bits gain beside bfloat16 and int8, machine by machine: processors multiply those, too."""

from collections.abc import Mapping

import pandas as pd

from study.bench.baselines import BFLOAT16, INT8, LIBRARIES
from study.bench.timing import milliseconds
from study.verdicts import listed

RIVALS = {"float32 library": LIBRARIES, "bfloat16": (BFLOAT16.name,), "int8": (INT8.name,)}
# LLVM's names of `INT8.instructions` -> how a reader knows them
NAMES = {"amx-int8": "AMX tiles", "avx512vnni": "VNNI", "avxvnni": "VNNI"}


def beside(files: Mapping[str, dict]) -> pd.DataFrame:
    """A row a machine: what multiplies int8 there, N, and each rival's time over ours.

    files: label -> measurements. N: of the largest square product that was timed in int8; machines
    without one are left out.
    """
    rows = [_row(label, measured) for label, measured in files.items() if _squares(measured)]
    columns = ["machine", "for int8 it has", "N", *(f"{name} / ours" for name in RIVALS)]
    return pd.DataFrame(rows, columns=columns)


def _squares(measured: dict) -> list[int]:
    """The sizes of the square products that were timed in int8."""
    timed = [row for row in measured["rows"] if row["implementation"] == INT8.name]
    return [row["m"] for row in timed if row["m"] == row["n"] == row["k"]]


def _row(label: str, measured: dict) -> list:
    n = max(_squares(measured))
    of = lambda names: milliseconds(measured["rows"], f"{n}x{n}x{n}", *names)  # noqa: E731
    ratios = [of(names) / of(["ours"]) for names in RIVALS.values()]
    return [label, int8_instructions(measured["processor"]), n, *ratios]


def int8_instructions(processor: dict) -> str:
    """Return the name of what a processor multiplies int8 with, "none" if nothing is on record.

    processor: of measurements, as `bench.processor` makes it.
    """
    if processor["path"].startswith("sm "):
        return "tensor cores"
    had = (NAMES[name] for name in INT8.instructions if name in processor["flags"])
    return next(had, "none")


def told(frame: pd.DataFrame) -> str:
    """Tell what is left for bits beside int8; frame: of `beside`, of one row or more."""
    groups = frame.groupby("for int8 it has", sort=False)["int8 / ours"]
    ends = groups.agg(["min", "max"]).sort_values("max", ascending=False)
    parts = [f"{_span(low, high)} times {_with(has)}" for has, low, high in ends.itertuples()]
    return f"The same sums in int8 take, in times of ours on bits: {listed(parts)}."


def _with(instructions: str) -> str:
    if instructions == "none":
        return "where a processor has no instructions for it"
    return f"with {instructions}"


def _span(low: float, high: float) -> str:
    shown = [f"{value:.{0 if value >= 10 else 1}f}" for value in (low, high)]
    return shown[0] if shown[0] == shown[1] else " to ".join(shown)
