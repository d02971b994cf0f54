from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from random_networks import images, random_network, shuffle_values
from torch import nn

from bnnlib.folding import ALWAYS, NEVER, Block, blocks, fold, reads_pixels, reference
from bnnlib.layers import Normalization, ScaleInput
from bnnlib.normalization import BatchNorm


def block(normalization, bias=0.0):
    """A layer of 70 inputs."""
    channels = len(normalization.gamma)
    return Block(
        torch.ones(channels, 70), torch.full((channels,), bias), False, normalization, divisor=1
    )


def affine(gamma, mean, beta):
    """x -> (x - mean) gamma + beta, one channel for each entry."""
    norm = BatchNorm(len(gamma)).eval().requires_grad_(False)
    norm.gamma[:], norm.mean[:] = torch.tensor(gamma), torch.tensor(mean)
    norm.beta[:] = torch.tensor(beta)
    return norm


def assert_folded(block):
    """By trying every sum that can occur; -> thresholds, flipped."""
    thresholds, flipped = fold(block)
    assert (thresholds.dtype, flipped.dtype) == (torch.int32, torch.bool)
    largest = block.signs[0].numel() * block.divisor
    sums = torch.arange(-largest, largest + 1)[:, None].expand(-1, len(block.bias))
    expected = block.real(sums) >= 0
    assert torch.equal(torch.where(flipped, -sums, sums) >= thresholds, expected)
    return thresholds, flipped


@pytest.mark.parametrize("batch_norm", Normalization)
@pytest.mark.parametrize("network", ["mlp", "convnet"])
def test_every_sum_of_every_layer_gets_the_bit_of_the_networks_own_steps(network, batch_norm):
    parts = blocks(random_network(network, (24, 30), batch_norm))
    assert [part.divisor for part in parts] == [255] + [1] * (len(parts) - 1)
    for part in parts[:-1]:
        few = replace(part, signs=part.signs[:, :40])  # 784 inputs make 400,000 sums a channel
        thresholds, flipped = assert_folded(few)
        changes = (thresholds != ALWAYS) & (thresholds != NEVER)
        assert changes.any()
        if batch_norm not in (Normalization.STATISTICS, Normalization.NONE):
            assert flipped.any() and not changes.all() and not flipped.all()


def test_a_sum_on_the_threshold_is_plus_one_for_either_sign_of_the_factor():
    thresholds, flipped = assert_folded(block(affine([0.3, -0.3], [4.0, 4.0], [0.0, 0.0])))
    assert thresholds.tolist() == [4, -4]  # s >= 4, and s <= 4
    assert flipped.tolist() == [False, True]


def test_a_factor_of_zero_leaves_a_constant_bit():
    constants = affine([0.0, 0.0, 0.0, 1e-30], [3.0] * 4, [0.5, -0.5, -0.0, -1.0])
    thresholds, flipped = assert_folded(block(constants))
    assert thresholds.tolist() == [ALWAYS, NEVER, ALWAYS, NEVER]
    assert not flipped.any()


def test_thresholds_at_the_ends_of_the_range():
    thresholds, _ = assert_folded(block(affine([1.0] * 4, [-70.0, -69.5, 70.0, 70.5], [0.0] * 4)))
    assert thresholds.tolist() == [ALWAYS, -69, 70, NEVER]


def test_ties_are_those_of_float32_and_not_of_exact_arithmetic():
    """0.1 + s rounds up to the mean, from below it: real arithmetic would say -1."""
    bias = torch.tensor(0.1)
    sums = torch.arange(70.0)
    means = sums + bias
    up = (means.double() > sums.double() + bias.double()).nonzero().flatten().tolist()
    assert len(up) > 10
    norm = affine([1.0] * len(up), means[up].tolist(), [0.0] * len(up))
    thresholds, _ = assert_folded(block(norm, bias=0.1))
    assert thresholds.tolist() == up


def test_factors_that_overflow_fold_too():
    overflowing = affine([3e38, -3e38, 3e38], [2.0, 2.0, 0.5], [1.0, 1.0, -1.0])
    overflowing.inv_std[:] = 1e10
    thresholds, flipped = assert_folded(block(overflowing))
    assert thresholds.tolist() == [3, -1, 1] and flipped.tolist() == [False, True, False]


def test_the_first_layers_sums_are_those_of_integers_over_255():
    """The identity x = (2 p - 255) / 255, in float64, where rounding does not hide it."""
    network = random_network("convnet", (5, 7), Normalization.EXACT)
    x = images(network, 4)
    first = next(reference(network, x))
    scaled = F.conv2d(2 / 255 * x.double() - 1, blocks(network)[0].signs.double(), padding=1)
    norm = network[2].double()
    exact = norm(scaled + network[1].bias[:, None, None].double())
    near = exact.abs() < 1e-5 * exact.abs().amax()
    assert torch.equal(first[~near] >= 0, exact[~near] >= 0)
    assert near.float().mean() < 1e-3


@pytest.mark.parametrize("network", ["mlp", "convnet"])
def test_the_reference_is_the_float_network_but_for_rounding(network):
    """Which bits it has, layer by layer: those of the float network's own modules."""
    built = random_network(network, (70, 24), Normalization.EXACT)
    x = images(built, 40)
    *signs, scores = reference(built, x)
    kinds = [type(layer).__name__ for layer in built]
    ends = [i + 1 for i, kind in enumerate(kinds) if kind == "BinaryActivation"]
    assert len(ends) == len(signs)
    with torch.no_grad():
        for end, found in zip(ends, signs, strict=True):
            wrong = (built[:end](x) != found).float().mean()
            assert wrong < 1e-4, end  # a sum near its threshold changes few bits behind it
        torch.testing.assert_close(scores, built(x), rtol=1e-3, atol=1e-3)


def test_blocks_are_copies_in_evaluation_mode():
    network = random_network("mlp", (5,), Normalization.EXACT)
    network.train()
    first = blocks(network)[0]
    before = fold(first)[0]
    shuffle_values(network, seed=9)
    assert torch.equal(fold(first)[0], before)
    assert not torch.equal(fold(blocks(network)[0])[0], before)
    assert network.training


def test_only_the_scaling_to_plus_minus_one_gives_integers():
    network = nn.Sequential(ScaleInput())
    assert reads_pixels(network)
    for scale, offset in [(2 / 255, 0.0), (1.0, -1.0), (0.0127, -0.42)]:
        network[0] = ScaleInput(scale, offset)
        assert not reads_pixels(network)
