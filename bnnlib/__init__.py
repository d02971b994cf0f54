"""Binarized networks in PyTorch: layers, optimizers, and kernels that run on bits."""

import os

# Read by OpenMP when torch is imported. By default its threads wait for each other by spinning for
# long, and a training on two cores then crawls while one other process is busy.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# Read by torch when it first takes memory: large pages, because what is
# fresh from the system comes page by page, and small ones take as long as filling them.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
