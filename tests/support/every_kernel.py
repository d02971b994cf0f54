"""Every CPU kernel once or a few times, compared with its reference by equality.

    python tests/support/every_kernel.py TIMES [FOLDER [PROCESSOR...]]

Run where Numba compiles for another processor (NUMBA_CPU_NAME, NUMBA_CPU_FEATURES), or where one is
emulated. Prints the path, how many comparisons were made, and how many kernels that took. The file
`kernels` in FOLDER says which they were, and with arguments of which types, for `foreign`; and
objects for each PROCESSOR are left there, of kernels that no earlier process has compiled.
"""

import importlib
import pickle
import pkgutil
import sys
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
from foreign import write_objects
from llvmlite import binding
from numba.core.dispatcher import Dispatcher
from stressed_kernels import STRESSED, integers

from bnnlib.kernels import cpu
from bnnlib.kernels.cpu import packing, processor
from study import shared_filters
from study.bench import plain_kernels

MODULES = [f"{cpu.__name__}.{one.name}" for one in pkgutil.iter_modules(cpu.__path__)]


def dispatchers() -> list[tuple[str, str, Dispatcher]]:
    """(module, name, kernel) of everything in bnnlib that Numba compiles for Python to call.

    What kernels call is part of them.
    """
    found = []
    for module in (*MODULES, shared_filters.__name__):
        for name, one in vars(importlib.import_module(module)).items():
            if isinstance(one, Dispatcher) and one.py_func.__module__ == module:
                found.append((module, name, one))
    inner = {name for _, _, one in found for name in one.py_func.__code__.co_names}
    return [each for each in found if each[1] not in inner]


def distinct_filters(seed: int) -> None:
    x = integers((2, 5, 6, 7), seed, -1, 2).to(torch.int8)
    weight = integers((9, 5, 3, 3), seed + 1, 0, 2) * 2.0 - 1
    found = shared_filters.conv2d(x, shared_filters.plan(weight))
    assert torch.equal(found.double(), F.conv2d(x.double(), weight.double(), padding=1))


def main(times: str, folder: str = "", *processors: str) -> None:
    for stress in STRESSED.values():
        for number in range(1, int(times) + 1):
            stress(number, Path())
    for seed in range(int(times)):
        distinct_filters(seed)
    for looks_up in (True, False):
        with patch.object(packing, "looks_up", lambda planes=False, so=looks_up: so):
            plain_kernels.run_bound(64, 64, 64)  # has no result
    missing = [name for _, name, one in dispatchers() if not one.signatures]
    assert not missing, f"never called: {missing}"
    found = [(*where, types) for *where, one in dispatchers() for types in one.signatures]
    print(processor.path(), int(times) * (len(STRESSED) + 1), len(found))
    if folder:
        (Path(folder) / "kernels").write_bytes(pickle.dumps(found))
    if processors:
        write_objects(found, Path(folder), binding.get_process_triple(), processors)


if __name__ == "__main__":
    main(*sys.argv[1:])
