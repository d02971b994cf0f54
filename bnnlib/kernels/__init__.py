"""Kernels. They know arrays and words, and nothing of layers or training."""

import os
import sys
from importlib.util import find_spec

from bnnlib.kernels import cache_folder


def compiles() -> bool:
    """Whether Numba is there and compiles.

    With NUMBA_DISABLE_JIT it would call kernels as plain Python, which they are not; plain torch
    then does what they do.
    """
    if find_spec("numba") is None:
        return False
    if "numba" in sys.modules:
        return not sys.modules["numba"].core.config.DISABLE_JIT
    try:
        return int(os.environ.get("NUMBA_DISABLE_JIT", "0")) == 0
    except ValueError:  # Numba warns, and compiles
        return True


cache_folder.choose()
