"""The optimizer: a thin class that applies a rule to each parameter, and its groups and schedules.

lua files are the authors' Torch7 code.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn

from bnnlib import one_pass
from bnnlib.binarize import power_of_two
from bnnlib.kernels import dispatch
from bnnlib.layers import BinaryConv2d, BinaryLinear
from bnnlib.one_pass import OnePass
from bnnlib.rounding import Rounding, round_gradient, round_latent
from bnnlib.rules import FUSED, UPDATES, Rule, step_size

if TYPE_CHECKING:  # recipes import this module for its enums
    from study.recipes.recipe import Recipe


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


class Optimizer:
    """A rule's update of every parameter, its group's `scale` on the step; then its `clip`.

    The multiplier acts on the finished step, the clipping follows it (binary_net.py:193-194;
    adaMax_binary_clip_shift.lua:67-71). Its state: `t` in each of `param_groups`, and `moments`.
    A group's gradients are rounded to `gradient_bits` before the update, its parameters to
    `latent_bits` after it, 0 being float32; with a generator, `noise`, stochastically.
    Not one of torch's, because to make one imports torch's compiler: 150 MB and seconds.
    """

    def __init__(
        self,
        groups: list[dict],
        rule: Rule,
        learning_rate: float,
        noise: Generator | None = None,
    ):
        defaults = {"learning_rate": learning_rate, "scale": 1.0, "clip": False, "t": 0}
        defaults |= {"latent_bits": 0, "gradient_bits": 0, "latent": False}
        self.param_groups = [defaults | group for group in groups]
        self.rule, self.noise = rule, noise
        self.moments: dict[Tensor, dict[str, Tensor]] = {}  # parameter -> m and v
        self.one_pass: OnePass | None = None  # on a GPU, from the first step on

    def parameters(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    @torch.no_grad()
    def step(self, sizes: Tensor | None = None) -> None:
        """Update every parameter once from its gradient.

        sizes: None, or the groups' finished steps (groups,) on the device, as `step_sizes` lists
        them; then `t` is left for the caller to count.
        """
        counted = sizes is None
        if counted and one_pass.fits(self.parameters()):
            sizes = self.step_sizes(1)[:, 0].to(self.parameters()[0].device)
        self.allocate()
        joined = self.one_pass.joined if self.one_pass else ()
        for index, group in enumerate(self.param_groups):
            group["t"] += counted
            rate = group["learning_rate"] if sizes is None else sizes[index]
            for parameter in group["params"]:
                if parameter in joined:
                    continue
                grad = parameter.grad
                if group["gradient_bits"]:
                    grad = round_gradient(grad, group["gradient_bits"], self.noise)
                if self.one_pass:
                    self.one_pass.update_large(parameter, grad, index, sizes)
                else:
                    self._update(parameter, grad, rate, group)
                if group["latent_bits"]:
                    parameter.copy_(round_latent(parameter, group["latent_bits"], self.noise))
        if self.one_pass:
            self.one_pass.update_small(sizes)

    def step_sizes(self, steps: int) -> Tensor:
        """The next steps' sizes at the present learning rates: (groups, steps) float32, CPU."""
        made: dict[tuple, list[float]] = {}  # most groups share theirs
        for key in map(_schedule, self.param_groups):
            if key not in made:
                t, rate, scale = key
                made[key] = [
                    step_size(self.rule, t + n, rate, scale) for n in range(1, steps + 1)
                ]
        return torch.tensor([made[_schedule(group)] for group in self.param_groups])

    def allocate(self) -> None:
        """Make what the first step would make: all moments, and on a GPU their common memory."""
        for parameter in self.parameters():
            self._moments(parameter)
        if self.one_pass is None and one_pass.fits(self.parameters()):
            self.one_pass = OnePass(self.rule, self.param_groups, self.moments)

    def _update(
        self, parameter: Tensor, grad: Tensor, rate: float | Tensor, group: dict
    ) -> None:
        """The rule's update and the clipping, in one pass where there is one."""
        of = (parameter, grad, *self._moments(parameter), group["t"])
        scale, clip = group["scale"], group["clip"]
        if self.rule in FUSED and dispatch.fits(*of[:4]):
            FUSED[self.rule](*of, rate, scale, clip)
            torch.autograd.graph.increment_version(parameter)  # torch didn't see it change
            return
        UPDATES[self.rule](*of, rate, scale)
        if clip:
            parameter.clamp_(-1, 1)

    def zero_grad(self) -> None:
        """Forget the gradients; the next ones may have their memory if nobody else keeps them."""
        for parameter in self.parameters():
            parameter.grad = None

    def _moments(self, parameter: Tensor) -> tuple[Tensor, Tensor]:
        if parameter not in self.moments:
            self.moments[parameter] = {name: torch.zeros_like(parameter) for name in "mv"}
        return self.moments[parameter]["m"], self.moments[parameter]["v"]


def _schedule(group: dict) -> tuple[int, float, float]:
    """What a group's step sizes depend on."""
    return group["t"], group["learning_rate"], group["scale"]


def build_optimizer(
    recipe: Recipe, network: nn.Module, noise: Generator | None = None
) -> Optimizer:
    """The recipe's optimizer at the rate of its first epoch.

    noise: what stochastic rounding draws from; on the network's device. Raises ValueError if the
    recipe rounds stochastically and there is none.
    """
    if recipe.rounding is Rounding.NEAREST:
        noise = None
    elif noise is None:
        raise ValueError(f"recipe {recipe.name}: stochastic rounding needs a generator")
    groups = parameter_groups(recipe, network)
    return Optimizer(groups, recipe.optimizer, recipe.learning_rate, noise)


def parameter_groups(recipe: Recipe, network: nn.Module) -> list[dict]:
    """One group for each learned parameter, with its `scale`, its `clip` and its bits."""
    return [
        {
            "params": [parameter],
            "scale": _scale(recipe, module, name),
            "clip": _is_clipped(recipe, module, name),
            "latent_bits": recipe.latent_bits if _is_latent(module, name) else 0,
            "gradient_bits": recipe.gradient_bits if _is_latent(module, name) else 0,
            "latent": _is_latent(module, name),
        }
        for module in network.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.requires_grad
    ]


def _is_binary(module: nn.Module) -> bool:
    return isinstance(module, BinaryLinear | BinaryConv2d)


def _is_latent(module: nn.Module, name: str) -> bool:
    return _is_binary(module) and name == "weight"


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
    latent = _is_latent(module, name)
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


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the rate of every group; the groups' own scales stay."""
    for group in optimizer.param_groups:
        group["learning_rate"] = rate
