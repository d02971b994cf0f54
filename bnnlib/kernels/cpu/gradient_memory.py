"""Memory that a weight keeps for its gradients from one step to the next."""

import sys

import numpy as np
import torch
from torch import Tensor

UNSHARED_REFERENCES = 2  # to an array, as Python counts: its holder's and that of the question


class Kept:
    """Memory that a weight keeps for its gradients; its copies begin without any."""

    def __init__(self, memory: np.ndarray | None = None):
        self.memory = memory

    def __reduce__(self):
        return Kept, ()


def memory_of(weight: Tensor, shape: tuple[int, int, int]) -> np.ndarray:
    """Float32 memory for a gradient: the previous one's if nobody holds it any longer, else fresh.

    Fresh memory of this size comes page by page from the system, which takes as long as filling it.
    Every tensor that lies in the memory holds the array, whoever made it, and so it is counted.
    """
    kept = weight.__dict__.setdefault("gradient_memory", Kept())
    fits = kept.memory is not None and kept.memory.shape == shape
    if not fits or sys.getrefcount(kept.memory) > UNSHARED_REFERENCES:
        kept.memory = torch.empty(shape, dtype=torch.float32).numpy()
    return kept.memory
