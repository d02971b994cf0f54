"""A recipe's network, its optimizer and its learning rates.

lua files are the authors' Torch7 code.
"""

import math
from dataclasses import asdict

from torch import Generator, nn

from bnnlib.binarize import power_of_two
from bnnlib.functional import laid_out
from bnnlib.layers import BinaryLayer
from bnnlib.models import LayerFactory, binary_layers, build
from bnnlib.optim import Clip, Multiplier, Optimizer
from bnnlib.rounding import Rounding
from study.recipes.recipe import Recipe


def build_network(recipe: Recipe, seed: int, device: str = "cpu") -> nn.Sequential:
    """The recipe's network with its initial weights, a function of the seed."""
    factory = LayerFactory(
        weights=recipe.weights,
        activations=recipe.activations,
        cancel=recipe.cancel_saturated,
        init=Generator().manual_seed(3 * seed),
        noise=Generator(device).manual_seed(3 * seed + 1),
        batch_norm=recipe.batch_norm,
        initialization=recipe.initialization,
        filter_scale=recipe.filter_scale,
        polynomial_gradient=recipe.polynomial_gradient,
    )
    network = build(
        factory,
        network=recipe.network,
        hidden=recipe.hidden,
        dense=recipe.dense,
        input_dropout=recipe.input_dropout,
        hidden_dropout=recipe.hidden_dropout,
        side=recipe.side,
        channels=recipe.channels,
        classes=recipe.classes,
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


def file_shape(recipe: Recipe) -> dict:
    """Fields of a recipe for a network file, so that `load_network` can build the network."""
    names = ("network", "hidden", "dense", "activations", "batch_norm")
    names += ("side", "channels", "classes")
    return {name: value for name, value in asdict(recipe).items() if name in names}


def build_optimizer(
    recipe: Recipe, network: nn.Module, noise: Generator | None = None
) -> Optimizer:
    """The recipe's optimizer at the rate of its first epoch.

    noise: what stochastic rounding draws from; on the network's device. Raises ValueError if the
    recipe rounds stochastically and there is none.
    """
    if recipe.rounding is Rounding.NEAREST:
        noise = None
    elif noise is None:
        raise ValueError(f"recipe {recipe.name}: stochastic rounding needs a generator")
    groups = parameter_groups(recipe, network)
    return Optimizer(groups, recipe.optimizer, recipe.learning_rate, noise)


def parameter_groups(recipe: Recipe, network: nn.Module) -> list[dict]:
    """One group for each learned parameter, with its `scale`, its `clip` and its bits."""
    return [
        {
            "params": [parameter],
            "scale": _scale(recipe, module, name),
            "clip": _is_clipped(recipe, module, name),
            "latent_bits": recipe.latent_bits if _is_latent(module, name) else 0,
            "gradient_bits": recipe.gradient_bits if _is_latent(module, name) else 0,
            "latent": _is_latent(module, name),
        }
        for module in network.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.requires_grad
    ]


def _is_binary(module: nn.Module) -> bool:
    return isinstance(module, BinaryLayer)


def _is_latent(module: nn.Module, name: str) -> bool:
    return _is_binary(module) and name == "weight"


def _scale(recipe: Recipe, module: nn.Module, name: str) -> float:
    """The factor on the updates of one parameter of a module."""
    if _is_binary(module) and (name == "weight" or recipe.scale_biases):
        if recipe.multiplier is Multiplier.GLOROT:
            return module.update_scale
        if recipe.multiplier is Multiplier.POWER_OF_TWO:
            return power_of_two(module.update_scale)
    if name == "gamma" and recipe.scale_gammas:
        return math.sqrt(len(module.gamma) / 1.5)  # MNIST_Model.lua:59-78
    return 1.0


def _is_clipped(recipe: Recipe, module: nn.Module, name: str) -> bool:
    latent = _is_latent(module, name)
    return recipe.clip is Clip.EVERYTHING or (recipe.clip is Clip.WEIGHTS and latent)


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """The recipe's learning rate in an epoch counted from 0.

    The paper's Algorithm 1 prints the decay with every step; the authors' code decays by epoch
    (binary_net.py:320; Main_BinaryNet_Cifar10.lua:312).
    """
    if recipe.halve_every:
        return recipe.learning_rate * 2.0 ** -math.floor(epoch / recipe.halve_every)
    return exponential_decay(recipe.learning_rate, recipe.final_learning_rate, epoch, recipe.epochs)


def exponential_decay(first: float, last: float, epoch: int, epochs: int) -> float:
    """first (last / first)^(epoch / epochs): `last` would be the rate of one more epoch."""
    return first * (last / first) ** (epoch / epochs)
