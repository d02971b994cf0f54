"""The network file: a binarized network's sign bits, batch norm and input scaling (safetensors)."""

import json
from pathlib import Path

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnlib.binarize import Binarization
from bnnlib.layers import Normalization
from bnnlib.models import LayerFactory, binary_layers, build


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
    factory = LayerFactory(
        weights=Binarization.DETERMINISTIC,
        activations=activations,
        cancel=True,
        init=generator,
        noise=generator,
        batch_norm=batch_norm,
    )
    with torch.device("meta"):
        return build(factory, shape["network"], tuple(shape["hidden"]), shape["dense"])


def _require_tensors_of(network: nn.Sequential, tensors: dict[str, Tensor]) -> None:
    """Raise ValueError, naming a tensor, unless a file's tensors have a network's shapes."""
    wanted = {name: list(value.shape) for name, value in network.state_dict().items()}
    for name, layer in binary_layers(network).items():
        wanted[f"{name}.weight"] = [len(layer.weight), -(-layer.weight[0].numel() // 8)]
    found = {name: list(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(wanted.keys() | found.keys()):
        ours = wanted.get(name)
        theirs = found.get(name)
        if ours != theirs:
            raise ValueError(f"the shape of {name} is {theirs}, its network's {ours}")
