"""Binarized neural networks, reproduced: what the notebooks share."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Read by OpenMP when torch is imported. By default its threads spin while they wait for each other,
# and one other busy process on a two-core machine then makes a training several times as slow.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
