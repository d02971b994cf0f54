"""Programs that make calls: set up the environment, execute the notebooks, build the pages."""

import os
from pathlib import Path


def _have_a_home() -> None:
    """Give Jupyter, which ends without a home, one in build/ where this user has none."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(Path(__file__).parents[1] / "build" / "home")


_have_a_home()
