"""Binarization and its gradient (paper, sections 1.1 to 1.4). Pure functions of tensors.

One convention holds everywhere: sign(0) = +1, and so sign(-0.0) = +1. `torch.sign` gives 0 there
and `torch.round` sends 0.5 to 0, so neither is used in this package.
"""

from enum import StrEnum

import torch
from torch import Generator, Tensor


class Binarization(StrEnum):
    """How one kind of number (weights or activations) is binarized while a network trains."""

    NONE = "none"
    DETERMINISTIC = "deterministic"
    STOCHASTIC = "stochastic"


def sign(x: Tensor) -> Tensor:
    """Deterministic binarization: +1 where x >= 0, else -1 (paper, eq. 1).

    x: any shape, floating point. Returns the same shape and dtype, values in {-1, +1}. NaN gives
    -1.
    """
    return _plus_minus(torch.ge(x.detach(), 0, out=torch.empty_like(x)))


def _plus_minus(positive: Tensor) -> Tensor:
    """{0, 1}, any shape -> {-1, +1} in place: three passes that torch vectorizes on a CPU."""
    return positive.mul_(2).sub_(1)


def hard_sigmoid(x: Tensor) -> Tensor:
    """clip((x + 1) / 2, 0, 1) (paper, eq. 3): the probability that x becomes +1. Any shape."""
    return ((x + 1) / 2).clamp(0, 1)


def sample_sign(x: Tensor, generator: Generator) -> Tensor:
    """Stochastic binarization: +1 with probability hard_sigmoid(x), else -1 (paper, eq. 2).

    x: any shape, floating point. Returns the same shape and dtype, values in {-1, +1}. The uniform
    draw lies in [0, 1), so x >= 1 always gives +1 and x <= -1 always gives -1.
    """
    draw = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return _plus_minus(torch.lt(draw, hard_sigmoid(x.detach()), out=draw))


class StraightThrough(torch.autograd.Function):
    """Binarize forward, pass the gradient straight through backward: the rule behind `binarize`."""

    @staticmethod
    def forward(ctx, real: Tensor, generator: Generator | None, cancel: bool) -> Tensor:
        ctx.cancel = cancel
        if cancel:
            ctx.save_for_backward(torch.le(real.abs(), 1, out=torch.empty_like(real)))
        return sign(real) if generator is None else sample_sign(real, generator)

    @staticmethod
    def backward(ctx, grad: Tensor):
        if ctx.cancel:
            (unsaturated,) = ctx.saved_tensors
            grad = grad * unsaturated
        return grad, None, None


def binarize(real: Tensor, generator: Generator | None = None, cancel: bool = True) -> Tensor:
    r"""Binarize with the straight-through estimator as gradient (paper, eq. 4).

    Forward:  $q = \mathrm{Sign}(r)$, or drawn with $P(q = +1) = \mathrm{hardsigmoid}(r)$ when a
    generator is given. Backward: $g_r = g_q 1_{|r| \le 1}$; without `cancel`, $g_r = g_q$.
    The authors' Theano code reaches the same by rounding with an identity gradient behind a hard
    sigmoid (binary_net.py:22-43); weights need no cancellation because they are clipped
    (binary_net.py:193-194).

    real: any shape. Returns the same shape and dtype, values in {-1, +1}.
    """
    return StraightThrough.apply(real, generator, cancel)
