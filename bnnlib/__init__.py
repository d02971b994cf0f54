"""Binarized neural networks, reproduced: what the notebooks share."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Read by OpenMP when torch is imported. By default its threads wait for each other by spinning for
# long, and one other busy process on a two-core machine then makes a training ten times as slow.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
