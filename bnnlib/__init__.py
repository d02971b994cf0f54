"""Binarized neural networks, reproduced: what the notebooks share."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
