"""The paper's two networks, their float twins, and the network file. No training settings.

Both take uint8 images and return real class scores (the output of a last batch normalization). With
`Binarization.NONE` a layer is an ordinary one: real weights from Glorot's uniform distribution,
ReLU activations. With both NONE this is the float twin.
"""

import json
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from bnnlib.binarize import Binarization
from bnnlib.functional import Values, laid_out
from bnnlib.layers import (
    BinaryActivation,
    BinaryConv2d,
    BinaryLinear,
    Dropout,
    Initialization,
    MaxPool2x2,
    Normalization,
    ScaleInput,
    order_for_kernels,
)
from bnnlib.normalization import (
    BatchNorm,
    OrdinaryBatchNorm,
    PrintedShiftBatchNorm,
    Scale,
    ShiftBatchNorm,
)
from study.recipes.recipe import Recipe

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
    batch_norm: Normalization = Normalization.EXACT
    initialization: Initialization = Initialization.UNIFORM

    def _binary(self) -> dict:
        """What all binary layers are made with."""
        noise = self.noise if self.weights is Binarization.STOCHASTIC else None
        return {"init": self.init, "noise": noise, "initialization": self.initialization}

    def linear(self, fan_in: int, fan_out: int) -> nn.Module:
        if self.weights is Binarization.NONE:
            return self._glorot(nn.utils.skip_init(nn.Linear, fan_in, fan_out))
        return order_for_kernels(BinaryLinear(fan_in, fan_out, **self._binary()))

    def conv(self, channels: int, filters: int) -> nn.Module:
        if self.weights is Binarization.NONE:
            layer = nn.utils.skip_init(nn.Conv2d, channels, filters, 3, padding=1)
            return self._glorot(layer).to(memory_format=torch.channels_last)
        return order_for_kernels(BinaryConv2d(channels, filters, **self._binary()))

    def normalization(self, features: int, fan_in: int, spatial: bool = False) -> nn.Module:
        """What normalizes `features` sums of `fan_in` terms each; spatial: of a convolution."""
        match self.batch_norm:
            case Normalization.SHIFT_PRINTED:
                return PrintedShiftBatchNorm(features)
            case Normalization.SHIFT_CODED:
                return ShiftBatchNorm(features, start=0.0 if spatial else 1.0)
            case Normalization.SCALE:
                return Scale(features, fan_in)
            case Normalization.NONE:
                return nn.Identity()
        learned = self.batch_norm is Normalization.EXACT
        return BatchNorm(features).requires_grad_(learned)  # else gamma stays 1 and beta 0

    def last_normalization(self, fan_in: int) -> nn.Module:
        """That of the scores."""
        if self.batch_norm is Normalization.SHIFT_CODED:
            return OrdinaryBatchNorm(CLASSES, self.init)
        return self.normalization(CLASSES, fan_in)

    def activation(self) -> nn.Module:
        if self.activations is Binarization.NONE:
            return nn.ReLU()
        noise = self.noise if self.activations is Binarization.STOCHASTIC else None
        return BinaryActivation(noise, self.cancel)

    def values(self, dropout: float) -> Values:
        """What a hidden layer reads in training."""
        if self.activations is Binarization.NONE:
            return Values.REAL
        drawn = self.activations is Binarization.STOCHASTIC
        signs = Values.DRAWN if drawn else Values.SIGNS
        return {0.0: signs, 0.5: Values.DROPPED}.get(dropout, Values.REAL)

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
        layers += [parts.linear(fan_in, fan_out), parts.normalization(fan_out, fan_in)]
        layers += [parts.activation(), parts.dropout(hidden_dropout)]
    layers += [parts.linear(hidden[-1], CLASSES), parts.last_normalization(hidden[-1])]
    return nn.Sequential(*layers)


def convnet(parts: Parts, filters: tuple[int, ...], dense: int) -> nn.Sequential:
    """CIFAR-10 network (cifar10.py:117-297): images (B, 3, 32, 32) uint8 -> scores (B, 10).

    For each entry of `filters` two 3x3 convolutions, the second followed by 2x2 max pooling; then
    two dense layers of `dense` units, then the scores. The order is convolve, pool, normalize,
    binarize.
    """
    layers: list[nn.Module] = [ScaleInput()]
    for channels, width in pairwise((CONVNET_CHANNELS, *filters)):
        layers += [parts.conv(channels, width)]
        layers += [parts.normalization(width, 9 * channels, spatial=True), parts.activation()]
        layers += [parts.conv(width, width), MaxPool2x2()]
        layers += [parts.normalization(width, 9 * width, spatial=True), parts.activation()]
    layers.append(nn.Flatten())
    side = CONVNET_SIDE >> len(filters)
    for fan_in, fan_out in pairwise((filters[-1] * side * side, dense, dense)):
        layers += [parts.linear(fan_in, fan_out), parts.normalization(fan_out, fan_in)]
        layers.append(parts.activation())
    layers += [parts.linear(dense, CLASSES), parts.last_normalization(dense)]
    return nn.Sequential(*layers)


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
        built = convnet(parts, hidden, dense)
    else:
        built = mlp(parts, hidden, input_dropout, hidden_dropout)
    for layer in list(binary_layers(built).values())[1:]:  # the first one reads pixels
        layer.inputs = parts.values(hidden_dropout)
    return built


def build_network(recipe: Recipe, seed: int, device: str = "cpu") -> nn.Sequential:
    """The recipe's network with its initial weights, a function of the seed."""
    parts = Parts(
        recipe.weights,
        recipe.activations,
        recipe.cancel_saturated,
        Generator().manual_seed(3 * seed),
        Generator(device).manual_seed(3 * seed + 1),
        recipe.batch_norm,
        recipe.initialization,
    )
    network = build(
        parts,
        recipe.network,
        recipe.hidden,
        recipe.dense,
        recipe.input_dropout,
        recipe.hidden_dropout,
    )
    return on_device(network, device)


def on_device(network: nn.Sequential, device: str) -> nn.Sequential:
    """The network moved to a device, its latent weights laid out as the device reads them."""
    network.to(device)
    for layer in binary_layers(network).values():
        layer.weight.data = laid_out(layer.weight.data)
    return network


def noise_generator(network: nn.Module) -> Generator | None:
    """The one generator that all noisy layers of a network share; None if none draws."""
    noises = (getattr(layer, "noise", None) for layer in network.modules())
    return next((noise for noise in noises if noise is not None), None)


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


def file_shape(recipe: Recipe) -> dict:
    """What a network file tells of a recipe, so that `load_network` can build the network."""
    names = ("network", "hidden", "dense", "activations", "batch_norm")
    return {name: value for name, value in asdict(recipe).items() if name in names}


def save_network(network: nn.Sequential, shape: dict) -> bytes:
    """The network file of a binarized network, as bytes (safetensors).

    Sign bits of each binary layer, packed by output row; biases, batch norm and input scaling as
    they are. `shape`: the recipe's `file_shape`.
    Raises ValueError for a network with real weights, and for a NaN among those of a binary layer.
    """
    layers = binary_layers(network)
    if not layers:
        raise ValueError("only networks with binary weights have a network file")
    tensors = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
    for name, layer in layers.items():
        if layer.weight.isnan().any():
            raise ValueError(f"a weight of layer {name} is a NaN, which has no sign to be kept")
        tensors[f"{name}.weight"] = pack_bits(tensors[f"{name}.weight"].flatten(1) >= 0)
    return safetensors.torch.save(tensors, {"shape": json.dumps(shape, sort_keys=True)})


def load_network(path: str | Path) -> nn.Sequential:
    """Read a network file. Weights come back as +-1; returned in evaluation mode, on the CPU.

    Raises ValueError, in one sentence, if the file is damaged or holds another kind of network.
    """
    path = Path(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            shape = json.loads(file.metadata()["shape"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        network = _from_shape(shape, tensors)
        _require_tensors_of(network, tensors)
        network.to_empty(device="cpu")
        for name, layer in binary_layers(network).items():
            bits = unpack_bits(tensors[f"{name}.weight"], layer.weight[0].numel())
            tensors[f"{name}.weight"] = torch.where(bits, 1.0, -1.0).view_as(layer.weight)
        network.load_state_dict(tensors)
    except (safetensors.SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]  # torch has more lines, of its own
        raise ValueError(f"{path.name} is no intact network file: {reason}") from error
    return network.eval()


def _from_shape(shape: dict, tensors: dict[str, Tensor]) -> nn.Sequential:
    """An untrained deterministic network of the given shape, without memory for its values.

    Raises ValueError for a shape of no network, or of more layers than there are tensors.
    """
    if shape["network"] not in ("mlp", "convnet"):
        raise ValueError(f"network {shape['network']!r} is neither mlp nor convnet")
    if len(shape["hidden"]) > len(tensors):
        raise ValueError(f"{len(shape['hidden'])} hidden layers in {len(tensors)} tensors")
    generator = torch.Generator()  # it never draws after this
    activations = Binarization(shape["activations"])
    if activations is Binarization.STOCHASTIC:  # noise acts in training only
        activations = Binarization.DETERMINISTIC
    batch_norm = Normalization(shape.get("batch_norm", "exact"))  # older files have no such word
    parts = Parts(Binarization.DETERMINISTIC, activations, True, generator, generator, batch_norm)
    with torch.device("meta"):
        return build(parts, shape["network"], tuple(shape["hidden"]), shape["dense"])


def _require_tensors_of(network: nn.Sequential, tensors: dict[str, Tensor]) -> None:
    """Raise ValueError unless a file's tensors are a network's, of whose shapes it names one."""
    wanted = {name: list(value.shape) for name, value in network.state_dict().items()}
    for name, layer in binary_layers(network).items():
        wanted[f"{name}.weight"] = [len(layer.weight), -(-layer.weight[0].numel() // 8)]
    found = {name: list(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(wanted.keys() | found.keys()):
        ours, theirs = wanted.get(name), found.get(name)
        if ours != theirs:
            raise ValueError(f"the shape of {name} is {theirs}, its network's {ours}")
