"""The state of a run: all that changes while it trains."""

import time
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor, nn

from bnnlib.optim import Optimizer


@dataclass
class State:
    """All that changes while a run trains."""

    network: nn.Sequential
    optimizer: Optimizer
    shuffle: Generator  # of the images' order; on the CPU
    noise: Generator  # of stochastic binarization and rounding, and of dropout; on the device
    signs: dict[str, Tensor]  # of the latent weights when the epoch began
    best: dict[str, Tensor] = field(default_factory=dict)  # the best epoch's network
    order: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))  # the epoch's
    losses: list[Tensor] = field(default_factory=list)  # of the epoch's steps so far, scalars
    started: float = field(default_factory=time.perf_counter)  # less what was spent before a kill
    history: list[dict] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.history)
