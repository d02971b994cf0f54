import math
from fractions import Fraction

import numpy as np
import pytest
import torch
import twin
from hypothesis import given
from hypothesis import strategies as st

from bnnlib.binarize import ap2, binarize, hard_sigmoid, power_of_two, sample_sign, sign

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


def nearest_power(x):
    """AP2 in exact arithmetic: 2^e with 2^(e - 1/2) <= |x| < 2^(e + 1/2), as a Python float."""
    if x == 0:
        return 0.0
    exponent = math.frexp(x)[1]  # 2^(exponent - 1) <= |x| < 2^exponent
    up = Fraction(x) ** 2 >= Fraction(2) ** (2 * exponent - 1)
    return math.copysign(math.ldexp(1.0, exponent if up else exponent - 1), x)


NORMAL = {torch.float32: 2.0**-126, torch.float64: 2.0**-1022}


@pytest.mark.parametrize("dtype", NORMAL)
def test_ap2_is_exact_on_both_sides_of_every_border(dtype):
    low, high = (-126, 126) if dtype is torch.float32 else (-1022, 1022)
    powers = torch.tensor([math.ldexp(1.0, e) for e in range(low, high)], dtype=dtype)
    border = powers * math.sqrt(2)
    up, down = (torch.nextafter(border, torch.full_like(border, end)) for end in (math.inf, 0))
    x = torch.cat([powers, border, up, down, -powers, -border, -up, -down, torch.zeros(1)])
    assert ap2(x).tolist() == [nearest_power(value) for value in x.tolist()]
    assert ap2(x).dtype == dtype


@given(st.floats(min_value=2.0**-1022, max_value=2.0**1022), st.sampled_from([1, -1]))
def test_ap2_is_the_nearest_power_of_two(magnitude, sign_of_x):
    assert power_of_two(sign_of_x * magnitude) == nearest_power(sign_of_x * magnitude)


def test_ap2_of_zero_is_zero_and_leaves_its_argument_alone():
    x = torch.tensor([0.0, -0.0, 3.0])
    assert ap2(x).tolist() == [0, 0, 4]
    assert x.tolist() == [0, 0, 3]


def test_ap2_works_on_what_is_not_contiguous():
    x = torch.rand(6, 4, generator=torch.Generator().manual_seed(0)).t()
    assert torch.equal(ap2(x), ap2(x.contiguous()))
