"""The network file: a binarized network's sign bits, batch norm and input scaling (safetensors)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from bnnlib.binarize import Binarization
from bnnlib.layers import Normalization
from bnnlib.models import CLASSES, LayerFactory, binary_layers, build, image_shape, require_images
from bnnlib.variants import without_scales

DAMAGE = (safetensors.SafetensorError, LookupError, TypeError, ValueError, RuntimeError)
DAMAGE += (AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True)
class About:
    """Facts that a network file tells beside its numbers."""

    shape: tuple[int, ...]  # of an image: (S, S), (1, S, S) or (3, S, S)
    labels: tuple[str, ...]  # a name a class; "0", "1", ... in older files
    dataset: str  # what it was trained on, such as "mnist"; "" in older files
    error: float | None = None  # on test images, in %; None where the file doesn't say
    tested: int = 0  # how many test images
    record: str = ""  # the run that made it

    @property
    def reads_digits(self) -> bool:
        """Whether pictures have to be brought into MNIST's form."""
        return self.shape == (28, 28) and self.dataset in ("mnist", "")


def pack_bits(bits: Tensor) -> Tensor:
    """(N, K) bool -> (N, ceil(K / 8)) uint8: bit j of byte i is element 8 i + j; padded with 0."""
    return torch.from_numpy(np.packbits(bits.numpy(), axis=1, bitorder="little"))


def unpack_bits(packed: Tensor, length: int) -> Tensor:
    """(N, ceil(K / 8)) uint8 -> (N, K) bool, K = length: the inverse of `pack_bits`."""
    bits = np.unpackbits(packed.numpy(), axis=1, count=length, bitorder="little")
    return torch.from_numpy(bits).bool()


def trained_on(
    dataset: str,
    labels: Sequence[str],
    error: float | None = None,
    tested: int = 0,
    record: str = "",
) -> dict:
    """Facts of its training that a network file keeps, in the words of `About`."""
    told = {"dataset": dataset, "labels": list(labels)}
    return told | {"error": error, "tested": tested, "record": record}


def save_network(network: nn.Sequential, shape: dict, trained: dict | None = None) -> bytes:
    """The network file of a binarized network, as bytes (safetensors).

    Sign bits of each binary layer, packed by output row; biases, batch norm and input scaling as
    they are. `shape`: the recipe's `file_shape`. trained: what `trained_on` returns.
    Scales of filters go into the batch normalization behind them: see `variants`.
    Raises ValueError for a network with real weights, and for a NaN among those of a binary layer.
    """
    network = without_scales(network)
    layers = binary_layers(network)
    if not layers:
        raise ValueError("only networks with binary weights have a network file")
    tensors = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
    for name, layer in layers.items():
        if layer.weight.isnan().any():
            raise ValueError(f"a weight of layer {name} is a NaN, which has no sign to be kept")
        tensors[f"{name}.weight"] = pack_bits(tensors[f"{name}.weight"].flatten(1) >= 0)
    metadata = {"shape": json.dumps(shape, sort_keys=True)}
    if trained:
        metadata["trained_on"] = json.dumps(trained, sort_keys=True)
    return _serialized(tensors, metadata)


def with_training(content: bytes, trained: dict) -> bytes:
    """A network file with what `trained_on` returns written, or written anew, into its metadata."""
    told = {"trained_on": json.dumps(trained, sort_keys=True)}
    return _serialized(safetensors.torch.load(content), _metadata(content) | told)


def _serialized(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """A safetensors file with its metadata by name; the package itself writes them in any order."""
    content = safetensors.torch.save(tensors, metadata)
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # numbers begin at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text + content[end:]


def load_network(source: str | Path | bytes) -> nn.Sequential:
    """Read a network file, by its path or as bytes. Weights come back as +-1; returned in
    evaluation mode, on the CPU.

    Raises ValueError, in one sentence, if the file is damaged or holds another kind of network, and
    OSError where there is none.
    """
    content = _content(source)
    try:
        tensors = safetensors.torch.load(content)
        network = _from_shape(json.loads(_metadata(content)["shape"]), tensors)
        _require_tensors_of(network, tensors)
        network.to_empty(device="cpu")
        for name, layer in binary_layers(network).items():
            bits = unpack_bits(tensors[f"{name}.weight"], layer.weight[0].numel())
            tensors[f"{name}.weight"] = torch.where(bits, 1.0, -1.0).view_as(layer.weight)
        network.load_state_dict(tensors)
    except DAMAGE as error:
        raise _damaged(source, error) from error
    return network.eval()


def about(source: str | Path | bytes) -> About:
    """Read what a network file tells beside its numbers. Raises as `load_network` does."""
    content = _content(source)
    try:
        metadata = _metadata(content)
        shape = json.loads(metadata["shape"])
        images = image_shape(shape["network"], shape.get("side", 0), shape.get("channels", 0))
        classes = shape.get("classes", CLASSES)
        require_images(shape["network"], 0, images, classes)
        told = json.loads(metadata.get("trained_on", '{"dataset": "", "labels": []}'))
        labels = told["labels"] or list(map(str, range(classes)))
        if len(labels) != classes:
            raise ValueError(f"it names {len(labels)} of {classes} classes")
        error, record = told.get("error"), _one_line(told.get("record", ""))
        named = tuple(map(_one_line, labels)), _one_line(told["dataset"])
        error = None if error is None else float(error)
        return About(images, *named, error, int(told.get("tested", 0)), record)
    except DAMAGE as error:
        raise _damaged(source, error) from error


def name_of(source: str | Path | bytes) -> str:
    """Name of a network file in messages."""
    return "network" if isinstance(source, bytes) else Path(source).name


def _content(source: str | Path | bytes) -> bytes:
    return source if isinstance(source, bytes) else Path(source).read_bytes()


def _metadata(content: bytes) -> dict[str, str]:
    """safetensors: eight bytes say how long the JSON is that follows them."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length])["__metadata__"]


def _one_line(text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"a name is {text!r}")
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _damaged(source: str | Path | bytes, error: Exception) -> ValueError:
    reason = str(error).partition("\n")[0]  # torch has more lines, of its own
    return ValueError(f"{name_of(source)} is no intact network file: {reason}")


def _from_shape(shape: dict, tensors: dict[str, Tensor]) -> nn.Sequential:
    """An untrained deterministic network of the given shape, without memory for its values.

    Raises ValueError for a shape of no network, or of more layers than there are tensors.
    """
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
        sizes = {name: shape[name] for name in ("side", "channels", "classes") if name in shape}
        return build(factory, shape["network"], tuple(shape["hidden"]), shape["dense"], **sizes)


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
