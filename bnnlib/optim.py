"""Optimizers: one pure rule each, and a thin class that walks over the parameters.

A rule knows nothing of layers. What is special to binarized networks (the Glorot multiplier on the
update and the clipping of latent weights) comes with a parameter's group. lua files are the
authors' Torch7 code.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from bnnlib import fused
from bnnlib.binarize import ap2, power_of_two
from bnnlib.layers import BinaryConv2d, BinaryLinear

if TYPE_CHECKING:  # recipes import this module for its enums
    from bnnlib.recipe import Recipe


class Rule(StrEnum):
    """How a gradient becomes a step."""

    ADAM = "adam"
    ADAMAX_PRINTED = "adamax-printed"
    ADAMAX_CODED = "adamax-coded"
    ADAMAX_DECAYING = "adamax-decaying"  # ours: as coded, but the stored second moment decays


class Multiplier(StrEnum):
    """gamma_k, the factor on the updates of a layer's binary weights."""

    NONE = "none"
    GLOROT = "glorot"
    POWER_OF_TWO = "power-of-two"  # Glorot's, rounded by AP2


class Clip(StrEnum):
    """Which parameters are kept in [-1, 1] after every update."""

    NOTHING = "nothing"
    WEIGHTS = "weights"  # of the binary layers
    EVERYTHING = "everything"


def adam_update(
    parameter: Tensor,
    grad: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    t: int,
    learning_rate: float,
    scale: float = 1.0,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
) -> None:
    r"""One update of Adam as Lasagne has it (updates.py:613-624); the authors train with it.

    $m \leftarrow \beta_1 m + (1-\beta_1) g$, $v \leftarrow \beta_2 v + (1-\beta_2) g^2$,
    $\theta \leftarrow \theta
    - \gamma_k \eta \frac{\sqrt{1-\beta_2^t}}{1-\beta_1^t} \frac{m}{\sqrt{v} + \epsilon}$.
    The epsilon meets the uncorrected $\sqrt v$; torch.optim.Adam adds it after the correction.
    That matters here: the loss is a mean over batch and classes and the gradients are tiny.

    In every rule: parameter, grad, first_moment, second_moment have one shape, all but grad are
    updated in place; t counts from 1; `scale` is $\gamma_k$, on the finished step.
    """
    first_moment.lerp_(grad, 1 - beta1)
    second_moment.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    step = scale * learning_rate * math.sqrt(1 - beta2**t) / (1 - beta1**t)
    parameter.addcdiv_(first_moment, second_moment.sqrt().add_(eps), value=-step)


def adamax_printed_update(
    parameter: Tensor,
    grad: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    t: int,
    learning_rate: float,
    scale: float = 1.0,
    beta1: float = 1 - 2**-3,
    beta2: float = 1 - 2**-10,
) -> None:
    r"""One update of shift-based AdaMax as the paper prints it (NIPS, Algorithm 2).

    $m \leftarrow \beta_1 m + (1-\beta_1) g$, $v \leftarrow \max(\beta_2 v, |g|)$,
    $\theta \leftarrow \theta - \gamma_k\, AP2(\eta / (1-\beta_1^t))\, m\, AP2(1/v)$: both
    divisions are shifts. The paper prints $1-\beta_1$; that is read as AdaMax's $1-\beta_1^t$,
    since the caption explains $\beta_1^t$ and no line of the algorithm uses it.
    There is no epsilon: where $v$ is 0 (or subnormal, so that 1/v would overflow), no update.
    """
    first_moment.lerp_(grad, 1 - beta1)
    torch.maximum(second_moment.mul_(beta2), grad.abs(), out=second_moment)
    inverse = ap2(second_moment.reciprocal())
    inverse.masked_fill_(second_moment < torch.finfo(grad.dtype).tiny, 0)
    step = scale * power_of_two(learning_rate / (1 - beta1**t))
    parameter.addcmul_(first_moment, inverse, value=-step)


def adamax_coded_update(
    parameter: Tensor,
    grad: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    t: int,
    learning_rate: float,
    scale: float = 1.0,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 2**-27,
) -> None:
    r"""One update of the authors' shift-based AdaMax (adaMax_binary_clip_shift.lua:33-71).

    $m \leftarrow \beta_1 m + (1-\beta_1) g$,
    $v \leftarrow AP2(\max(\beta_2 v, |g|)) + \epsilon$,
    $\theta \leftarrow \theta - \gamma_k\, AP2(\eta / (1-\beta_1^t))\, m / v$.
    The *rounded* v is what is stored: $0.999 \cdot 2^k$ rounds back to $2^k$, so v never decays.
    """
    first_moment.lerp_(grad, 1 - beta1)
    torch.maximum(second_moment.mul_(beta2), grad.abs(), out=second_moment)
    second_moment.copy_(ap2(second_moment).add_(eps))
    step = scale * power_of_two(learning_rate / (1 - beta1**t))
    parameter.addcdiv_(first_moment, second_moment, value=-step)


def adamax_decaying_update(
    parameter: Tensor,
    grad: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    t: int,
    learning_rate: float,
    scale: float = 1.0,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 2**-27,
) -> None:
    """`adamax_coded_update` with one thing changed: v is stored before it is rounded, so it decays.

    Ours, to tell what the authors' storing of the rounded v does.
    """
    first_moment.lerp_(grad, 1 - beta1)
    torch.maximum(second_moment.mul_(beta2), grad.abs(), out=second_moment)
    step = scale * power_of_two(learning_rate / (1 - beta1**t))
    parameter.addcdiv_(first_moment, ap2(second_moment).add_(eps), value=-step)


UPDATES = {
    Rule.ADAM: adam_update,
    Rule.ADAMAX_PRINTED: adamax_printed_update,
    Rule.ADAMAX_CODED: adamax_coded_update,
    Rule.ADAMAX_DECAYING: adamax_decaying_update,
}


def fused_adam(
    parameter: Tensor,
    grad: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    t: int,
    learning_rate: float,
    scale: float,
    clip: bool,
) -> None:
    """`adam_update`, then clipping to [-1, 1] if `clip`, in one pass over memory."""
    from bnnlib.kernels import elementwise

    beta1, beta2, eps = 0.9, 0.999, 1e-8
    step = scale * learning_rate * math.sqrt(1 - beta2**t) / (1 - beta1**t)
    arrays = [fused.flat(x) for x in (parameter, grad, first_moment, second_moment)]
    bound = 1.0 if clip else math.inf
    fused.run(elementwise.adam, arrays, step, beta2, 1 - beta1, 1 - beta2, eps, bound)


def fused_adamax_coded(
    parameter: Tensor,
    grad: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    t: int,
    learning_rate: float,
    scale: float,
    clip: bool,
) -> None:
    """`adamax_coded_update`, then clipping to [-1, 1] if `clip`, in one pass over memory."""
    from bnnlib.kernels import elementwise

    beta1, beta2, eps = 0.9, 0.999, 2**-27
    step = scale * power_of_two(learning_rate / (1 - beta1**t))
    arrays = [fused.flat(x) for x in (parameter, grad, first_moment, second_moment)]
    arrays.append(arrays[3].view(np.int32))
    bound = 1.0 if clip else math.inf
    fused.run(elementwise.adamax_coded, arrays, step, beta2, 1 - beta1, eps, bound)


FUSED = {Rule.ADAM: fused_adam, Rule.ADAMAX_CODED: fused_adamax_coded}


class Optimizer(torch.optim.Optimizer):
    """A rule's update of every parameter, its group's `scale` on the step; then its `clip`.

    The multiplier acts on the finished step, the clipping follows it (binary_net.py:193-194;
    adaMax_binary_clip_shift.lua:67-71). `t` lies in the groups, so that `state_dict` has it.
    """

    def __init__(self, groups: list[dict], rule: Rule, learning_rate: float):
        defaults = {"learning_rate": learning_rate, "scale": 1.0, "clip": False, "t": 0}
        super().__init__(groups, defaults)
        self.rule = rule

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            group["t"] += 1
            for parameter in group["params"]:
                m, v = self._moments(parameter)
                of = (parameter, parameter.grad, m, v, group["t"])
                rate, scale, clip = group["learning_rate"], group["scale"], group["clip"]
                if self.rule in FUSED and fused.fits(*of[:4]):
                    FUSED[self.rule](*of, rate, scale, clip)
                    continue
                UPDATES[self.rule](*of, rate, scale)
                if clip:
                    parameter.clamp_(-1, 1)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients; `kernels.sign_product` writes the next ones into their memory."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.spare_gradient, parameter.grad = parameter.grad, None

    def _moments(self, parameter: Tensor) -> tuple[Tensor, Tensor]:
        state = self.state[parameter]
        if not state:
            state["m"], state["v"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        return state["m"], state["v"]


def build_optimizer(recipe: Recipe, network: nn.Module) -> Optimizer:
    """The recipe's optimizer at the rate of its first epoch."""
    return Optimizer(parameter_groups(recipe, network), recipe.optimizer, recipe.learning_rate)


def parameter_groups(recipe: Recipe, network: nn.Module) -> list[dict]:
    """One group for each learned parameter, with its `scale` and `clip`."""
    return [
        {
            "params": [parameter],
            "scale": _scale(recipe, module, name),
            "clip": _is_clipped(recipe, module, name),
        }
        for module in network.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.requires_grad
    ]


def _is_binary(module: nn.Module) -> bool:
    return isinstance(module, BinaryLinear | BinaryConv2d)


def _scale(recipe: Recipe, module: nn.Module, name: str) -> float:
    """The factor on the updates of one parameter of a module."""
    if _is_binary(module) and (name == "weight" or recipe.scale_biases):
        if recipe.multiplier is Multiplier.GLOROT:
            return module.update_scale
        if recipe.multiplier is Multiplier.POWER_OF_TWO:
            return power_of_two(module.update_scale)
    if name == "gamma" and recipe.scale_gammas:
        return math.sqrt(len(module.gamma) / 1.5)  # MNIST_Model.lua:59-78
    return 1.0


def _is_clipped(recipe: Recipe, module: nn.Module, name: str) -> bool:
    latent = _is_binary(module) and name == "weight"
    return recipe.clip is Clip.EVERYTHING or (recipe.clip is Clip.WEIGHTS and latent)


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """The recipe's learning rate in an epoch counted from 0.

    The paper's Algorithm 1 prints the decay with every step; the authors' code decays by epoch
    (binary_net.py:320; Main_BinaryNet_Cifar10.lua:312).
    """
    if recipe.halve_every:
        return recipe.learning_rate * 2.0 ** -math.floor(epoch / recipe.halve_every)
    return exponential_decay(recipe.learning_rate, recipe.final_learning_rate, epoch, recipe.epochs)


def exponential_decay(first: float, last: float, epoch: int, epochs: int) -> float:
    """first (last / first)^(epoch / epochs): `last` would be the rate of one more epoch."""
    return first * (last / first) ** (epoch / epochs)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of every group; the groups' own scales stay."""
    for group in optimizer.param_groups:
        group["learning_rate"] = rate
