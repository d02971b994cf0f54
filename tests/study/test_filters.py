"""Distinct filters: counts against simulation."""

import pytest
import torch

from bnnlib import models
from study import filters, recipes
from study.filters import Convolution
from study.train import build
from study.train.analysis import filter_codes, unique_filters

PAPER = filters.convolutions(recipes.CIFAR10_THEANO.hidden)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Signs, float32."""
    bits = torch.randint(2, shape, generator=torch.Generator().manual_seed(seed))
    return 2.0 * bits - 1


def test_the_layers_are_those_of_the_network():
    recipe = recipes.at_profile(recipes.CIFAR10_THEANO, "smoke")
    network, sides = build.build_network(recipe, 0), []
    convolutions = [m for m in network if isinstance(m, models.BinaryConv2d)]
    for layer in convolutions:
        layer.register_forward_hook(lambda module, inputs, output: sides.append(output.shape[-1]))
    network.eval()(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    shapes = [
        (*layer.weight.shape[:2], side) for layer, side in zip(convolutions, sides, strict=True)
    ]
    assert [(c.filters, c.maps, c.side) for c in filters.convolutions(recipe.hidden)] == shapes


def test_the_papers_network_multiplies_as_often_as_its_weights_are_used():
    weights = sum(9 * layer.operations for layer in PAPER)
    assert weights == 9 * (128 * 131 * 32**2 + 256 * 384 * 16**2 + 512 * 768 * 8**2)


@pytest.mark.parametrize("shape", [(64, 4), (100, 20), (512, 3)])
def test_random_filters_come_as_expected(shape):
    found = [unique_filters(drawn(*shape, 3, 3, seed=seed)) for seed in range(40)]
    wanted = filters.random_counts(Convolution(*shape, side=1))
    for way in filters.WAYS:
        counts = torch.tensor([float(count[way]) for count in found])
        error = counts.std().item() / len(counts) ** 0.5
        assert abs(counts.mean().item() - wanted[way]) <= 4 * error + 0.02, way


def test_expected_numbers_are_the_closed_form():
    counts = filters.random_counts(Convolution(128, 3, 32))
    assert counts["per_map"] == pytest.approx(3 * 512 * (1 - (1 - 1 / 512) ** 128))
    assert counts["per_map_merged"] == pytest.approx(3 * 256 * (1 - (1 - 1 / 256) ** 128))
    assert counts["pooled"] == pytest.approx(512 * (1 - (1 - 1 / 512) ** 384))
    assert counts["pooled_merged"] == pytest.approx(256 * (1 - (1 - 1 / 256) ** 384))


def test_no_weights_have_more_than_the_most():
    """A layer with every kind of filter on every map has exactly as many."""
    every = filters.signs_of(torch.arange(512))[:, None].expand(-1, 2, -1, -1)
    assert unique_filters(every) == filters.most_counts(Convolution(512, 2, 1))
    few = Convolution(10, 2, 1)
    assert filters.most_counts(few)["per_map"] == few.filters * few.maps


def test_pooled_filters_cannot_be_as_many_as_the_paper_says():
    counts = [filters.most_counts(layer) for layer in PAPER]
    assert filters.mean_share(counts, "pooled") < 20
    assert filters.mean_share(counts, "per_map_merged") > 80


def test_random_shares_at_the_papers_widths():
    """Worked out by hand from the closed form."""
    counts = [filters.random_counts(layer) for layer in PAPER]
    found = [filters.mean_share(counts, way) for way in filters.WAYS]
    assert found == pytest.approx([12.7, 9.1, 76.9, 61.8], abs=0.06)
    weighted = [filters.weighted_share(counts, PAPER, way) for way in list(filters.WAYS)[2:]]
    assert weighted == pytest.approx([75.5, 59.8], abs=0.06)


def test_weights_are_operations():
    layers = [Convolution(2, 1, 4), Convolution(6, 1, 4)]
    counts = [{"total": 2, "per_map": 2}, {"total": 6, "per_map": 3}]
    assert filters.mean_share(counts, "per_map") == 75
    assert filters.weighted_share(counts, layers, "per_map") == pytest.approx(100 * 5 / 8)


def test_the_rest_makes_up_the_mean():
    rest = filters.rest_share(42, 78, 6)
    assert (78 + 5 * rest) / 6 == pytest.approx(42)


def test_the_counts_of_a_run_are_those_of_its_best_epoch():
    history = [{"unique_filters": {"1": {"total": 1, "pooled": n}}} for n in range(3)]
    record = {"best_epoch": 2, "history": history}
    assert filters.best_counts(record) == [{"total": 1, "pooled": 1}]


def test_epochs_begin_before_training():
    count = dict.fromkeys(("total", *filters.WAYS), 2)
    record = {"history": [{"unique_filters": {"1": {**count, "per_map": 1}}}]}
    frame = filters.by_epoch(record, [count])
    rows = frame[frame["way"] == "per_map"]
    assert rows[["epoch", "layer", "share"]].values.tolist() == [[0, 1, 100], [1, 1, 50]]


def test_codes_are_undone():
    weight = drawn(6, 5, 3, 3)
    assert torch.equal(filters.signs_of(filter_codes(weight)), weight)


def test_extrapolation_of_even_frequencies_is_the_random_expectation():
    every = filters.signs_of(torch.arange(512))[:, None]
    wanted = filters.share(filters.random_counts(Convolution(100, 1, 1)), "per_map_merged")
    for added in (0, 5):
        assert filters.extrapolated_share(every, 100, added) == pytest.approx(wanted)


def test_extrapolation_of_one_kind_is_one_filter():
    assert filters.extrapolated_share(torch.ones(7, 3, 3, 3), 50) == pytest.approx(2)


def test_the_extrapolation_table_has_a_row_a_layer_and_their_mean():
    weights = [drawn(20, 3, 3, 3), drawn(20, 20, 3, 3)]
    counts = [unique_filters(weight) for weight in weights]
    table = filters.extrapolation(weights, counts, PAPER[:2])
    assert list(table["layer"]) == [1, 2, "mean"]
    assert table["counted"][2] == pytest.approx(table["counted"][:2].mean(), abs=0.1)
    assert (table["the paper's width"] < table["own width"]).all()
    assert (table["own width"] < table["own width, evened"]).all()


@pytest.mark.parametrize("wanted", [42, 60, 5])
def test_filters_are_drawn_with_the_share_that_is_wanted(wanted):
    layer = Convolution(256, 64, 1)
    weight = filters.draw_with_share(layer, wanted, torch.Generator().manual_seed(0))
    found = unique_filters(weight)
    assert filters.share(found, "per_map_merged") == pytest.approx(wanted, abs=1)
    assert found["per_map"] > 1.2 * found["per_map_merged"]


def test_tiles_stand_in_rows_with_lines_around_them():
    wall = filters.tiled(torch.arange(12.0).view(3, 2, 2))
    assert wall.shape == (7, 7)
    assert wall[1:3, 1:3].tolist() == [[0, 1], [2, 3]]
    assert wall[1:3, 4:6].tolist() == [[4, 5], [6, 7]]
    assert wall[4:6, 1:3].tolist() == [[8, 9], [10, 11]]
    assert set(wall[::3].flat) | set(wall[:, ::3].flat) | set(wall[4:, 4:].flat) == {0.6}
