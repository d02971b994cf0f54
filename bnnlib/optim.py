"""The optimizer: a thin class that applies a rule to each parameter of its groups."""

from enum import StrEnum

import torch
from torch import Generator, Tensor

from bnnlib import one_pass
from bnnlib.fused_rules import FUSED
from bnnlib.kernels import dispatch
from bnnlib.one_pass import OnePass
from bnnlib.rounding import round_gradient, round_latent
from bnnlib.rules import UPDATES, Rule, step_size


class Multiplier(StrEnum):
    """Choices of gamma_k, the factor on the updates of a layer's binary weights."""

    NONE = "none"
    GLOROT = "glorot"
    POWER_OF_TWO = "power-of-two"  # Glorot's, rounded by AP2


class Clip(StrEnum):
    """Choices of the parameters that are kept in [-1, 1] after every update."""

    NOTHING = "nothing"
    WEIGHTS = "weights"  # of the binary layers
    EVERYTHING = "everything"


class Optimizer:
    """A rule's update of every parameter, its group's `scale` on the step; then its `clip`.

    The multiplier acts on the finished step, the clipping follows it (binary_net.py:193-194;
    adaMax_binary_clip_shift.lua:67-71). The state is `t` in each of `param_groups`, and `moments`.
    A group's gradients are rounded to `gradient_bits` before the update, its parameters to
    `latent_bits` after it, 0 being float32; with a generator, `noise`, stochastically.
    Raises ValueError for an unknown rule, and for a group that has no `params` or keys that are
    not read here, such as torch's `lr`.
    It derives from no class of torch, whose optimizers import its compiler: 150 MB and seconds.
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
        self.param_groups = [_completed(group, defaults) for group in groups]
        self.rule = Rule(rule)
        self.noise = noise
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
        """Make all moments, and on a GPU their common memory, before the first step would."""
        for parameter in self.parameters():
            self._moments(parameter)
        if self.one_pass is None and one_pass.fits(self.parameters()):
            self.one_pass = OnePass(self.rule, self.param_groups, self.moments)

    def _update(
        self, parameter: Tensor, grad: Tensor, rate: float | Tensor, group: dict
    ) -> None:
        """The rule's update and the clipping, in one pass where there is one."""
        tensors = (parameter, grad, *self._moments(parameter))
        t = group["t"]
        scale = group["scale"]
        clip = group["clip"]
        if self.rule in FUSED and dispatch.fits(*tensors):
            FUSED[self.rule](*tensors, t, rate, scale, clip)
            torch.autograd.graph.increment_version(parameter)  # torch didn't see it change
            return
        UPDATES[self.rule](*tensors, t, rate, scale)
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


def _completed(group: dict, defaults: dict) -> dict:
    """A group with all its keys, its parameters in a list, which can be walked through again."""
    known = {"params", *defaults}
    if "params" not in group or not group.keys() <= known:
        raise ValueError(f"a group has params and {', '.join(defaults)}; got {', '.join(group)}")
    params = group["params"]
    listed = [params] if isinstance(params, Tensor) else list(params)
    return defaults | group | {"params": listed}


def _schedule(group: dict) -> tuple[int, float, float]:
    """The numbers on which a group's step sizes depend."""
    return group["t"], group["learning_rate"], group["scale"]


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the rate of every group; the groups' own scales stay."""
    for group in optimizer.param_groups:
        group["learning_rate"] = rate
