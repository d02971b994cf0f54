"""CPU kernels under an emulator (Debian's qemu-user) of processors that have none of AVX.

On ARM: set ARM64_PYTHON to a command that runs an arm64 Python with NumPy, Numba, pandas and a
torch that needs no GPU; without one its trial is skipped. docs/platforms.md says how to make one.

An emulator takes ten times as long or more, so each kernel is compared a few times only, and what
is compiled for it stays in build/emulated: a trial that was interrupted goes on.
"""

import os
import shlex
import shutil
import subprocess
import sys

import pytest

from study import ROOT

TIMES = 12  # of each family of kernels, so that none is left out
SUPPORT = ROOT / "tests" / "support"
EVERY_KERNEL = [str(SUPPORT / "every_kernel.py"), str(TIMES)]
# OpenBLAS, left to itself, takes the emulated processor for one that has AVX.
NEHALEM = ("qemu-x86_64", "-cpu", "Nehalem", "-E", "OPENBLAS_CORETYPE=Nehalem")
X86_EMULATOR = pytest.mark.skipif(not shutil.which(NEHALEM[0]), reason="no qemu-x86_64")


def said(command: list[str], kept: str, **variables: str) -> str:
    """What a command prints that must end well, with compiled kernels in the folder `kept`."""
    folder = ROOT / "build" / "emulated" / kept
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{SUPPORT}"}
    environment |= {"NUMBA_CACHE_DIR": str(folder), "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-2000:]}"
    return done.stdout.strip()


@X86_EMULATOR
def test_a_product_compiled_on_an_emulated_nehalem(report):
    """The processor tells Numba what it is."""
    command = [*NEHALEM, sys.executable, str(SUPPORT / "one_product.py")]
    assert said(command, "nehalem-itself") == "True"
    report("an emulated x86 Nehalem (no AVX): a product compiled and run there", 1, "equal")


@X86_EMULATOR
def test_every_kernel_on_an_emulated_nehalem(report):
    """Compiled for it outside of the emulator, where that takes a tenth of the time."""
    named = {"NUMBA_CPU_NAME": "nehalem", "NUMBA_CPU_FEATURES": ""}
    command = [sys.executable, *EVERY_KERNEL]
    said(command, "nehalem", **named)
    path, compared, kernels = said([*NEHALEM, *command], "nehalem", **named).split()
    assert path == "generic"
    report(
        f"an emulated x86 Nehalem (no AVX): {kernels} kernels, compiled for it outside",
        int(compared),
        "all equal their references",
    )


@pytest.mark.skipif("ARM64_PYTHON" not in os.environ, reason="no ARM64_PYTHON; compiled, not run")
def test_every_kernel_on_an_emulated_arm(report):
    command = [*shlex.split(os.environ["ARM64_PYTHON"]), *EVERY_KERNEL]
    path, compared, kernels = said(command, "arm").split()
    assert path == "neon"
    report(
        f"an emulated ARM processor (NEON): {kernels} kernels, compiled and run there",
        int(compared),
        "all equal their references",
    )
