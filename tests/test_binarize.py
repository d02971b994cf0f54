import numpy as np
import pytest
import torch
import twin
from hypothesis import given
from hypothesis import strategies as st

from bnnlib.binarize import binarize, hard_sigmoid, sample_sign, sign

X = torch.from_numpy(twin.SPECIAL)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_sign_is_plus_one_at_both_zeros(dtype):
    x = torch.tensor([0.0, -0.0, 1e-30, -1e-30], dtype=dtype)
    assert sign(x).tolist() == [1, 1, 1, -1]
    assert sign(x).dtype == dtype


@given(st.lists(st.floats(allow_nan=False, allow_infinity=True), min_size=1))
def test_sign_and_hard_sigmoid_equal_their_twins(values):
    x = np.array(values)
    assert np.array_equal(sign(torch.from_numpy(x)).numpy(), twin.sign(x))
    assert np.array_equal(hard_sigmoid(torch.from_numpy(x)).numpy(), twin.hard_sigmoid(x))


def test_stochastic_binarization_draws_with_the_hard_sigmoid():
    draws = 20_000
    x = torch.tensor([-2.0, -1.0, -0.5, 0.0, -0.0, 0.7, 1.0, 2.0])
    sampled = sample_sign(x.expand(draws, -1), torch.Generator().manual_seed(0))
    assert set(sampled.unique().tolist()) == {-1.0, 1.0}
    fraction = (sampled == 1).double().mean(0)
    expected = twin.hard_sigmoid(x.double().numpy())
    deviation = np.sqrt(expected * (1 - expected) / draws)
    assert (np.abs(fraction.numpy() - expected) <= 5 * deviation).all()  # 0 where certain


@pytest.mark.parametrize("stochastic", [False, True])
def test_gradient_passes_straight_through_and_stops_where_saturated(stochastic):
    x = X.clone().requires_grad_()
    grad = torch.arange(1.0, len(X) + 1, dtype=X.dtype)
    generator = torch.Generator().manual_seed(0) if stochastic else None
    binarize(x, generator).backward(grad)
    assert np.array_equal(x.grad.numpy(), twin.straight_through(grad.numpy(), twin.SPECIAL))


def test_gradient_without_cancellation_is_the_identity():
    x = X.clone().requires_grad_()
    grad = torch.arange(1.0, len(X) + 1, dtype=X.dtype)
    binarize(x, cancel=False).backward(grad)
    assert torch.equal(x.grad, grad)


def test_binarize_forward_is_the_sign():
    assert torch.equal(binarize(X), sign(X))


def test_same_generator_state_gives_the_same_draw():
    first, second = (binarize(X, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second)
