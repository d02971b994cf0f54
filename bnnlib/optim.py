"""Optimizers: one pure rule each, and a thin class that walks over the parameters.

The rule knows nothing of layers. What is special to binarized networks (the Glorot multiplier on
the update and the clipping of latent weights) happens where the rule's step is applied.
"""

import math

import torch
from torch import Tensor, nn

from bnnlib.layers import BinaryConv2d, BinaryLinear


def adam_update(
    parameter: Tensor,
    grad: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    t: int,
    learning_rate: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
) -> None:
    r"""One update of Adam as Lasagne has it (updates.py:613-624); the authors train with it.

    $m \leftarrow \beta_1 m + (1-\beta_1) g$, $v \leftarrow \beta_2 v + (1-\beta_2) g^2$,
    $\theta \leftarrow \theta
    - \eta \frac{\sqrt{1-\beta_2^t}}{1-\beta_1^t} \frac{m}{\sqrt{v} + \epsilon}$.
    The epsilon meets the uncorrected $\sqrt v$; torch.optim.Adam adds it after the correction.
    That matters here: the loss is a mean over batch and classes and the gradients are tiny.

    parameter, grad, first_moment, second_moment: one shape; all but grad are updated in place.
    t counts from 1.
    """
    first_moment.lerp_(grad, 1 - beta1)
    second_moment.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    corrected_rate = learning_rate * math.sqrt(1 - beta2**t) / (1 - beta1**t)
    parameter.addcdiv_(first_moment, second_moment.sqrt().add_(eps), value=-corrected_rate)


class Adam(torch.optim.Optimizer):
    """`adam_update` of every parameter, the rate times the group's `scale`; latent weights clipped.

    The multiplier acts on the finished step, the clipping follows it (binary_net.py:193-194).
    """

    def __init__(self, groups: list[dict], learning_rate: float):
        super().__init__(groups, {"learning_rate": learning_rate, "scale": 1.0, "clip": False})
        self.t = 0

    @torch.no_grad()
    def step(self) -> None:
        self.t += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state["m"] = torch.zeros_like(parameter)
                    state["v"] = torch.zeros_like(parameter)
                rate = group["learning_rate"] * group["scale"]
                adam_update(parameter, parameter.grad, state["m"], state["v"], self.t, rate)
                if group["clip"]:
                    parameter.clamp_(-1, 1)


def parameter_groups(network: nn.Module, glorot: bool, clip: bool) -> list[dict]:
    """One group for each binary layer's latent weights, one for all the rest (biases, batch norm).

    glorot: scale each layer's update by its multiplier. clip: keep latent weights in [-1, 1].
    """
    layers = [m for m in network.modules() if isinstance(m, BinaryLinear | BinaryConv2d)]
    groups = [
        {"params": [m.weight], "scale": m.update_scale if glorot else 1.0, "clip": clip}
        for m in layers
    ]
    latent = {id(m.weight) for m in layers}
    rest = [p for p in network.parameters() if id(p) not in latent]
    return [*groups, {"params": rest}]


def exponential_decay(first: float, last: float, epoch: int, epochs: int) -> float:
    """Learning rate of an epoch counted from 0: first (last / first)^(epoch / epochs).

    The paper's Algorithm 1 prints the decay with every step; the authors' code decays by epoch
    (binary_net.py:320). `last` would be the rate of one more epoch.
    """
    return first * (last / first) ** (epoch / epochs)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the rate of every group; the groups' own scales stay."""
    for group in optimizer.param_groups:
        group["learning_rate"] = learning_rate
