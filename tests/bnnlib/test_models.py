import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
import twin
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bnnlib.binarize import Binarization
from bnnlib.layers import BinaryActivation, BinaryConv2d, Dropout, MaxPool2x2, Normalization
from bnnlib.models import LayerFactory, binary_layers, convnet, mlp
from bnnlib.models import build as build_plain
from bnnlib.network_file import load_network, pack_bits, save_network, unpack_bits
from bnnlib.normalization import (
    BatchNorm,
    OrdinaryBatchNorm,
    PrintedShiftBatchNorm,
    Scale,
    ShiftBatchNorm,
)
from study import recipes
from study.train import build
from study.train.build import build_network, file_shape, noise_generator
from study.train.eager import squared_hinge

DETERMINISTIC, NONE = Binarization.DETERMINISTIC, Binarization.NONE
SMALL_MLP = replace(recipes.at_profile(recipes.MNIST_THEANO, "smoke"), hidden=(21, 13))
SMALL_CONVNET = replace(
    recipes.at_profile(recipes.CIFAR10_THEANO, "smoke"), hidden=(9, 10, 11), dense=17
)


def parts(weights=DETERMINISTIC, activations=DETERMINISTIC, seed=0):
    init, noise = (torch.Generator().manual_seed(seed + i) for i in range(2))
    return LayerFactory(weights, activations, True, init, noise)


def images(shape, count=8):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)


def binary_weights(network):
    return sum(layer.weight.numel() for layer in binary_layers(network).values())


@pytest.mark.parametrize(
    ("recipe", "count"),
    [
        (recipes.MNIST_THEANO, 36_806_656),
        (recipes.MNIST_TORCH7, 10_014_720),
        (recipes.CIFAR10_THEANO, 14_022_016),
        (recipes.CIFAR10_TORCH7_CODE, 14_022_016),
        (recipes.SVHN_THEANO, 6_397_632),
    ],
)
def test_parameter_counts_are_the_known_ones(recipe, count):
    network = build_network(recipe, seed=0)
    assert binary_weights(network) == count
    if recipe.dataset == "cifar10":  # as the authors' Torch7 code prints it
        assert sum(p.numel() for p in network.parameters()) == 14_033_566


def test_the_convnet_convolves_pools_normalizes_and_then_binarizes():
    kinds = [type(layer) for layer in convnet(parts(), (8, 8, 8), 16)]
    assert kinds[4:8] == [BinaryConv2d, MaxPool2x2, BatchNorm, BinaryActivation]
    assert kinds[1:4] == [BinaryConv2d, BatchNorm, BinaryActivation]
    assert kinds[-1] is BatchNorm


def test_mlp_dropout_stands_behind_the_input_and_each_binarization():
    network = mlp(parts(), (4, 4), input_dropout=0.2, hidden_dropout=0.5)
    dropouts = [i for i, layer in enumerate(network) if isinstance(layer, Dropout)]
    assert [network[i].rate for i in dropouts] == [0.2, 0.5, 0.5]
    assert all(isinstance(network[i - 1], BinaryActivation) for i in dropouts[1:])


def test_hidden_activations_are_binary_and_scores_are_real():
    network = mlp(parts(), (16, 16))
    x = images((28, 28))
    for layer in network:
        x = layer(x)
        if isinstance(layer, BinaryActivation):
            assert set(x.unique().tolist()) == {-1.0, 1.0}
    assert x.shape == (8, 10)
    assert len(x.unique()) > 10


def test_float_twin_has_the_same_shape_and_no_binary_layer():
    twin_network, network = (convnet(parts(w, w), (8, 8, 8), 16) for w in (NONE, DETERMINISTIC))
    assert not binary_layers(twin_network)
    assert [p.shape for p in twin_network.parameters()] == [p.shape for p in network.parameters()]
    assert twin_network(images((3, 32, 32))).shape == (8, 10)


def test_a_network_s_choices_may_be_given_by_their_words():
    words = parts("deterministic", "none")
    assert words == replace(parts(DETERMINISTIC, NONE), init=words.init, noise=words.noise)
    shape = str(mlp(words, (21, 13)))
    assert shape == str(mlp(parts(DETERMINISTIC, NONE), (21, 13)))
    assert "ReLU" in shape and "BinaryActivation" not in shape
    with pytest.raises(ValueError, match="'binary' is not a valid Binarization"):
        parts("binary")


def test_a_misspelt_network_is_refused():
    with pytest.raises(ValueError, match="'convet' is neither mlp nor convnet"):
        build_plain(parts(), "convet", (9,), 17)


def test_building_a_network_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    for kind in (NONE, DETERMINISTIC):
        mlp(parts(kind, kind), (8,), 0.2, 0.5)(images((28, 28)))
    assert torch.equal(before, torch.get_rng_state())


def test_algorithm_1_equals_its_twin_over_five_steps():
    """Forward, straight-through backward, batch norm, Adam, multiplier and clipping together."""
    recipe = replace(SMALL_MLP, hidden=(12, 9), input_dropout=0.0, hidden_dropout=0.0)
    network = build_network(recipe, seed=0).double()
    layers = list(binary_layers(network).values())
    with torch.no_grad():  # the twin must agree on what lies exactly on the edges
        layers[1].weight[0, :5] = torch.tensor([0.0, -0.0, 1.0, -1.0, 1e-30])
    weights = [layer.weight.detach().numpy().copy() for layer in layers]
    reference = twin.Mlp(weights, [layer.bias.detach().numpy() for layer in layers])
    optimizer = build.build_optimizer(recipe, network)
    x, labels = images((28, 28), 20), torch.arange(20) % 10
    for _ in range(5):
        optimizer.zero_grad()
        loss = squared_hinge(network(x), labels)
        loss.backward()
        optimizer.step()
        scaled = x.numpy().reshape(20, -1) / 255 * 2 - 1
        assert loss.item() == pytest.approx(reference.step(scaled, labels.numpy(), 3e-3), rel=1e-9)
        for layer, weight in zip(layers, reference.weights, strict=True):
            np.testing.assert_allclose(layer.weight.detach(), weight, rtol=1e-6, atol=1e-8)


@given(st.integers(1, 5), st.integers(1, 40), st.integers(0, 2**31))
def test_packing_is_inverted_by_unpacking(rows, length, seed):
    bits = torch.rand(rows, length, generator=torch.Generator().manual_seed(seed)) < 0.5
    packed = pack_bits(bits)
    assert packed.shape == (rows, -(-length // 8))
    assert torch.equal(unpack_bits(packed, length), bits)
    assert np.array_equal(packed.numpy(), np.packbits(bits.numpy(), axis=1, bitorder="little"))


def trained_a_little(recipe):
    """A network after three steps and the images it saw."""
    network = build_network(recipe, seed=0)
    with torch.no_grad():
        next(iter(binary_layers(network).values())).weight.flatten()[:2] = torch.tensor([0.0, -0.0])
    shape = (28, 28) if recipe.network == "mlp" else (3, 32, 32)
    optimizer = build.build_optimizer(recipe, network)
    for _ in range(3):
        squared_hinge(network(images(shape)), torch.arange(8)).backward()
        optimizer.step()
    return network.eval(), images(shape)


@pytest.mark.parametrize("batch_norm", Normalization)
@pytest.mark.parametrize("recipe", [SMALL_MLP, SMALL_CONVNET], ids=lambda recipe: recipe.network)
def test_a_loaded_network_gives_the_same_scores(recipe, batch_norm, tmp_path):
    recipe = replace(recipe, batch_norm=batch_norm, activations=Binarization.STOCHASTIC)
    network, x = trained_a_little(recipe)
    path = tmp_path / "network.safetensors"
    path.write_bytes(save_network(network, file_shape(recipe)))
    assert torch.equal(load_network(path)(x), network(x))


def test_a_network_file_from_before_there_were_other_normalizations_is_read(tmp_path):
    network, x = trained_a_little(SMALL_MLP)
    shape = file_shape(SMALL_MLP)
    assert shape.pop("batch_norm") == "exact"
    path = tmp_path / "network.safetensors"
    path.write_bytes(save_network(network, shape))
    assert torch.equal(load_network(path)(x), network(x))


def test_sign_bits_take_one_bit_each(tmp_path):
    network = mlp(parts(), (4096,))
    content = save_network(network, {})
    stored = safetensors.torch.load(content)
    weights = sum(stored[f"{name}.weight"].numel() for name in binary_layers(network))
    assert weights == binary_weights(network) // 8


@pytest.mark.parametrize("network", [mlp(parts(), (4, 5)), convnet(parts(), (4,), 5)])
def test_a_nan_among_the_latent_weights_is_not_saved_as_a_sign(network):
    for name, layer in binary_layers(network).items():
        with torch.no_grad():
            layer.weight[2, 1] = torch.nan
        with pytest.raises(ValueError, match=rf"layer {name} is a NaN"):
            save_network(network, {})
        with torch.no_grad():
            layer.weight[2, 1] = -torch.inf  # which has a sign
        save_network(network, {})


def test_a_nan_among_the_statistics_stays_one(tmp_path):
    network, _ = trained_a_little(SMALL_MLP)
    network[4].mean[3] = torch.nan
    path = tmp_path / "network.safetensors"
    path.write_bytes(save_network(network, file_shape(SMALL_MLP)))
    assert load_network(path)[4].mean.isnan().nonzero().tolist() == [[3]]


def test_a_float_network_has_no_network_file():
    with pytest.raises(ValueError, match="binary weights"):
        save_network(mlp(parts(NONE, NONE), (4,)), {})


@pytest.mark.parametrize("damage", ["cut", "garbage", "other shape", "empty"])
def test_a_damaged_network_file_is_refused_in_one_sentence(damage, tmp_path):
    shape = {"network": "mlp", "hidden": [8], "dense": 0, "activations": "deterministic"}
    content = save_network(mlp(parts(), (8,)), shape)
    if damage == "other shape":
        content = content.replace(json.dumps([8]).encode(), json.dumps([9]).encode())
    path = tmp_path / "network.safetensors"
    damaged = {"cut": content[:-40], "garbage": b"\xff" * 100, "empty": b""}
    path.write_bytes(damaged.get(damage, content))
    with pytest.raises(ValueError, match="no intact network file"):
        load_network(path)


def test_a_file_that_names_a_network_larger_than_its_tensors_takes_no_memory(tmp_path):
    # 4 TB of weights: they could not be had
    shape = {"network": "mlp", "hidden": [10**6] * 2, "dense": 0, "activations": "deterministic"}
    path = tmp_path / "network.safetensors"
    path.write_bytes(save_network(mlp(parts(), (8, 8)), shape))
    with pytest.raises(ValueError, match=r"the shape of 11\.weight is \[10, 1\], its network's"):
        load_network(path)


KINDS = {
    Normalization.EXACT: (BatchNorm, BatchNorm, BatchNorm),
    Normalization.SHIFT_PRINTED: (PrintedShiftBatchNorm,) * 3,
    Normalization.SHIFT_CODED: (ShiftBatchNorm, ShiftBatchNorm, OrdinaryBatchNorm),
    Normalization.STATISTICS: (BatchNorm, BatchNorm, BatchNorm),
    Normalization.SCALE: (Scale, Scale, Scale),
    Normalization.NONE: (nn.Identity, nn.Identity, nn.Identity),
}


@pytest.mark.parametrize("batch_norm", Normalization)
def test_the_name_of_a_normalization_puts_its_layers_in_place(batch_norm):
    network = build_network(replace(SMALL_CONVNET, batch_norm=batch_norm), seed=0)
    flat = [type(layer) for layer in network].index(nn.Flatten)
    spatial, dense, last = network[2], network[flat + 2], network[-1]
    assert (type(spatial), type(dense), type(last)) == KINDS[batch_norm]
    if batch_norm is Normalization.SHIFT_CODED:
        assert spatial.inv_std.unique().tolist() == [0] and dense.inv_std.unique().tolist() == [1]
    if batch_norm is Normalization.SCALE:
        assert [round(1 / layer.gamma[0].item() ** 2) for layer in (spatial, last)] == [27, 17]
    learned = [p.requires_grad for layer in (spatial, dense, last) for p in layer.parameters()]
    assert all(learned) == (batch_norm is not Normalization.STATISTICS)


def test_the_noisy_layers_share_the_one_generator_that_is_offered():
    recipe = replace(SMALL_MLP, weights=Binarization.STOCHASTIC, batch_size=2)
    network = build_network(recipe, seed=5)
    noise = noise_generator(network)
    assert noise.initial_seed() == 3 * 5 + 1
    state = noise.get_state()
    first = network(images((28, 28)))
    assert not torch.equal(first, network(images((28, 28))))
    noise.set_state(state)
    assert torch.equal(first, network(images((28, 28))))
    assert noise_generator(build_network(SMALL_CONVNET, seed=5)) is None


def test_initial_weights_are_a_function_of_the_seed():
    for recipe in (SMALL_MLP, recipes.at_profile(recipes.CIFAR10_TORCH7_CODE, "smoke")):
        first, again, other = (build_network(recipe, seed).state_dict() for seed in (1, 1, 2))
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert not all(torch.equal(first[name], other[name]) for name in first)
