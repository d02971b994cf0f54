"""Rounding of latent weights and of their gradients to a few bits, to nearest or at random.

Ours: the paper keeps both in float32. Pure functions of tensors.
"""

from enum import StrEnum

import torch
from torch import Generator, Tensor


class Rounding(StrEnum):
    """Ways to choose between the two neighbours of a number that lies between them."""

    NEAREST = "nearest"
    STOCHASTIC = "stochastic"  # the upper one with the probability that keeps the mean


def round_evenly(x: Tensor, values: int, noise: Generator | None = None) -> Tensor:
    r"""x to one of `values` equally spaced numbers from -1 to +1, both ends among them.

    With the spacing $d$ and $l \le x < l + d$: the nearest of $l$ and $l + d$, the upper one where
    both are as near; with a generator $l + d$ at the probability $(x - l) / d$, so that the mean
    is x. A number that is one of them stays.

    x: any shape, floating point, within [-1, 1]; values: 2 to 2^16, which float32 tells apart.
    Returns the same shape and dtype.
    """
    half = (values - 1) / 2  # the numbers are k / half: k whole, or an odd number of halves
    offset = half % 1
    scaled = (x * half).sub_(offset)
    if noise is None:
        rounded = scaled.add_(0.5).floor_()
    else:
        rounded = scaled.floor()
        draw = torch.rand(x.shape, generator=noise, device=x.device, dtype=x.dtype)
        rounded.add_(torch.lt(draw, scaled.sub_(rounded), out=draw))
    return rounded.add_(offset).div_(half)


def round_latent(weight: Tensor, bits: int, noise: Generator | None = None) -> Tensor:
    """A latent weight in this many bits: one of 2^bits equally spaced values from -1 to +1.

    Zero is none of them: to nearest, no sign changes, and sign(0) = +1. With one bit this is the
    paper's binarization: eq. 1 to nearest, eq. 2 with a generator.

    weight: any shape, within [-1, 1]; bits: 1 to 16. Returns the same shape and dtype.
    """
    return round_evenly(weight, 2**bits, noise)


def round_gradient(grad: Tensor, bits: int, noise: Generator | None = None) -> Tensor:
    """A gradient in this many bits, one of them its sign, and one scale for the whole tensor.

    2^bits - 1 equally spaced values from -max |grad| to +max |grad|; zero is one of them, and a
    gradient that is zero stays it. Two bits leave -1, 0 and +1 times the scale.

    grad: any shape; bits: 2 to 16. Returns the same shape and dtype.
    """
    scale = grad.abs().max().clamp(min=torch.finfo(grad.dtype).tiny)  # all zero: no 0 / 0
    return round_evenly(grad / scale, 2**bits - 1, noise).mul_(scale)
