r"""A binarized network in integers: what its layers sum, and the thresholds that replace the rest.

Between two binary layers a network does this, in float32: the sum s of signs, an integer, + bias,
max pooling, normalization, >= 0. Here all of it becomes one integer threshold on s per channel.

**Thresholds.** Each step rounds a monotone function of its one argument, and rounding is monotone:
s -> float32, / 255, + bias, - mean and + beta never decrease; times the factor never decreases, or
never increases where the factor is negative. So over all sums the bit changes once or never, and
bisection that runs the network's own steps finds where, to the last bit of every tie. A border sum
of a padded convolution is an integer too, of fewer terms, and has the same threshold.

**Pooling.** It takes the largest sum m of a window. Where the bit rises with s, m has it if any sum
has: OR. Where it falls, the row's weights change sign and with them s, so that -m, now the least
sum, decides: its bit is set only if all are: AND. Where it never changes, both give that constant.

**First layer.** Pixels p reach a network as x = 2 p / 255 - 1 = (2 p - 255) / 255, so its sum over
x is the sum over the integers q = 2 p - 255 divided by 255; a normalization with mean, variance and
eps of x is one of q with 255 mean, 255^2 variance and 255^2 eps. `reference` divides the exact sum
once; the network itself rounds every pixel and every partial sum, so that of its first layer's bits
those whose sum lies within that rounding of the threshold may differ.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnlib.binarize import sign
from bnnlib.layer_order import BINARY, require_order
from bnnlib.layers import MaxPool2x2, ScaleInput

PIXEL = 255  # a pixel p is the integer 2 p - PIXEL, and the network reads it over PIXEL
ALWAYS = -(2**31)  # the threshold of a bit that is always 1
NEVER = 2**31 - 1  # and of one that is always 0: no sum reaches it


@dataclass(frozen=True, eq=False)
class Block:
    """A binary layer and what the network does before its next one: add, pool, normalize."""

    signs: Tensor  # (N, K) or (N, C, 3, 3) float32 in {-1, +1}
    bias: Tensor  # (N,)
    pooled: bool  # 2x2
    normalization: nn.Module  # in evaluation mode
    divisor: int | None  # it reads integers over this; None: real numbers

    def __call__(self, x: Tensor) -> Tensor:
        """x (B, ...), inputs times the divisor -> float32 (B, N) or (B, N, H, W), before the sign.

        Integers are summed exactly; real numbers as the network does it.
        """
        if self.divisor is None:
            reals = self._product(x, self.signs, self.bias)
        else:
            reals = self._biased(self._product(x.double(), self.signs.double()))
        return self.normalization(MaxPool2x2()(reals) if self.pooled else reals)

    def real(self, sums: Tensor) -> Tensor:
        """Sums (B, N), integers of any dtype -> what the network normalizes them to, float32."""
        return self.normalization(self._biased(sums))

    def _product(self, x: Tensor, signs: Tensor, bias: Tensor | None = None) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # which would round to fewer bits
            if signs.dim() == 2:
                return F.linear(x.flatten(1), signs, bias)
            return F.conv2d(x, signs, bias, padding=1)

    def _biased(self, sums: Tensor) -> Tensor:
        # A tensor divides; by a number, CUDA would multiply with the rounded reciprocal.
        divided = sums.float() / self.bias.new_tensor(self.divisor)
        return divided + self.bias.view(-1, *(1,) * (sums.dim() - 2))


def reads_pixels(network: nn.Sequential) -> bool:
    """Whether the network scales uint8 pixels to [-1, 1], so that its first sums are integers."""
    plain = ScaleInput()
    return bool(network[0].scale == plain.scale) and bool(network[0].offset == plain.offset)


def blocks(network: nn.Sequential) -> list[Block]:
    """The binary layers of a network as `models.build` makes it, first to last: copies, detached.

    Raises ValueError for a float twin, for real activations, for values that are not finite or not
    of float32, and for layers in another order: a sentence that names the layer.
    """
    kinds = {type(part) for part in network.children()}
    if kinds & {nn.Linear, nn.Conv2d}:
        raise ValueError("a float twin cannot be packed: its weights are real numbers, not signs")
    if nn.ReLU in kinds:
        raise ValueError("a network whose activations are real (ReLU), not signs, cannot be packed")
    require_order(network)
    for name, values in network.state_dict().items():
        if not values.isfinite().all():
            raise ValueError(f"a network cannot be packed where {name} is not finite")
        if values.dtype != torch.float32:
            raise ValueError(f"a network is packed from float32, but {name} is {values.dtype}")
    layers = [i for i, part in enumerate(network) if isinstance(part, BINARY)]
    first = PIXEL if reads_pixels(network) else None
    return [_block(network[i:], first if i == layers[0] else 1) for i in layers]


def _block(parts: nn.Sequential, divisor: int | None) -> Block:
    """The first of `parts`, with what follows it."""
    layer = parts[0]
    pooled = isinstance(parts[1], MaxPool2x2)
    normalization = deepcopy(parts[2 if pooled else 1]).eval().requires_grad_(False)
    bias = layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias
    return Block(sign(layer.weight), bias.detach().clone(), pooled, normalization, divisor)


def fold(block: Block) -> tuple[Tensor, Tensor]:
    """Thresholds (N,) int32 and the rows to flip (N,) bool, which make the same bits as the block.

    Bit n is [s_n >= thresholds_n], with s the sums of the flipped weights, for every sum that can
    occur.
    """
    largest = block.signs[0].numel() * block.divisor
    edge = torch.full_like(block.bias, largest, dtype=torch.int64)

    def bits(sums: Tensor) -> Tensor:
        return block.real(sums[None])[0] >= 0

    at_least = bits(-edge)
    at_most = bits(edge)
    flipped = at_least & ~at_most
    direction = torch.where(flipped, -1, 1)
    low = -edge  # without the bit, where bits change
    high = edge  # with it
    for _ in range((2 * largest).bit_length()):
        middle = (low + high) >> 1
        on = bits(direction * middle)
        low = torch.where(on, low, middle)
        high = torch.where(on, middle, high)
    constant = torch.where(at_least, ALWAYS, NEVER)
    return torch.where(at_least == at_most, constant, high).to(torch.int32), flipped


@torch.no_grad()
def reference(network: nn.Sequential, images: Tensor) -> Iterator[Tensor]:
    """Yield each hidden layer's signs, then the scores (B, 10), as a packed network must have them.

    Signs are float32 in {-1, +1}, (B, N) or (B, N, H, W), behind the pooling. The float network in
    plain torch, but for exact sums of integers, which it rounds as it goes; only a first layer that
    reads other than pixels scaled to [-1, 1] sums real numbers, as the network does.
    """
    pixels = reads_pixels(network)
    x = 2 * images.double() - PIXEL if pixels else network[0](images)
    *hidden, last = blocks(network)
    for block in hidden:
        x = sign(block(x))
        yield x
    yield last(x)
