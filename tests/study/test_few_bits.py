"""What bits gain beside fewer bits: each machine's own, none made up."""

import pytest

from study import few_bits


def measured(flags, *times, path="avx512"):
    """times: N, then ms of ours, of a float32 library, of bfloat16 and of int8 or None."""
    rows = []
    for n, *ms in times:
        names = ("ours", "oneDNN float32", "torch bfloat16", "torch int8")
        for name, each in zip(names, ms, strict=True):
            row = {"implementation": name, "output": "int32", "packing": False, "threads": 2}
            row |= {"what": f"{n}x{n}x{n}", "m": n, "n": n, "k": n, "ms": {"p50": each}}
            rows += [row] * (each is not None)
    return {"rows": rows, "processor": {"flags": flags, "path": path}}


def test_each_machine_is_told_at_its_largest_square_in_int8():
    files = {
        "new": measured(["amx-int8", "avx512vnni"], (64, 1.0, 9.0, 3.0, 2.0), (128, 2, 30, 8, 2.5)),
        "old": measured([], (64, 1.0, 8.0, 90.0, 300.0), (128, 2.0, 30.0, None, None)),
        "untimed": measured([], (64, 1.0, 8.0, None, None)),
    }
    frame = few_bits.beside(files)
    assert frame.values.tolist() == [
        ["new", "AMX tiles", 128, 15.0, 4.0, 1.25],
        ["old", "none", 64, 8.0, 90.0, 300.0],
    ]
    assert few_bits.told(frame) == (
        "The same sums in int8 take, in times of ours on bits: 300 times where a processor has no "
        "instructions for it and 1.2 times with AMX tiles."
    )


def test_machines_of_the_same_instructions_are_told_together():
    files = {str(ms): measured(["avx512vnni"], (64, 1.0, 9.0, 9.0, ms)) for ms in (3.02, 4.0, 12.0)}
    told = few_bits.told(few_bits.beside(files))
    assert told.endswith(" 3.0 to 12 times with VNNI.")


@pytest.mark.parametrize(
    ("flags", "path", "has"),
    [([], "sm 9.0", "tensor cores"), (["avxvnni"], "avx2", "VNNI"), (["avx2"], "avx2", "none")],
)
def test_instructions_are_named(flags, path, has):
    assert few_bits.int8_instructions({"flags": flags, "path": path}) == has
