"""How a gradient becomes a step: one pure function for each rule; `fused_rules` has faster forms.

Each takes its learning rate as a number. Where steps are recorded and replayed (`captured`) nothing
may be a number that changes: `learning_rate` is then a tensor () on the parameter's device, which
holds the finished step as `step_size` makes it; `t` and `scale` are in it and not looked at again.

A rule knows nothing of layers. What is special to binarized networks (the Glorot multiplier on the
update and the clipping of latent weights) comes with a parameter's group. lua files are the
authors' Torch7 code.
"""

import math
from enum import StrEnum

import torch
from torch import Tensor

from bnnlib.binarize import ap2, power_of_two

PRINTED_BETA1 = 1 - 2**-3


class Rule(StrEnum):
    """Rules by which a gradient becomes a step."""

    ADAM = "adam"
    ADAMAX_PRINTED = "adamax-printed"
    ADAMAX_CODED = "adamax-coded"
    ADAMAX_DECAYING = "adamax-decaying"  # ours: as coded, but the stored second moment decays


def adam_step(
    t: int, learning_rate: float | Tensor, scale: float, beta1: float = 0.9, beta2: float = 0.999
) -> float | Tensor:
    """Adam's factor on the moved direction in step t; a tensor is that factor already."""
    if isinstance(learning_rate, Tensor):
        return learning_rate
    return scale * learning_rate * math.sqrt(1 - beta2**t) / (1 - beta1**t)


def shifted_step(
    t: int, learning_rate: float | Tensor, scale: float, beta1: float
) -> float | Tensor:
    """The shift-based rules' factor in step t: a power of two, but for `scale`."""
    if isinstance(learning_rate, Tensor):
        return learning_rate
    return scale * power_of_two(learning_rate / (1 - beta1**t))


def step_size(rule: Rule, t: int, learning_rate: float, scale: float) -> float:
    """A rule's factor in step t, counted from 1, with the rule's own betas."""
    if rule == Rule.ADAM:
        return adam_step(t, learning_rate, scale)
    beta1 = PRINTED_BETA1 if rule == Rule.ADAMAX_PRINTED else 0.9
    return shifted_step(t, learning_rate, scale, beta1)


def _move(parameter: Tensor, direction: Tensor, divisor: Tensor, step: float | Tensor) -> None:
    """parameter -= step direction / divisor, in place; all of one shape but a step ()."""
    if isinstance(step, Tensor):
        parameter.add_((direction * -step).div_(divisor))
    else:
        parameter.addcdiv_(direction, divisor, value=-step)


def adam_update(
    parameter: Tensor,
    grad: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    t: int,
    learning_rate: float | Tensor,
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
    step = adam_step(t, learning_rate, scale, beta1, beta2)
    _move(parameter, first_moment, second_moment.sqrt().add_(eps), step)


def adamax_printed_update(
    parameter: Tensor,
    grad: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    t: int,
    learning_rate: float | Tensor,
    scale: float = 1.0,
    beta1: float = PRINTED_BETA1,
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
    step = shifted_step(t, learning_rate, scale, beta1)
    if isinstance(step, Tensor):
        parameter.add_((first_moment * -step).mul_(inverse))
    else:
        parameter.addcmul_(first_moment, inverse, value=-step)


def adamax_coded_update(
    parameter: Tensor,
    grad: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    t: int,
    learning_rate: float | Tensor,
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
    step = shifted_step(t, learning_rate, scale, beta1)
    _move(parameter, first_moment, second_moment, step)


def adamax_decaying_update(
    parameter: Tensor,
    grad: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    t: int,
    learning_rate: float | Tensor,
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
    step = shifted_step(t, learning_rate, scale, beta1)
    _move(parameter, first_moment, ap2(second_moment).add_(eps), step)


UPDATES = {
    Rule.ADAM: adam_update,
    Rule.ADAMAX_PRINTED: adamax_printed_update,
    Rule.ADAMAX_CODED: adamax_coded_update,
    Rule.ADAMAX_DECAYING: adamax_decaying_update,
}
