"""Binarized neural networks, reproduced: data, recipes, training, claims, measurements, pages.

Stands on `bnnlib`, the library, which knows nothing of it.
"""

from pathlib import Path

import bnnlib  # noqa: F401 - what it sets for OpenMP and torch must be set before torch is imported

ROOT = Path(__file__).resolve().parent.parent
