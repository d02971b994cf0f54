"""Kernels. They know arrays and words, and nothing of layers or training."""

from bnnlib.kernels import cache_folder

cache_folder.choose()
