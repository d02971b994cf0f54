"""Two later refinements of binarization, for comparison: a scale for each filter, another gradient.

M. Rastegari et al., XNOR-Net, ECCV 2016 (arXiv 1603.05279), and Z. Liu et al., Bi-Real Net, ECCV
2018 (arXiv 1808.00278).
"""

from copy import deepcopy

import torch
from torch import Generator, Tensor, nn

from bnnlib.binarize import sign
from bnnlib.functional import InputValues, linear
from bnnlib.layers import BinaryActivation, BinaryLayer, BinaryLinear, Initialization
from bnnlib.normalization import BatchNorm


class ApproxSign(torch.autograd.Function):
    """Sign forward, the slope of Bi-Real Net's piecewise polynomial backward."""

    @staticmethod
    def forward(ctx, real: Tensor) -> Tensor:
        ctx.save_for_backward(real)
        return sign(real)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (real,) = ctx.saved_tensors
        return grad * (2 - 2 * real.abs()).clamp(min=0)


class PolynomialActivation(BinaryActivation):
    r"""x -> {-1, +1}, same shape, with the gradient $g_r = g_q\, \max(0, 2 - 2 \lvert r \rvert)$.

    It is the derivative of ApproxSign, $2 r + r^2$ for $-1 \le r < 0$ and $2 r - r^2$ for
    $0 \le r < 1$, which comes closer to the sign than a hard tanh (Bi-Real Net, section 3.3).
    """

    def forward(self, x: Tensor) -> Tensor:
        return ApproxSign.apply(x)


class ScaledBinaryLinear(BinaryLayer):
    r"""x (B, in) -> (B, out): $\alpha_n$ times the sum of unit n, + b; arguments as BinaryLinear's.

    $\alpha_n$ is the mean of its latent weights' absolute values, the best scale of their signs in
    the sense of least squares (XNOR-Net, section 3.1). The gradient also goes through it, by
    autograd; the paper's rule keeps one term of that sum, 1 / in. Batch normalization right behind
    divides by the scale again: but for its eps such a network computes what one without does.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        init: Generator | None = None,
        noise: Generator | None = None,
        initialization: Initialization = Initialization.UNIFORM,
        inputs: InputValues = InputValues.REAL,
    ):
        super().__init__((out_features, in_features), bias, init, noise, initialization, inputs)

    def filter_scale(self) -> Tensor:
        """(out,): the mean absolute latent weight of each unit."""
        return self.weight.abs().mean(1)

    def forward(self, x: Tensor) -> Tensor:
        sums = linear(x, self.signed_weight(), None, self.values()) * self.filter_scale()
        return sums if self.bias is None else sums + self.bias


@torch.no_grad()
def without_scales(network: nn.Sequential) -> nn.Sequential:
    """The network with the scales of its filters moved into the batch normalization behind them.

    A copy, or the network itself if it has none. In evaluation it computes the same scores, but for
    rounding, from signs alone. Raises ValueError, naming the layer, where no BatchNorm follows.
    """
    if not any(isinstance(part, ScaledBinaryLinear) for part in network.children()):
        return network
    network = deepcopy(network)
    for place, part in enumerate(network.children()):
        if isinstance(part, ScaledBinaryLinear):
            behind = network[place + 1] if place + 1 < len(network) else None
            if not isinstance(behind, BatchNorm):
                raise ValueError(
                    f"layer {place} scales its filters, and no BatchNorm takes the scale in"
                )
            network[place] = _unscaled(part, behind)
    return network


def _unscaled(layer: ScaledBinaryLinear, behind: BatchNorm) -> BinaryLinear:
    """The layer without its scale, which `behind` is changed to take in."""
    scale = layer.filter_scale()
    plain = BinaryLinear(layer.weight.shape[1], len(scale), layer.bias is not None)
    plain.weight, plain.bias = layer.weight, layer.bias
    plain.noise, plain.inputs = layer.noise, layer.inputs
    behind.mean /= scale
    behind.inv_std *= scale
    if plain.bias is not None:
        plain.bias /= scale
    return plain.train(layer.training)
