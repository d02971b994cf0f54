import json

import numpy as np
import pytest
import safetensors.torch
import torch
import twin
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bnnlib import optim
from bnnlib.binarize import Binarization
from bnnlib.layers import BatchNorm, BinaryActivation, BinaryConv2d, Dropout
from bnnlib.models import (
    Parts,
    binary_layers,
    convnet,
    load_network,
    mlp,
    pack_bits,
    save_network,
    unpack_bits,
)
from bnnlib.train import squared_hinge

DETERMINISTIC, NONE = Binarization.DETERMINISTIC, Binarization.NONE


def parts(weights=DETERMINISTIC, activations=DETERMINISTIC, seed=0):
    init, noise = (torch.Generator().manual_seed(seed + i) for i in range(2))
    return Parts(weights, activations, True, init, noise)


def images(shape, count=8):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)


def binary_weights(network):
    return sum(layer.weight.numel() for layer in binary_layers(network).values())


def test_parameter_counts_are_the_known_ones():
    network = convnet(parts(), (128, 256, 512), 1024)
    assert binary_weights(network) == 14_022_016
    assert sum(p.numel() for p in network.parameters()) == 14_033_566
    assert binary_weights(mlp(parts(), (4096, 4096, 4096))) == 36_806_656


def test_the_convnet_convolves_pools_normalizes_and_then_binarizes():
    kinds = [type(layer) for layer in convnet(parts(), (8, 8, 8), 16)]
    assert kinds[4:8] == [BinaryConv2d, nn.MaxPool2d, BatchNorm, BinaryActivation]
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


def test_building_a_network_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    for kind in (NONE, DETERMINISTIC):
        mlp(parts(kind, kind), (8,), 0.2, 0.5)(images((28, 28)))
    assert torch.equal(before, torch.get_rng_state())


def test_algorithm_1_equals_its_twin_over_five_steps():
    """Forward, straight-through backward, batch norm, Adam, multiplier and clipping together."""
    network = mlp(parts(), (12, 9)).double()
    layers = list(binary_layers(network).values())
    with torch.no_grad():  # the twin must agree on what lies exactly on the edges
        layers[1].weight[0, :5] = torch.tensor([0.0, -0.0, 1.0, -1.0, 1e-30])
    weights = [layer.weight.detach().numpy().copy() for layer in layers]
    reference = twin.Mlp(weights, [layer.bias.detach().numpy() for layer in layers])
    optimizer = optim.Adam(optim.parameter_groups(network, True, True), 3e-3)
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


def trained_a_little(network, shape):
    optimizer = optim.Adam(optim.parameter_groups(network, True, True), 0.01)
    for _ in range(3):
        squared_hinge(network(images(shape)), torch.arange(8)).backward()
        optimizer.step()
    return network.eval()


@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_a_loaded_network_gives_the_same_scores(name, tmp_path):
    if name == "mlp":
        network, shape = mlp(parts(), (21, 13), 0.2, 0.5), (28, 28)
        described = {"network": name, "hidden": [21, 13], "dense": 0}
    else:
        network, shape = convnet(parts(), (9, 10, 11), 17), (3, 32, 32)
        described = {"network": name, "hidden": [9, 10, 11], "dense": 17}
    with torch.no_grad():
        next(iter(binary_layers(network).values())).weight.flatten()[:2] = torch.tensor([0.0, -0.0])
    trained_a_little(network, shape)
    path = tmp_path / "network.safetensors"
    path.write_bytes(save_network(network, {**described, "activations": "deterministic"}))
    assert torch.equal(load_network(path)(images(shape)), network(images(shape)))


def test_sign_bits_take_one_bit_each(tmp_path):
    network = mlp(parts(), (4096,))
    content = save_network(network, {})
    stored = safetensors.torch.load(content)
    weights = sum(stored[f"{name}.weight"].numel() for name in binary_layers(network))
    assert weights == binary_weights(network) // 8


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
