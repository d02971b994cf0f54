"""The model of a forward pass: shapes against the networks, amounts against hand-made sums."""

from dataclasses import replace

import pytest

from bnnlib import models
from study import energy, recipes
from study.recipes import shapes
from study.recipes.shapes import Layer
from study.train import build, own

FLOAT32, INT8, BINARY = energy.numbers()
SMALL = Layer(units=64, terms=128, inputs=128)  # every row of it fills words exactly


def sums_of_layers(recipe):
    """(units, terms of each sum) of every layer."""
    return [(layer.units, layer.terms) for layer in shapes.layers_of(recipe)]


def sums_of_network(recipe):
    """The same of the network that is built."""
    layers = models.binary_layers(build.build_network(recipe, 0)).values()
    return [(len(layer.weight), layer.weight[0].numel()) for layer in layers]


@pytest.mark.parametrize("recipe", [recipes.MNIST_THEANO, recipes.SVHN_THEANO])
def test_the_layers_are_those_of_the_network(recipe):
    recipe = recipes.at_profile(recipe, "smoke")
    assert sums_of_layers(recipe) == sums_of_network(recipe)
    layers = shapes.layers_of(recipe)
    assert [layer.outputs for layer in layers[:-1]] == [layer.inputs for layer in layers[1:]]
    assert layers[0].inputs == (28 * 28 if recipe.network == "mlp" else 3 * 32 * 32)
    assert [layer.pixels for layer in layers] == [True] + [False] * (len(layers) - 1)
    assert [layer.scores for layer in layers] == [False] * (len(layers) - 1) + [True]


@pytest.mark.parametrize("side", [16, 20])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("convnet", [False, True])
def test_the_layers_are_those_of_the_network_for_other_images_and_classes(convnet, channels, side):
    recipe = own.sized(side, channels, 3, (8, 16), convnet)
    assert sums_of_layers(recipe) == sums_of_network(recipe)
    layers = shapes.layers_of(recipe)
    assert layers[0].inputs == channels * side**2
    assert [layer.outputs for layer in layers[:-1]] == [layer.inputs for layer in layers[1:]]


def test_connections_are_those_of_the_papers_networks():
    """By hand: 784 x 4096 + 2 x 4096^2 + 4096 x 10, and the ConvNet's as the literature has it."""
    counts = {
        recipe.network: sum(layer.connections for layer in shapes.layers_of(recipe))
        for recipe in (recipes.MNIST_THEANO, recipes.CIFAR10_THEANO)
    }
    assert counts == {"mlp": 36_806_656, "convnet": 616_966_144}


def test_bytes_of_a_dense_layer():
    assert energy.layer_bytes(SMALL, FLOAT32) == {
        "weights": 64 * 128 * 4,
        "activations": (128 + 64) * 4,
        "normalization": 64 * 2 * 4,
    }
    assert energy.layer_bytes(SMALL, INT8) == {
        "weights": 64 * 128,
        "activations": 128 + 64,
        "normalization": 64 * 2 * 4,
    }
    assert energy.layer_bytes(SMALL, BINARY) == {
        "weights": 64 * 128 // 8,
        "activations": (128 + 64) // 8,
        "normalization": 64 * 4,
    }


def test_rows_are_padded_to_whole_words():
    assert energy.weight_bytes(replace(SMALL, terms=129), BINARY) == 64 * 3 * 8
    assert energy.weight_bytes(replace(SMALL, terms=3), FLOAT32) == 64 * 2 * 8
    assert energy.input_bytes(replace(SMALL, inputs=1), BINARY) == 8


def test_a_pixel_is_eight_planes_and_so_are_its_products():
    first = replace(SMALL, pixels=True)
    assert energy.input_bytes(first, BINARY) == energy.input_bytes(first, INT8) == 128
    assert energy.weight_bytes(first, BINARY) == energy.weight_bytes(SMALL, BINARY)
    taken = [energy.layer_energy(layer, BINARY, 1, 0)["arithmetic"] for layer in (SMALL, first)]
    assert taken[1] - taken[0] == pytest.approx(7 * 64 * 128 * BINARY.connection)


def test_scores_are_normalized_in_float32_by_all():
    last = replace(SMALL, scores=True)
    assert energy.layer_bytes(last, BINARY)["normalization"] == 64 * 2 * 4
    assert energy.layer_bytes(last, BINARY)["activations"] == 128 // 8 + 64 * 4
    taken = energy.layer_energy(last, BINARY, 1, 0)["arithmetic"]
    assert taken == pytest.approx(64 * (128 * BINARY.connection + FLOAT32.normalization))


def test_pooled_outputs_are_fewer_than_sums():
    layer = Layer(units=8, terms=9, inputs=64, positions=16, pooled=4)
    assert (layer.connections, layer.outputs) == (8 * 9 * 16, 8 * 4)
    assert energy.sum_bytes([layer]) == 2 * 4 * 8 * 16


def test_prices_are_the_tables():
    """pJ of Tables 2 and 3, added by hand."""
    assert FLOAT32.connection == pytest.approx(3.7 + 0.9)
    assert INT8.connection == pytest.approx(0.2 + 0.1)
    assert (BINARY.connection, BINARY.normalization) == (0.03, 0.1)
    assert energy.dram_range() == (1300, 2600)


@pytest.mark.parametrize(
    ("held", "pj"),
    [(1, 10), (8192, 10), (8193, 20), (32768, 20), (32769, 100), (2**20, 100), (2**20 + 1, 7)],
)
def test_an_access_goes_to_the_smallest_memory_that_holds_it_all(held, pj):
    assert energy.access(held, dram=7) == pj


def test_energy_of_a_dense_layer_by_hand():
    """float32: 4,096 words of weights from DRAM, 64 of normalization, 96 of activations from 8K."""
    taken = energy.layer_energy(SMALL, FLOAT32, held=2**21, dram=1000)
    assert taken["weights"] == pytest.approx(4096 * 1000)
    assert taken["normalization"] == pytest.approx(64 * 1000)
    assert taken["activations"] == pytest.approx(96 * 10)
    assert taken["arithmetic"] == pytest.approx((64 * 128 + 64) * 4.6)


def test_images_of_a_batch_share_the_weights_and_crowd_the_cache():
    one, many = (energy.layer_energy(SMALL, FLOAT32, 2**21, 1000, batch) for batch in (1, 16))
    assert many["weights"] == pytest.approx(one["weights"] / 16)
    assert many["activations"] == pytest.approx(2 * one["activations"])  # 12 KB: of the 32K
    assert many["arithmetic"] == one["arithmetic"]


def test_parts_add_up_and_tell_the_first_and_the_last_layer_from_the_others():
    layers = shapes.layers_of(recipes.MNIST_THEANO)
    whole = [energy.layer_bytes(layer, BINARY) for layer in layers]
    parts = energy.pass_bytes(layers, BINARY)
    assert tuple(parts) == energy.PARTS
    assert sum(parts.values()) == sum(sum(moved.values()) for moved in whole)
    assert parts["first layer"] == sum(whole[0].values())
    assert parts["last layer"] == sum(whole[-1].values())
    assert parts["hidden weights"] == 2 * 4096 * 4096 / 8


def test_a_network_keeps_its_weights_where_all_of_them_fit():
    """A layer of 1,024 bytes: alone in the 8K, beside 511 others in the 1M."""
    alone = energy.pass_energy([SMALL], BINARY, dram=1)
    crowded = energy.pass_energy([SMALL] * 512, BINARY, dram=1)
    assert alone["hidden weights"] == pytest.approx(128 * 10)
    assert crowded["hidden weights"] == pytest.approx(512 * 128 * 100)


def test_a_summary_sets_float32_over_the_others():
    rows = energy.summary(shapes.layers_of(recipes.MNIST_THEANO), batch=100)
    assert [row["numbers"] for row in rows] == ["float32", "int8", "binary"]
    assert rows[0]["float32 / it"] == "1 ×" and rows[0]["one image (µJ)"].endswith("(1 ×)")
    assert rows[2]["float32 / it"] == "31.5 ×"  # 147.4 MB over 4.68 MB


def test_a_layer_of_4096_units_by_hand():
    """Words from DRAM: 2^23 and 2^18 of weights, 4,096 and 2,048 of normalization. Activations fill
    4,096 words of the 32K memory, and 128 of the 8K.
    """
    layer = Layer(4096, 4096, 4096)
    real = (2**23 + 4096) * 1300 + 4096 * 20 + (2**24 + 4096) * 4.6
    bits = (2**18 + 2048) * 1300 + 128 * 10 + 2**24 * 0.03 + 4096 * 0.1
    assert energy.layer_ratio(layer, 1300) == pytest.approx(real / bits)
    assert energy.layer_ratio(layer, 1300, ["weights"]) == 32


@pytest.mark.parametrize(
    ("pj", "shown"), [(2.411e10, "24,110"), (99.9e6, "99.9"), (9.436e6, "9.44")]
)
def test_microjoules_keep_three_digits(pj, shown):
    assert energy.microjoules(pj) == shown
