"""Kernels. They know arrays and words, and nothing of layers or training."""

import hashlib
import os
import sys
from pathlib import Path


def _name_of_the_cache() -> None:
    """Let Numba keep compiled kernels in a folder for this very state of all their sources.

    By itself it notices changes of a function's own file, but not of functions that it calls in
    other files, and would go on using what it has made of the old ones.
    """
    here = Path(__file__).parent
    sources = b"".join(path.read_bytes() for path in sorted(here.glob("*.py")))
    name = f"bnnlib-{hashlib.sha256(sources).hexdigest()[:16]}"
    folder = Path(os.environ.get("NUMBA_CACHE_DIR", here / "__pycache__"))
    if folder.name.startswith("bnnlib-"):  # of the process that started this one
        folder = folder.parent
    os.environ["NUMBA_CACHE_DIR"] = str(folder / name)
    if "numba" in sys.modules:
        sys.modules["numba"].core.config.reload_config()


_name_of_the_cache()
