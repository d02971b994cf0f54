"""The paper's two networks, their float twins, and the network file. No training settings.

Both take uint8 images and return real class scores (the output of a last batch normalization). With
`Binarization.NONE` a layer is an ordinary one: real weights from Glorot's uniform distribution,
ReLU activations. With both NONE this is the float twin.
"""

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from bnnlib.binarize import Binarization
from bnnlib.layers import (
    BatchNorm,
    BinaryActivation,
    BinaryConv2d,
    BinaryLinear,
    Dropout,
    ScaleInput,
)

CLASSES = 10
MLP_INPUTS = 28 * 28
CONVNET_CHANNELS = 3
CONVNET_SIDE = 32


@dataclass(frozen=True)
class Parts:
    """Makes a network's layers: which of them are binary, and where their random numbers come from.

    `init` draws initial weights on the CPU; `noise` draws during training on the network's device.
    """

    weights: Binarization
    activations: Binarization
    cancel: bool
    init: Generator
    noise: Generator

    def _weight_noise(self) -> Generator | None:
        return self.noise if self.weights is Binarization.STOCHASTIC else None

    def linear(self, fan_in: int, fan_out: int) -> nn.Module:
        if self.weights is Binarization.NONE:
            return self._glorot(nn.utils.skip_init(nn.Linear, fan_in, fan_out))
        return BinaryLinear(fan_in, fan_out, self.init, self._weight_noise())

    def conv(self, channels: int, filters: int) -> nn.Module:
        if self.weights is Binarization.NONE:
            return self._glorot(nn.utils.skip_init(nn.Conv2d, channels, filters, 3, padding=1))
        return BinaryConv2d(channels, filters, self.init, self._weight_noise())

    def activation(self) -> nn.Module:
        if self.activations is Binarization.NONE:
            return nn.ReLU()
        noise = self.noise if self.activations is Binarization.STOCHASTIC else None
        return BinaryActivation(noise, self.cancel)

    def dropout(self, rate: float) -> nn.Module:
        return Dropout(rate, self.noise)

    def _glorot(self, layer: nn.Module) -> nn.Module:
        nn.init.xavier_uniform_(layer.weight, generator=self.init)
        nn.init.zeros_(layer.bias)
        return layer


def mlp(
    parts: Parts, hidden: tuple[int, ...], input_dropout: float = 0.0, hidden_dropout: float = 0.0
) -> nn.Sequential:
    """MNIST network (mnist.py:128-170): images (B, 28, 28) uint8 -> scores (B, 10).

    Each hidden layer is linear, batch norm, binarize, dropout; the last is linear, batch norm.
    """
    layers = [ScaleInput(), nn.Flatten(), parts.dropout(input_dropout)]
    for fan_in, fan_out in pairwise((MLP_INPUTS, *hidden)):
        layers += [parts.linear(fan_in, fan_out), BatchNorm(fan_out), parts.activation()]
        layers.append(parts.dropout(hidden_dropout))
    layers += [parts.linear(hidden[-1], CLASSES), BatchNorm(CLASSES)]
    return nn.Sequential(*layers)


def convnet(parts: Parts, filters: tuple[int, ...], dense: int) -> nn.Sequential:
    """CIFAR-10 network (cifar10.py:117-297): images (B, 3, 32, 32) uint8 -> scores (B, 10).

    For each entry of `filters` two 3x3 convolutions, the second followed by 2x2 max pooling; then
    two dense layers of `dense` units, then the scores. The order is convolve, pool, normalize,
    binarize.
    """
    layers: list[nn.Module] = [ScaleInput()]
    for channels, width in pairwise((CONVNET_CHANNELS, *filters)):
        layers += [parts.conv(channels, width), BatchNorm(width), parts.activation()]
        layers += [parts.conv(width, width), nn.MaxPool2d(2), BatchNorm(width), parts.activation()]
    layers.append(nn.Flatten())
    side = CONVNET_SIDE >> len(filters)
    for fan_in, fan_out in pairwise((filters[-1] * side * side, dense, dense)):
        layers += [parts.linear(fan_in, fan_out), BatchNorm(fan_out), parts.activation()]
    layers += [parts.linear(dense, CLASSES), BatchNorm(CLASSES)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def build(
    parts: Parts,
    network: str,
    hidden: tuple[int, ...],
    dense: int,
    input_dropout: float = 0.0,
    hidden_dropout: float = 0.0,
) -> nn.Sequential:
    """The network that a recipe's fields of these names describe."""
    if network == "convnet":
        return convnet(parts, hidden, dense)
    return mlp(parts, hidden, input_dropout, hidden_dropout)


def binary_layers(network: nn.Module) -> dict[str, nn.Module]:
    """The layers with latent weights, by their name in the network, first to last."""
    return {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, BinaryLinear | BinaryConv2d)
    }


def pack_bits(bits: Tensor) -> Tensor:
    """(N, K) bool -> (N, ceil(K / 8)) uint8: bit j of byte i is element 8 i + j; padded with 0."""
    padded = F.pad(bits.to(torch.uint8), (0, -bits.shape[1] % 8))
    weights = torch.tensor([1 << j for j in range(8)], dtype=torch.uint8)
    return (padded.unflatten(1, (-1, 8)) * weights).sum(2, dtype=torch.uint8)


def unpack_bits(packed: Tensor, length: int) -> Tensor:
    """(N, ceil(K / 8)) uint8 -> (N, K) bool, K = length: the inverse of `pack_bits`."""
    bits = (packed.unsqueeze(2) >> torch.arange(8, dtype=torch.uint8)) & 1
    return bits.flatten(1)[:, :length].bool()


def save_network(network: nn.Sequential, shape: dict) -> bytes:
    """The network file of a binarized network, as bytes (safetensors).

    Sign bits of each binary layer, packed by output row; biases, batch norm and input scaling as
    they are. `shape`: network, hidden, dense, activations of the recipe, for `load_network`.
    Raises ValueError for a network with real weights.
    """
    layers = binary_layers(network)
    if not layers:
        raise ValueError("only networks with binary weights have a network file")
    tensors = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
    for name in layers:
        tensors[f"{name}.weight"] = pack_bits(tensors[f"{name}.weight"].flatten(1) >= 0)
    return safetensors.torch.save(tensors, {"shape": json.dumps(shape, sort_keys=True)})


def load_network(path: Path) -> nn.Sequential:
    """Read a network file. Weights come back as +-1; returned in evaluation mode, on the CPU.

    Raises ValueError, in one sentence, if the file is damaged or holds another kind of network.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            shape = json.loads(file.metadata()["shape"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        network = _from_shape(shape)
        for name, layer in binary_layers(network).items():
            bits = unpack_bits(tensors[f"{name}.weight"], layer.weight[0].numel())
            tensors[f"{name}.weight"] = torch.where(bits, 1.0, -1.0).view_as(layer.weight)
        network.load_state_dict(tensors)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path.name} is no intact network file: {error}") from error
    return network.eval()


def _from_shape(shape: dict) -> nn.Sequential:
    """An untrained deterministic network of the given shape; it never draws after this."""
    generator = torch.Generator()
    activations = Binarization(shape["activations"])
    if activations is Binarization.STOCHASTIC:  # noise acts in training only
        activations = Binarization.DETERMINISTIC
    parts = Parts(Binarization.DETERMINISTIC, activations, True, generator, generator)
    return build(parts, shape["network"], tuple(shape["hidden"]), shape["dense"])
