"""Kernels. They know arrays and words, and nothing of layers or training."""
