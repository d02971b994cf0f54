"""Kernels for processors that this machine need not have: run where it can, else compiled."""

import os
import platform
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")

from llvmlite import binding  # noqa: E402, it comes with Numba

from study import ROOT  # noqa: E402

TIMES = 12  # of each family of kernels
X86 = platform.machine().lower() in ("x86_64", "amd64")
HAS_AVX2 = X86 and binding.get_host_cpu_features().get("avx2", False)
ELF = {"x86_64": 62, "aarch64": 183}  # how an object tells what it is for
ARM = ("cortex-a72", "neoverse-n1", "apple-m1")


def python(*arguments: str, cache: Path, **variables: str) -> str:
    """What a Python process prints that must end well."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    environment |= {"NUMBA_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-2000:]}"
    return done.stdout.strip()


def everything(folder: Path, name: str, *processors: str) -> str:
    """All kernels compiled for `name`, run and compared; objects of them for the processors."""
    script = str(ROOT / "tests" / "support" / "every_kernel.py")
    variables = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": ""}
    return python(script, str(TIMES), str(folder), *processors, cache=folder, **variables)


def require_objects(folder: Path, architecture: str, processors: tuple[str, ...]) -> None:
    """As many for every processor, and for its kind."""
    found = {name: list(folder.glob(f"*.{name}.o")) for name in processors}
    assert len({len(files) for files in found.values()}) == 1 and found[processors[0]]
    for file in sum(found.values(), []):
        magic, machine = struct.unpack("<4s14xH", file.read_bytes()[:20])
        assert (magic, machine) == (b"\x7fELF", ELF[architecture]), file.name


@pytest.fixture(scope="module")
def generic(tmp_path_factory) -> tuple[Path, str]:
    """What is left by, and said of, running every kernel as any processor of this kind could."""
    folder = tmp_path_factory.mktemp("generic")
    return folder, everything(folder, "generic", *(("x86-64", "x86-64-v2") if X86 else ()))


def test_every_kernel_equals_its_reference_on_any_processor(generic):
    folder, said = generic
    assert said.startswith("generic " if X86 else "neon ")
    if X86:
        require_objects(folder, "x86_64", ("x86-64", "x86-64-v2"))


@pytest.mark.skipif(not HAS_AVX2, reason="no AVX2")
def test_every_kernel_equals_its_reference_with_avx2(tmp_path):
    processors = "x86-64-v3", "x86-64-v4"
    assert everything(tmp_path, "x86-64-v3", *processors).startswith("avx2 ")
    require_objects(tmp_path, "x86_64", processors)


@pytest.mark.skipif(not X86, reason="not an x86 processor")
def test_a_host_s_features_mean_nothing_where_others_are_named(tmp_path):
    script = str(ROOT / "tests" / "support" / "one_product.py")
    said = python(script, cache=tmp_path, NUMBA_CPU_FEATURES="-avx2")
    assert said == "True"


@pytest.mark.skipif(not HAS_AVX2, reason="no AVX2")
def test_gradients_are_the_same_numbers_however_many_sums_stand_side_by_side(tmp_path):
    script = str(ROOT / "tests" / "support" / "one_gradient.py")
    narrower = {"NUMBA_CPU_NAME": "x86-64-v3", "NUMBA_CPU_FEATURES": ""}
    assert python(script, cache=tmp_path) == python(script, cache=tmp_path, **narrower)


@pytest.fixture(scope="module")
def arm(generic, tmp_path_factory) -> Path:
    """A folder with objects and assembly for ARM."""
    kernels, folder = generic[0] / "kernels", tmp_path_factory.mktemp("arm")
    script = str(ROOT / "tests" / "support" / "foreign.py")
    triple = "aarch64-unknown-linux-gnu"
    python(script, str(kernels), str(folder), triple, *ARM, cache=folder)
    return folder


def test_every_kernel_is_compiled_for_arm(arm):
    require_objects(arm, "aarch64", ARM)


def innermost(assembly: str, instruction: str) -> list[list[str]]:
    """Loops with that instruction that hold no other loop."""
    lines, loops = assembly.splitlines(), []
    for end, line in enumerate(lines):
        jump = re.match(r"\s+(?:b\.\w+|cbn?z\s+\w+,)\s*(\.L\w+)", line)
        starts = [i for i in range(end) if jump and lines[i].startswith(f"{jump[1]}:")]
        loops += [lines[i : end + 1] for i in starts]
    loops = [loop for loop in loops if any(instruction in line for line in loop)]
    return [loop for loop in loops if not any(line.startswith(".L") for line in loop[1:])]


@pytest.mark.parametrize("processor", ARM)
@pytest.mark.parametrize(("instruction", "times"), [("uadalp", {8, 16}), ("tbl", {16, 32})])
def test_arm_counts_and_looks_up_with_its_own_instructions(arm, processor, instruction, times):
    """And keeps the sums of one row in registers; those of two rows do not always all fit."""
    files = list(arm.glob(f"bnnlib.kernels.cpu.xnor_product.matmul.*.{processor}.s"))
    loops = [loop for file in files for loop in innermost(file.read_text(), instruction)]
    found = [sum(instruction in line for line in loop) for loop in loops]
    assert set(found) == times
    few = [loop for loop, count in zip(loops, found, strict=True) if count == min(times)]
    assert not [line for loop in few for line in loop if re.search(r"\bsp\b", line)]


def test_no_two_files_differ_in_case_alone():
    """On a file system that does not tell cases apart, one would replace the other."""
    command = ["git", "-C", str(ROOT), "ls-files"]
    listed = subprocess.run(command, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not in a repository")
    names = listed.stdout.casefold().splitlines()
    assert len(names) == len(set(names))
