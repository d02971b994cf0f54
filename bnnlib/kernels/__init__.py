"""Kernels. They know arrays and words, and nothing of layers or training."""

import hashlib
import os
import sys
from importlib.util import find_spec
from pathlib import Path


def _name_of_the_cache() -> None:
    """Let Numba keep compiled kernels in a folder for this very state of all their sources.

    By itself it notices changes of a function's own file, but not of functions that it calls in
    other files, and would go on using what it has made of the old ones.
    """
    here, numba = Path(__file__).parent, sys.modules.get("numba")
    sources = b"".join(path.read_bytes() for path in sorted(here.glob("*.py")))
    name = f"bnnlib-{hashlib.sha256(sources).hexdigest()[:16]}"
    given = numba.core.config.CACHE_DIR if numba else os.environ.get("NUMBA_CACHE_DIR")
    folder = Path(given or here / "__pycache__")
    if folder.name.startswith("bnnlib-"):  # of the process that started this one
        folder = folder.parent
    os.environ["NUMBA_CACHE_DIR"] = str(folder / name)
    if numba:  # it has read the environment; its other settings may be somebody else's
        numba.core.config.CACHE_DIR = str(folder / name)


def compiles() -> bool:
    """Whether Numba is there and compiles. With NUMBA_DISABLE_JIT it would call kernels as plain
    Python, which they are not; plain torch then does what they do."""
    if find_spec("numba") is None:
        return False
    if "numba" in sys.modules:
        return not sys.modules["numba"].core.config.DISABLE_JIT
    try:
        return int(os.environ.get("NUMBA_DISABLE_JIT", "0")) == 0
    except ValueError:  # Numba warns, and compiles
        return True


_name_of_the_cache()
