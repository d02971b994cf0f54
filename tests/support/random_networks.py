"""Small networks whose values are drawn at random, to try what training would seldom reach."""

import torch
from torch import Tensor, nn

from bnnlib.binarize import Binarization
from bnnlib.layers import BinaryConv2d, Normalization, ScaleInput
from bnnlib.models import LayerFactory, binary_layers, build, convnet, mlp

DENSE = 40
DETERMINISTIC = Binarization.DETERMINISTIC


def random_network(
    network: str,
    hidden: tuple[int, ...],
    batch_norm: Normalization,
    scaling: ScaleInput | None = None,
    weights: Binarization = DETERMINISTIC,
    activations: Binarization = DETERMINISTIC,
) -> nn.Sequential:
    """In evaluation mode; convnets have DENSE units behind their filters `hidden`."""
    init = torch.Generator().manual_seed(0)
    parts = LayerFactory(weights, activations, True, init, torch.Generator(), batch_norm)
    built = mlp(parts, hidden) if network == "mlp" else convnet(parts, hidden, DENSE)
    built[0] = scaling or ScaleInput()
    shuffle_values(built, seed=1)
    return built.eval()


def sized_network(
    shape: tuple[int, ...], classes: int, hidden: tuple[int, ...], convnet: bool = False
) -> nn.Sequential:
    """The same for square images of a shape and a number of classes."""
    init = torch.Generator().manual_seed(0)
    parts = LayerFactory(DETERMINISTIC, DETERMINISTIC, True, init, torch.Generator())
    channels = shape[0] if len(shape) == 3 else 1
    sizes = {"side": shape[-1], "channels": channels, "classes": classes}
    kind = "convnet" if convnet else "mlp"
    built = build(parts, kind, hidden, DENSE if convnet else 0, **sizes)
    shuffle_values(built, seed=1)
    return built.eval()


@torch.no_grad()
def shuffle_values(network: nn.Sequential, seed: int) -> None:
    """New biases, statistics and factors: channel 0 rises with its sum, 1 falls, 2 is constant."""
    generator = torch.Generator().manual_seed(seed)
    for layer in binary_layers(network).values():
        if layer.bias is not None:
            layer.bias.uniform_(-1, 1, generator=generator)
    ranges = {"gamma": (-1, 1), "beta": (-1, 1), "mean": (-4, 4)}
    ranges |= {"inv_std": (0.05, 0.5), "variance": (2, 99)}
    for module in network:
        learned = all(value.requires_grad for value in module.parameters())
        for name, (low, high) in ranges.items():
            values = getattr(module, name, None)
            if values is not None and (learned or name not in ("gamma", "beta")):
                values.uniform_(low, high, generator=generator)
        if learned and hasattr(module, "gamma"):
            module.gamma[:3] = torch.tensor([0.25, -0.25, 0.0])[: len(module.gamma)]


def images(network: nn.Sequential, count: int) -> Tensor:
    """uint8 pixels for it, among them an all black and an all white image."""
    shape = (3, 32, 32) if isinstance(network[1], BinaryConv2d) else (28, 28)
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)
    pixels[0], pixels[1] = 0, 255
    return pixels
