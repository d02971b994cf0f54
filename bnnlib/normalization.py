"""Batch normalization, exact and shift-based, and the two halves of it for the ablation.

Every class takes x (B, C) or (B, C, H, W), works per entry of axis 1, and calls its factor `gamma`
and its shift `beta`. Statistics are those of the whole batch, however many processes share it. lua
files are the authors' Torch7 code.
"""

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from bnnlib import parallel, shift_norm
from bnnlib.binarize import ap2
from bnnlib.shift_norm import per_channel


def _axes(x: Tensor) -> tuple[int, ...]:
    """All axes but 1, over which a channel's statistics run."""
    return (0, *range(2, x.dim()))


def _affine(x: Tensor, mean: Tensor, factor: Tensor, shift: Tensor) -> Tensor:
    """(x - mean) factor + shift, x (B, C, ...), the others (C,)."""
    centred = x - per_channel(mean, x)
    return centred * per_channel(factor, x) + per_channel(shift, x)


def _normalize(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, ...]:
    """(y, mean, biased variance) of a batch of which each process has its rows; the latter (C,)."""
    mean = parallel.mean(x.mean(_axes(x)))
    variance = parallel.mean((x - per_channel(mean, x)).square().mean(_axes(x)))
    y = _affine(x, mean, gamma * inverse_std(variance, eps), beta)
    return y, mean.detach(), variance.detach()


class BatchNorm(nn.Module):
    """Batch normalization as Lasagne has it.

    Lasagne averages the mean and the *inverse standard deviation* of the biased variance
    (normalization.py:234-305); torch averages the unbiased variance. alpha 0.1 and eps 1e-4 are the
    authors' (mnist.py:36-38, cifar10.py:36-38).
    """

    EPS = 1e-4
    ALPHA = 0.1

    def __init__(self, features: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(features))
        self.beta = nn.Parameter(torch.zeros(features))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("inv_std", torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return _affine(x, self.mean, self.gamma * self.inv_std, self.beta)
        if parallel.size() > 1:
            y, mean, variance = _normalize(x, self.gamma, self.beta, self.EPS)
            inv_std = inverse_std(variance, self.EPS)
        else:
            y, mean, inv_std = torch.native_batch_norm(
                x, self.gamma, self.beta, None, None, True, 0.0, self.EPS
            )
        self.mean.lerp_(mean.detach(), self.ALPHA)
        self.inv_std.lerp_(inv_std.detach(), self.ALPHA)
        return y


class OrdinaryBatchNorm(nn.Module):
    """torch's batch normalization, as the authors' Torch7 code has it behind the last layer.

    File and line: Cifar10_Model.lua:78.

    torch/nn BatchNormalization.lua: eps 1e-5, momentum 0.1 of the unbiased variance, gamma drawn
    from U(0, 1), beta 0.
    """

    def __init__(self, features: int, init: Generator):
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(features).uniform_(0, 1, generator=init))
        self.beta = nn.Parameter(torch.zeros(features))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("variance", torch.ones(features))

    EPS = 1e-5
    MOMENTUM = 0.1

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or parallel.size() == 1:
            values = (self.mean, self.variance, self.gamma, self.beta)
            return F.batch_norm(x, *values, self.training, self.MOMENTUM, self.EPS)
        y, mean, variance = _normalize(x, self.gamma, self.beta, self.EPS)
        count = parallel.size() * x[:, 0].numel()
        self.mean.lerp_(mean, self.MOMENTUM)
        self.variance.lerp_(variance * count / (count - 1), self.MOMENTUM)
        return y


class ShiftNormalize(torch.autograd.Function):
    r"""Shift-based batch normalization of one batch: (y, mean, variance), the latter two (C,).

    Forward (NIPS, Algorithm 3): $C = x - \mu$, $\sigma^2 = \mathrm{mean}(C\, AP2(C))$,
    $s = AP2(1/\sqrt{\sigma^2 + \epsilon})$, $y = AP2(\gamma)\, s\, C + \beta$. The paper's last
    line leaves out $+\beta$, though $\beta$ is among its parameters; the authors' code adds it,
    not rounded (BatchNormalizationShiftPow2.lua:86-115).
    Backward, not the derivative of that but what the code does (:126-156), exact batch norm's
    with $AP2(C)$ for $C$ and $s$ for $1/\sigma$: with $g$ the gradient of $y$,
    $g_x = AP2(\gamma)\, s\, (g - \bar g - AP2(C)\, s^2\, \overline{g\, AP2(C)})$,
    $g_\gamma = \sum g\, AP2(s\, C)$, $g_\beta = \sum g$; bars are means over the batch.
    Raises ValueError for an empty batch, which has no mean.
    """

    @staticmethod
    def forward(ctx, x: Tensor, gamma: Tensor, beta: Tensor, eps: float):
        if x.numel() == 0:
            raise ValueError(f"a batch of shape {tuple(x.shape)} has nothing to normalize")
        mean = parallel.mean(x.mean(_axes(x)))
        spread = shift_norm.spread(x, mean)
        variance = parallel.mean(spread.mean(_axes(x)))
        shift = ap2(inverse_std(variance, eps))
        factor = ap2(gamma) * shift  # a product of powers of two is exact, in any order
        ctx.save_for_backward(x, mean, shift, factor)
        ctx.mark_non_differentiable(mean, variance)
        return shift_norm.affine(x, mean, factor, beta, out=spread), mean, variance

    @staticmethod
    def backward(ctx, grad: Tensor, *_):
        x, mean, shift, factor = ctx.saved_tensors
        products = shift_norm.along(x, grad, mean)
        total = grad.sum(_axes(grad))
        along = products.sum(_axes(grad))
        count = grad.numel() // len(total)
        # The sums are over this process's rows.
        slope = -factor * shift.square() * parallel.mean(along) / count
        level = factor * parallel.mean(total) / count
        grad_x = shift_norm.gradient(x, grad, mean, slope, factor, level, out=products)
        return grad_x, along * shift, total, None  # AP2(s C) = s AP2(C)


def inverse_std(variance: Tensor, eps: float) -> Tensor:
    """1 / sqrt(variance + eps), any shape."""
    return (variance + eps).sqrt().reciprocal()


class ShiftBatchNorm(nn.Module):
    """Shift-based batch normalization as the authors' Torch7 code has it.

    It averages the mean and the *inverse standard deviation*, neither rounded, and rounds at test
    (BatchNormalizationShiftPow2.lua:72, 91). eps 1e-5, momentum 0.125 (:23-25). The average starts
    at 1, for convolutions at 0 (SpatialBatchNormalizationShiftPow2.lua:77): `start`.
    """

    EPS = 1e-5
    MOMENTUM = 0.125

    def __init__(self, features: int, start: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(features))
        self.beta = nn.Parameter(torch.zeros(features))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("inv_std", torch.full((features,), start))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return _affine(x, self.mean, ap2(self.gamma) * ap2(self.inv_std), self.beta)
        y, mean, variance = ShiftNormalize.apply(x, self.gamma, self.beta, self.EPS)
        self.mean.lerp_(mean, self.MOMENTUM)
        self.inv_std.lerp_(inverse_std(variance, self.EPS), self.MOMENTUM)
        return y


class PrintedShiftBatchNorm(nn.Module):
    """Shift-based batch normalization as the paper prints it (NIPS, Algorithm 3).

    The printed forward is `ShiftNormalize`. The paper gives no backward, no constants and nothing
    of test time: backward and constants are the code's; at test the printed formula takes averages
    of mean and variance, the quantities that it names.
    """

    def __init__(self, features: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(features))
        self.beta = nn.Parameter(torch.zeros(features))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("variance", torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        eps = ShiftBatchNorm.EPS
        momentum = ShiftBatchNorm.MOMENTUM
        if not self.training:
            shift = ap2(inverse_std(self.variance, eps))
            return _affine(x, self.mean, ap2(self.gamma) * shift, self.beta)
        y, mean, variance = ShiftNormalize.apply(x, self.gamma, self.beta, eps)
        self.mean.lerp_(mean, momentum)
        self.variance.lerp_(variance, momentum)
        return y


class Scale(nn.Module):
    """gamma x + beta, without any statistics: what batch norm learns, without what it measures.

    gamma starts at 1 / sqrt(fan_in) of the layer before, about the inverse standard deviation of a
    sum of that many signs, so that only following the data is missing and not the scale.
    """

    def __init__(self, features: int, fan_in: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((features,), 1 / math.sqrt(fan_in)))
        self.beta = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        return x * per_channel(self.gamma, x) + per_channel(self.beta, x)
