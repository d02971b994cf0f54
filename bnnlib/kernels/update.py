"""One optimizer step in one pass over memory: rule, clipping, and the signs that come next. CUDA.

torch takes 6 to 10 launches a parameter for a rule and moves each number several times; here a
large weight is one launch, and all small parameters together are another. Interpreted on the CPU
and compiled; never run on a GPU so far. `bnnlib.rules` has the plain counterparts.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024  # elements a program: 4 warps with 8 a thread
# 2^24 - the 24-bit mantissa of sqrt(2), rounded up: what `binarize.ap2` adds before it clears
SQRT2_CARRY = tl.constexpr((2 << 23) - math.isqrt(2 << 46) - 1)
EXPONENT = tl.constexpr(-1 << 23)
CONSTANTS = {  # of a rule, by its name: beta1, beta2, epsilon, as `bnnlib.rules` has them
    "adam": (0.9, 0.999, 1e-8),
    "adamax-printed": (1 - 2**-3, 1 - 2**-10, 0.0),
    "adamax-coded": (0.9, 0.999, 2**-27),
    "adamax-decaying": (0.9, 0.999, 2**-27),
}


@triton.jit
def ap2(x):
    """float32 -> its nearest power of two: see `bnnlib.binarize.ap2`."""
    bits = x.to(tl.int32, bitcast=True) + SQRT2_CARRY
    return (bits & EXPONENT).to(tl.float32, bitcast=True)


@triton.jit
def update_kernel(
    value, grad, first, second, signs, sizes, groups, bounds, N, group, bound,
    LERP: tl.constexpr, DECAY: tl.constexpr, SQUARE: tl.constexpr, EPS: tl.constexpr,
    RULE: tl.constexpr, JOINED: tl.constexpr, SIGNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """value, grad, first, second (N,) float32, flat. sizes (groups,): finished steps.

    JOINED: element i belongs to groups[i] and stays in +-bounds[i]; else all to `group`, +-bound.
    SIGNS: signs (N,) becomes the sign of what value becomes.
    """
    # Map the program to its elements
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < N
    # Load
    g = tl.load(grad + at, mask=inside, other=0.0)
    m = tl.load(first + at, mask=inside, other=0.0)
    v = tl.load(second + at, mask=inside, other=0.0)
    x = tl.load(value + at, mask=inside, other=0.0)
    if JOINED:
        size = tl.load(sizes + tl.load(groups + at, mask=inside, other=0), mask=inside, other=0.0)
        limit = tl.load(bounds + at, mask=inside, other=0.0)
    else:
        size = tl.load(sizes + group)
        limit = bound
    # Moments, and what the step is multiplied by
    m += LERP * (g - m)
    if RULE == "adam":
        v = DECAY * v + SQUARE * (g * g)
        direction = tl.div_rn(m, tl.sqrt_rn(v) + EPS)
    else:
        v = tl.maximum(DECAY * v, tl.abs(g))
        if RULE == "adamax-printed":
            inverse = ap2(tl.div_rn(tl.full(v.shape, 1.0, tl.float32), v))
            direction = tl.where(v < 1.1754943508222875e-38, 0.0, m * inverse)
        elif RULE == "adamax-coded":
            v = ap2(v) + EPS
            direction = tl.div_rn(m, v)
        else:
            direction = tl.div_rn(m, ap2(v) + EPS)
    x -= size * direction
    x = tl.minimum(tl.maximum(x, -limit), limit)
    # Store
    tl.store(first + at, m, mask=inside)
    tl.store(second + at, v, mask=inside)
    tl.store(value + at, x, mask=inside)
    if SIGNS:
        tl.store(signs + at, tl.where(x >= 0, 1.0, -1.0), mask=inside)


def update_(
    rule: str,
    parameter: Tensor,
    grad: Tensor,
    moments: tuple[Tensor, Tensor],
    sizes: Tensor,
    group: int,
    clip: bool,
    signs: Tensor | None = None,
) -> None:
    """Update one parameter by the rule and sizes[group], then clip it to [-1, 1] if `clip`.

    parameter, grad, both moments, signs: one shape, float32, laid out alike and without gaps; grad
    alone is not written to. signs becomes the sign of the new parameter, sign(0) = +1.
    """
    tensors = [parameter, _like(grad, parameter), *moments]
    tensors.append(parameter if signs is None else signs)
    bound = 1.0 if clip else math.inf
    _launch(rule, tensors, sizes, (sizes, sizes), group, bound, signs is not None)


def update_joined_(
    rule: str, tensors: list[Tensor], sizes: Tensor, groups: Tensor, bounds: Tensor
) -> None:
    """Update many parameters that lie in one line: [value, grad, m, v], each (N,).

    groups (N,) int32: where in `sizes` an element finds its own; bounds (N,): it stays in +-bound.
    """
    _launch(rule, [*tensors, tensors[0]], sizes, (groups, bounds), 0, 0.0, False, joined=True)


def _launch(
    rule: str,
    tensors: list[Tensor],
    sizes: Tensor,
    each: tuple[Tensor, Tensor],
    group: int,
    bound: float,
    signs: bool,
    joined: bool = False,
) -> None:
    beta1, beta2, eps = CONSTANTS[rule]
    lines = [tensor.as_strided((tensor.numel(),), (1,)) for tensor in tensors]
    grid = (triton.cdiv(len(lines[0]), BLOCK),)
    with torch.cuda.device_of(sizes):
        update_kernel[grid](
            *lines, sizes, *each, len(lines[0]), group, bound,
            LERP=1 - beta1, DECAY=beta2, SQUARE=1 - beta2, EPS=eps, RULE=str(rule),
            JOINED=joined, SIGNS=signs, BLOCK=BLOCK,
        )  # fmt: skip


def _like(grad: Tensor, parameter: Tensor) -> Tensor:
    """grad, laid out as the parameter is: most often grad itself."""
    if grad.stride() == parameter.stride():
        return grad
    return torch.empty_like(parameter).copy_(grad)
