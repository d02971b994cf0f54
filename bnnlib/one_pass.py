"""An optimizer's step on a GPU in few launches: one for each large parameter, one for the rest.

The kernels are `kernels.update`'s. A latent weight's signs, which the next forward pass reads, are
written along with it.
"""

from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor

from bnnlib.binarize import sign
from bnnlib.rules import Rule

SMALL_ELEMENTS = 1 << 14  # of a parameter: below, a launch takes longer than what it does
ALIGNED_ELEMENTS = 16  # the kernel then loads 16 bytes at a time


@dataclass
class KeptSigns:
    """The signs of a latent weight as its optimizer left them, and their version of it."""

    signs: Tensor
    version: int


def signs_of(weight: Tensor) -> Tensor:
    """sign(weight): those left by the last step, unless torch has changed the weight since."""
    kept = weight.__dict__.get("kept_signs")
    if kept is not None and kept.version == weight._version:
        return kept.signs
    return sign(weight)


def fits(parameters: list[Tensor]) -> bool:
    """Whether all parameters lie on a GPU, and there is Triton to launch kernels with."""
    return all(p.device.type == "cuda" for p in parameters) and find_spec("triton") is not None


class OnePass:
    """The updates of all parameters of an optimizer's groups by its rule.

    moments: parameter -> {"m": ..., "v": ...}, for all of them. Small parameters and their moments
    move into common lines of memory and become views of them.
    """

    def __init__(self, rule: Rule, groups: list[dict], moments: dict[Tensor, dict[str, Tensor]]):
        self.rule = rule
        self.groups = groups
        self.moments = moments
        self.small = [
            (index, parameter)
            for index, group in enumerate(groups)
            for parameter in group["params"]
            if parameter.numel() <= SMALL_ELEMENTS
            and not (group["latent_bits"] or group["gradient_bits"])
        ]
        self.joined = {parameter for _, parameter in self.small}
        if self.small:
            self._join()

    def update_large(self, parameter: Tensor, grad: Tensor, index: int, sizes: Tensor) -> None:
        """Update one parameter, of group `index`, and leave its signs if it is a latent weight."""
        from bnnlib.kernels import update

        group = self.groups[index]
        pair = self.moments[parameter]
        keeps = group["latent"] and not group["latent_bits"]
        if keeps and "kept_signs" not in parameter.__dict__:
            parameter.kept_signs = KeptSigns(torch.empty_like(parameter), parameter._version)
        signs = parameter.kept_signs.signs if keeps else None
        moments = pair["m"], pair["v"]
        update.update_(self.rule, parameter, grad, moments, sizes, index, group["clip"], signs)
        if keeps:
            parameter.kept_signs.version = parameter._version

    def update_small(self, sizes: Tensor) -> None:
        """Update all the others from their gradients."""
        from bnnlib.kernels import update

        if not self.small:
            return
        grads = [parameter.grad.flatten() for _, parameter in self.small]
        torch.cat(grads, out=self.grads[: sum(map(len, grads))])
        tensors = [self.values, self.grads, *self.lines]
        update.update_joined_(self.rule, tensors, sizes, self.group_of, self.bounds)

    def refresh(self) -> None:
        """Bring kept signs up to date, in their places, after values were copied into weights."""
        for parameter in self.moments:
            kept = parameter.__dict__.get("kept_signs")
            if kept is not None and kept.version != parameter._version:
                kept.signs.copy_(sign(parameter))
                kept.version = parameter._version

    def _join(self) -> None:
        """Move small parameters and their moments into lines, whose ends belong to no parameter."""
        parameters = [parameter for _, parameter in self.small]
        self.values = _line([parameter.data for parameter in parameters])
        self.grads = torch.zeros_like(self.values)
        self.lines = [_line([self.moments[p][name] for p in parameters]) for name in "mv"]
        of_group = []
        bounds = []
        start = 0
        for index, parameter in self.small:
            place = slice(start, start + parameter.numel())
            parameter.data = self.values[place].view(parameter.shape)
            for name, line in zip("mv", self.lines, strict=True):
                self.moments[parameter][name] = line[place].view(parameter.shape)
            bound = 1.0 if self.groups[index]["clip"] else torch.inf
            of_group += [index] * parameter.numel()
            bounds += [bound] * parameter.numel()
            start = place.stop
        rest = len(self.values) - start
        device = self.values.device
        self.group_of = torch.tensor(of_group + [0] * rest, dtype=torch.int32, device=device)
        self.bounds = torch.tensor(bounds + [0.0] * rest, device=device)


def _line(tensors: list[Tensor]) -> Tensor:
    """All elements in one line, filled up with zeros to a multiple of ALIGNED_ELEMENTS."""
    flat = [tensor.detach().flatten() for tensor in tensors]
    rest = -sum(map(len, flat)) % ALIGNED_ELEMENTS
    return torch.cat([*flat, flat[0].new_zeros(rest)])
