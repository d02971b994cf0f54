"""Binarization and its gradient (paper, sections 1.1 to 1.4), and rounding to powers of two.

Pure functions of tensors.

One convention holds everywhere: sign(0) = +1, and so sign(-0.0) = +1. `torch.sign` gives 0 there
and `torch.round` sends 0.5 to 0, so neither is used in this package.
"""

import math
from enum import StrEnum

import torch
from torch import Generator, Tensor

from bnnlib import draws, parallel
from bnnlib.kernels import dispatch
from bnnlib.traced import traced


class Binarization(StrEnum):
    """Ways to binarize one kind of number, weights or activations, while a network trains."""

    NONE = "none"
    DETERMINISTIC = "deterministic"
    STOCHASTIC = "stochastic"


def sign(x: Tensor) -> Tensor:
    """Deterministic binarization: +1 where x >= 0, else -1 (paper, eq. 1).

    x: any shape, floating point. Returns the same shape, dtype and order in memory, values in
    {-1, +1}. A NaN has no sign and stays NaN, so that nobody takes what follows for a number.
    """
    x = x.detach()
    if dispatch.fits(x):
        return _sign(x)
    signs = _plus_minus(torch.ge(x, 0, out=torch.empty_like(x)))
    return signs.masked_fill_(x.isnan(), torch.nan)


@traced("(Tensor x) -> Tensor", torch.empty_like)
def _sign(x: Tensor) -> Tensor:
    """`sign` in one pass, for tensors that `dispatch.fits`."""
    from bnnlib.kernels.cpu import elementwise

    out = torch.empty_like(x)
    dispatch.run(elementwise.sign, [dispatch.flat(x), dispatch.flat(out)])
    return out


def _plus_minus(positive: Tensor) -> Tensor:
    """{0, 1}, any shape -> {-1, +1} in place: three passes that torch vectorizes on a CPU."""
    return positive.mul_(2).sub_(1)


def hard_sigmoid(x: Tensor) -> Tensor:
    """clip((x + 1) / 2, 0, 1) (paper, eq. 3): the probability that x becomes +1. Any shape."""
    return ((x + 1) / 2).clamp(0, 1)


def sample_sign(x: Tensor, generator: Generator, batch: bool = False) -> Tensor:
    """Stochastic binarization: +1 with probability hard_sigmoid(x), else -1 (paper, eq. 2).

    x: any shape, floating point. Returns the same shape and dtype, values in {-1, +1}; NaN stays
    NaN. The uniform draw lies in [0, 1), so x >= 1 always gives +1 and x <= -1 always gives -1.
    batch: x is this process's rows of a batch: the draw is its rows of the whole batch's.
    Raises RuntimeError where torch.utils.checkpoint would make it draw anew: see `parallel.draw`.
    """
    if draws.fits(x, generator):
        return draws.signs(x.detach(), generator)
    drawn = parallel.uniform(x, generator) if batch else parallel.draw(x.shape, x, generator)
    return sign(drawn.sub_(hard_sigmoid(x.detach()))).neg_()  # +1 where the draw is smaller


class StraightThrough(torch.autograd.Function):
    """Binarize forward, pass the gradient straight through backward: the rule behind `binarize`."""

    @staticmethod
    def forward(
        ctx, real: Tensor, generator: Generator | None, cancel: bool, batch: bool
    ) -> Tensor:
        ctx.cancel = cancel
        if cancel and ctx.needs_input_grad[0]:
            ctx.save_for_backward(passes(real))  # a quarter of the memory of what it tells about
        return sign(real) if generator is None else sample_sign(real, generator, batch)

    @staticmethod
    def backward(ctx, grad: Tensor):
        real_grad = cancelled(grad, *ctx.saved_tensors) if ctx.cancel else grad
        return real_grad, None, None, None


def passes(real: Tensor) -> Tensor:
    """Whether |real| <= 1, so that a gradient passes: bool of the same shape and layout."""
    if dispatch.fits(real):
        return _passes(real)
    return torch.le(real.abs(), 1, out=torch.empty_like(real, dtype=torch.bool))


def _trace_passes(real: Tensor) -> Tensor:
    return torch.empty_like(real, dtype=torch.bool)


@traced("(Tensor real) -> Tensor", _trace_passes)
def _passes(real: Tensor) -> Tensor:
    """`passes` in one pass, for tensors that `dispatch.fits`."""
    from bnnlib.kernels.cpu import elementwise

    out = torch.empty_like(real, dtype=torch.bool)
    dispatch.run(elementwise.passes, [dispatch.flat(real), dispatch.flat(out)])
    return out


def cancelled(grad: Tensor, passing: Tensor) -> Tensor:
    """grad where it passes (bool), else 0, as for a saturated unit. Both have one shape."""
    if dispatch.fits(grad) and not grad.requires_grad and grad.stride() == passing.stride():
        return _cancelled(grad, passing)
    return grad * passing


def _trace_cancelled(grad: Tensor, passing: Tensor) -> Tensor:
    return torch.empty_like(grad)


@traced("(Tensor grad, Tensor passing) -> Tensor", _trace_cancelled)
def _cancelled(grad: Tensor, passing: Tensor) -> Tensor:
    """`cancelled` in one pass, for tensors that `dispatch.fits`."""
    from bnnlib.kernels.cpu import elementwise

    out = torch.empty_like(grad)
    arrays = [dispatch.flat(tensor) for tensor in (grad, passing, out)]
    dispatch.run(elementwise.cancel, arrays)
    return out


def binarize(
    real: Tensor, generator: Generator | None = None, cancel: bool = True, batch: bool = False
) -> Tensor:
    r"""Binarize with the straight-through estimator as gradient (paper, eq. 4).

    Forward:  $q = \mathrm{Sign}(r)$, or drawn with $P(q = +1) = \mathrm{hardsigmoid}(r)$ when a
    generator is given. Backward: $g_r = g_q 1_{|r| \le 1}$; without `cancel`, $g_r = g_q$.
    The authors' Theano code reaches the same by rounding with an identity gradient behind a hard
    sigmoid (binary_net.py:22-43); weights need no cancellation because they are clipped
    (binary_net.py:193-194).

    real: any shape. Returns the same shape and dtype, values in {-1, +1}. batch: as `sample_sign`.
    """
    return StraightThrough.apply(real, generator, cancel, batch)


_LAYOUT = {  # of each type: integers as wide, and the bits of its mantissa
    torch.float16: (torch.int16, 10),
    torch.bfloat16: (torch.int16, 7),
    torch.float32: (torch.int32, 23),
    torch.float64: (torch.int64, 52),
}


def ap2(x: Tensor) -> Tensor:
    r"""Nearest power of two: $\mathrm{sign}(x)\, 2^{\mathrm{round}(\log_2 |x|)}$ (NIPS, Alg. 3).

    A product with it is a shift. x: any shape, any floating point of 16 to 64 bits. Returns the
    same shape and dtype; AP2(0) = 0. Subnormal numbers and NaN have no place here: they may give 0.

    In the bits of a float the exponent stands above the mantissa. Adding what carries into the
    exponent exactly from the mantissa of sqrt(2) on, then clearing the mantissa, is the rounding:
    exact, and two passes where log2 and exp2 would take five.
    """
    integer, mantissa_bits = _LAYOUT[x.dtype]
    carry = (2 << mantissa_bits) - math.isqrt(2 << 2 * mantissa_bits) - 1
    bits = x.detach().view(integer) + carry
    return bits.bitwise_and_(-1 << mantissa_bits).view(x.dtype)


def power_of_two(x: float) -> float:
    """`ap2` of one Python number, in float64; without a tensor, as optimizers ask at every step."""
    fraction, exponent = math.frexp(x)  # |x| = fraction 2^exponent, fraction in [1/2, 1)
    if fraction == 0:
        return 0.0
    carried = int(abs(fraction) * 2**53) > math.isqrt(2 << 104)
    return math.copysign(math.ldexp(1.0, exponent - 1 + carried), x)
