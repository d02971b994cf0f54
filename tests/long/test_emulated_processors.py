"""CPU kernels under an emulator (Debian's qemu-user) of processors that have none of AVX.

On ARM: set ARM64_PYTHON to a command that runs an arm64 Python with NumPy and Numba, such as
"qemu-aarch64 -L FOLDER FOLDER/usr/bin/python3.11"; without one its trial is skipped.
"""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from study import ROOT

TIMES = 40  # of each family of kernels
TESTS = ROOT / "tests" / "support"
# OpenBLAS, left to itself, takes the emulated processor for one that has AVX.
NEHALEM = ("qemu-x86_64", "-cpu", "Nehalem", "-E", "OPENBLAS_CORETYPE=Nehalem")
X86_EMULATOR = pytest.mark.skipif(not shutil.which(NEHALEM[0]), reason="no qemu-x86_64")


def said(command: list[str], cache: Path, **variables: str) -> str:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{TESTS}"}
    environment |= {"NUMBA_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-2000:]}"
    return done.stdout.strip()


@X86_EMULATOR
def test_a_product_compiled_on_an_emulated_nehalem(report, tmp_path):
    """The processor tells Numba what it is."""
    assert said([*NEHALEM, sys.executable, str(TESTS / "one_product.py")], tmp_path) == "True"
    report("an emulated x86 Nehalem (no AVX): a product compiled and run there", 1, "equal")


@X86_EMULATOR
def test_every_kernel_on_an_emulated_nehalem(report, tmp_path):
    """Compiled for it outside of the emulator, where that takes a tenth of the time."""
    named = {"NUMBA_CPU_NAME": "nehalem", "NUMBA_CPU_FEATURES": ""}
    command = [sys.executable, str(TESTS / "every_kernel.py"), str(TIMES)]
    said(command, tmp_path, **named)
    path, compared, kernels = said([*NEHALEM, *command], tmp_path, **named).split()
    assert path == "generic"
    report(
        f"an emulated x86 Nehalem (no AVX): {kernels} kernels, compiled for it outside",
        int(compared),
        "all equal their references",
    )


@pytest.mark.skipif("ARM64_PYTHON" not in os.environ, reason="no ARM64_PYTHON")
def test_products_on_an_emulated_arm(report, tmp_path):
    command = [*shlex.split(os.environ["ARM64_PYTHON"]), str(TESTS / "numpy_products.py")]
    path, compared = said(command, tmp_path).split()
    assert path == "neon"
    report(
        "an emulated ARM processor (NEON): products compiled and run there, on NumPy alone",
        int(compared),
        "all equal NumPy's own",
    )
