"""Rounding to a few bits: the values, the nearest of them, and the mean of the drawn ones."""

import numpy as np
import pytest
import torch
import twin
from hypothesis import given
from hypothesis import strategies as st

from bnnlib.binarize import sample_sign, sign
from bnnlib.rounding import round_evenly, round_gradient, round_latent

BITS = (1, 2, 3, 6, 8, 12, 16)
VALUES = sorted({2**bits - less for bits in BITS for less in (0, 1)} - {1})


def noise(seed=0):
    return torch.Generator().manual_seed(seed)


def uniform(count, dtype=torch.float32):
    return 2 * torch.rand(count, generator=noise(), dtype=dtype) - 1


@pytest.mark.parametrize("values", VALUES)
def test_nearest_equals_its_twin(values):
    x = torch.cat([uniform(5000, torch.float64), torch.tensor([-1.0, 1.0], dtype=torch.float64)])
    expected = twin.nearest(x.numpy(), values)
    np.testing.assert_allclose(round_evenly(x, values), expected, atol=1e-12)


@given(st.lists(st.floats(-1, 1), min_size=1), st.sampled_from(VALUES))
def test_a_drawn_number_is_one_of_its_twins_two_neighbours(numbers, values):
    x = torch.tensor(numbers, dtype=torch.float64)
    lower, upper = twin.neighbours(x.numpy(), values)
    drawn = round_evenly(x, values, noise()).numpy()
    assert (np.minimum(np.abs(drawn - lower), np.abs(drawn - upper)) < 1e-12).all()


@pytest.mark.parametrize("values", (2, 3, 4, 63, 64, 256, 65536))
def test_stochastic_rounding_keeps_the_mean(values):
    draws = 20_000
    inside = torch.tensor([-0.999, -0.5, -0.01, 0.0, 1e-3, 0.2501, 0.7, 0.999])
    x = torch.cat([inside, torch.tensor([-1.0, 1.0])])
    drawn = round_evenly(x.expand(draws, -1), values, noise()).double()
    lower, upper = twin.neighbours(x.double().numpy(), values)
    share = (x.double().numpy() - lower) / (upper - lower)
    deviation = (upper - lower) * np.sqrt(np.clip(share * (1 - share), 0, None) / draws)
    # float32 knows x * half to 2^-24 of it: a part of a step, so of a chance, for many values
    allowed = 5 * deviation + 1e-7
    assert (np.abs(drawn.mean(0).numpy() - x.double().numpy()) <= allowed).all()
    assert (drawn[:, -2:] == torch.tensor([-1.0, 1.0])).all()


@pytest.mark.parametrize("values", VALUES)
def test_in_float32_every_value_stays_what_it_is(values):
    """So that a weight without a gradient doesn't walk, and resuming needs no finer numbers."""
    half = (values - 1) / 2
    grid = torch.arange(values, dtype=torch.float32).sub_(half).div_(half)
    assert grid.unique().numel() == values
    assert torch.equal(round_evenly(grid, values), grid)
    for seed in range(3):
        assert torch.equal(round_evenly(grid, values, noise(seed)), grid)


def test_one_bit_is_the_papers_binarization():
    x = torch.cat([uniform(100_000), torch.tensor([0.0, -0.0, 1.0, -1.0, 1e-30, -1e-7])])
    assert torch.equal(round_latent(x, 1), sign(x))
    assert torch.equal(round_latent(x, 1, noise()), sample_sign(x, noise()))


@pytest.mark.parametrize("bits", BITS)
def test_a_latent_weight_has_its_bits_and_keeps_its_sign(bits):
    x = torch.cat([uniform(200_000), torch.tensor([0.0, -0.0, -1.0, 1.0])])
    rounded = round_latent(x, bits)
    assert torch.equal(sign(rounded), sign(x))
    assert rounded.unique().numel() <= 2**bits and not (rounded == 0).any()
    if bits <= 12:
        assert rounded.unique().numel() == 2**bits
    assert (rounded - x).abs().max() <= 1 / (2**bits - 1) + 1e-6


@pytest.mark.parametrize("draw", [False, True])
def test_two_bits_leave_three_values_of_a_gradient_and_its_largest_one(draw):
    grad = torch.randn(64, 64, generator=noise()) * 1e-7
    grad[3] = 0
    rounded = round_gradient(grad, 2, noise(1) if draw else None)
    scale = grad.abs().max()
    assert set(rounded.unique().tolist()) == {-scale.item(), 0.0, scale.item()}
    assert (rounded[3] == 0).all()
    largest = grad.abs() == scale
    assert torch.equal(rounded[largest], grad[largest])


def test_a_rounded_gradient_equals_its_twin_and_is_scaled_by_its_own_tensor():
    grad = torch.randn(500, generator=noise(), dtype=torch.float64)
    for factor in (1.0, 3e-9):
        scaled = grad * factor
        scale = scaled.abs().max()
        expected = scale.item() * twin.nearest((scaled / scale).numpy(), 2**4 - 1)
        np.testing.assert_allclose(round_gradient(scaled, 4), expected, rtol=1e-12)


def test_a_gradient_of_nothing_stays_nothing_and_one_that_is_not_finite_shows():
    assert torch.equal(round_gradient(torch.zeros(5), 4), torch.zeros(5))
    assert not round_gradient(torch.tensor([1.0, float("nan")]), 4).isfinite().all()


def test_what_is_rounded_stays_as_it_was():
    x = uniform(100)
    before = x.clone()
    round_latent(x, 4), round_gradient(x, 4, noise())
    assert torch.equal(x, before)
