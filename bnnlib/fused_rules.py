"""The one-pass forms of `rules` on a CPU: each rule and its clipping together, over memory once.

Each takes its learning rate as `rules` does, and has the constants of its rule.
"""

import math

import numpy as np
from torch import Tensor

from bnnlib.kernels import dispatch
from bnnlib.rules import PRINTED_BETA1, Rule, adam_step, shifted_step


def fused_adam(
    parameter: Tensor,
    grad: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    t: int,
    learning_rate: float | Tensor,
    scale: float,
    clip: bool,
) -> None:
    """`adam_update`, then clipping to [-1, 1] if `clip`, in one pass over memory."""
    from bnnlib.kernels.cpu import elementwise

    beta1 = 0.9
    beta2 = 0.999
    eps = 1e-8
    step = float(adam_step(t, learning_rate, scale, beta1, beta2))
    arrays = [dispatch.flat(x) for x in (parameter, grad, first_moment, second_moment)]
    bound = 1.0 if clip else math.inf
    dispatch.run(elementwise.adam, arrays, step, beta2, 1 - beta1, 1 - beta2, eps, bound)


def fused_adamax_coded(
    parameter: Tensor,
    grad: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    t: int,
    learning_rate: float | Tensor,
    scale: float,
    clip: bool,
) -> None:
    """`adamax_coded_update`, then clipping to [-1, 1] if `clip`, in one pass over memory."""
    from bnnlib.kernels.cpu import elementwise

    beta1 = 0.9
    beta2 = 0.999
    eps = 2**-27
    step = float(shifted_step(t, learning_rate, scale, beta1))
    arrays = [dispatch.flat(x) for x in (parameter, grad, first_moment, second_moment)]
    arrays.append(arrays[3].view(np.int32))
    bound = 1.0 if clip else math.inf
    dispatch.run(elementwise.adamax_coded, arrays, step, beta2, 1 - beta1, eps, bound)


def fused_adamax_printed(
    parameter: Tensor,
    grad: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    t: int,
    learning_rate: float | Tensor,
    scale: float,
    clip: bool,
) -> None:
    """`adamax_printed_update`, then clipping to [-1, 1] if `clip`, in one pass over memory."""
    from bnnlib.kernels.cpu import elementwise

    beta1 = PRINTED_BETA1
    beta2 = 1 - 2**-10
    step = float(shifted_step(t, learning_rate, scale, beta1))
    arrays = [dispatch.flat(x) for x in (parameter, grad, first_moment, second_moment)]
    bound = 1.0 if clip else math.inf
    dispatch.run(elementwise.adamax_printed, arrays, step, beta2, 1 - beta1, bound)


def fused_adamax_decaying(
    parameter: Tensor,
    grad: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    t: int,
    learning_rate: float | Tensor,
    scale: float,
    clip: bool,
) -> None:
    """`adamax_decaying_update`, then clipping to [-1, 1] if `clip`, in one pass over memory."""
    from bnnlib.kernels.cpu import elementwise

    beta1 = 0.9
    beta2 = 0.999
    eps = 2**-27
    step = float(shifted_step(t, learning_rate, scale, beta1))
    arrays = [dispatch.flat(x) for x in (parameter, grad, first_moment, second_moment)]
    bound = 1.0 if clip else math.inf
    dispatch.run(elementwise.adamax_decaying, arrays, step, beta2, 1 - beta1, eps, bound)


FUSED = {
    Rule.ADAM: fused_adam,
    Rule.ADAMAX_PRINTED: fused_adamax_printed,
    Rule.ADAMAX_CODED: fused_adamax_coded,
    Rule.ADAMAX_DECAYING: fused_adamax_decaying,
}
