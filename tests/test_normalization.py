import numpy as np
import pytest
import torch
import twin
from torch import nn

from bnnlib.normalization import (
    BatchNorm,
    OrdinaryBatchNorm,
    PrintedShiftBatchNorm,
    Scale,
    ShiftBatchNorm,
)

SHAPES = [(12, 5), (3, 5, 2, 2)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(t):
    """(B, C, ...) -> (B ..., C), NumPy."""
    return t.detach().movedim(1, -1).reshape(-1, t.shape[1]).numpy()


def draw(shape, step):
    """An input and the gradient of the output."""
    x = torch.randn(shape, dtype=torch.float64, generator=generator(step)) * 3 + 1
    grad = torch.randn(shape, dtype=torch.float64, generator=generator(99 + step))
    return x.requires_grad_(), grad


@pytest.mark.parametrize("shape", SHAPES)
def test_batch_norm_equals_its_twin_over_three_steps(shape):
    layer, reference = BatchNorm(5).double(), twin.BatchNorm(5)
    for step in range(3):
        x, grad = draw(shape, step)
        layer.zero_grad()
        y = layer(x)
        y.backward(grad)
        np.testing.assert_allclose(rows(y), reference.forward(rows(x)), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(
            rows(x.grad), reference.backward(rows(grad)), rtol=1e-8, atol=1e-10
        )
        np.testing.assert_allclose(layer.gamma.grad, reference.grad_gamma, rtol=1e-9)
        np.testing.assert_allclose(layer.beta.grad, reference.grad_beta, rtol=1e-9)
        np.testing.assert_allclose(layer.mean, reference.mean, rtol=1e-10)
        np.testing.assert_allclose(layer.inv_std, reference.inv_std, rtol=1e-10)


def test_batch_norm_evaluates_with_running_mean_and_inverse_std():
    layer = BatchNorm(3)
    layer.mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    layer.inv_std.copy_(torch.tensor([2.0, 0.5, 1.0]))
    x = torch.tensor([[2.0, 4.0, 3.0]])
    assert layer.eval()(x).tolist() == [[2.0, 1.0, 0.0]]


def assert_close(actual, expected):
    np.testing.assert_allclose(actual.detach(), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("printed", "start"), [(True, 1.0), (False, 1.0), (False, 0.0)])
def test_shift_based_batch_norm_equals_its_twin_over_20_steps_of_training(shape, printed, start):
    layer = PrintedShiftBatchNorm(5) if printed else ShiftBatchNorm(5, start)
    layer, reference = layer.double(), twin.ShiftBatchNorm(5, printed, start)
    with torch.no_grad():  # gamma may be negative, and 0, whose AP2 is 0
        layer.gamma.copy_(torch.tensor([1.0, -0.7, 0.0, 3.0, 0.3]))
    reference.gamma = layer.gamma.detach().numpy().copy()
    for step in range(20):
        x, grad = draw(shape, step)
        layer.zero_grad()
        y = layer(x)
        y.backward(grad)
        np.testing.assert_allclose(rows(y), reference.forward(rows(x)), rtol=1e-9, atol=1e-11)
        expected = reference.backward(rows(grad))
        np.testing.assert_allclose(rows(x.grad), expected, rtol=1e-8, atol=1e-10)
        assert_close(layer.gamma.grad, reference.grad_gamma)
        assert_close(layer.beta.grad, reference.grad_beta)
        assert_close(layer.mean, reference.mean)
        assert_close(layer.variance if printed else layer.inv_std, reference.spread)
        with torch.no_grad():
            layer.gamma -= 0.01 * layer.gamma.grad
            layer.beta -= 0.01 * layer.beta.grad
        reference.gamma = reference.gamma - 0.01 * reference.grad_gamma
        reference.beta = reference.beta - 0.01 * reference.grad_beta
    x, _ = draw(shape, 20)
    np.testing.assert_allclose(rows(layer.eval()(x)), reference.evaluate(rows(x)), rtol=1e-9)


def test_shift_based_normalization_multiplies_by_powers_of_two_alone():
    layer = ShiftBatchNorm(4, 1.0)
    x = torch.randn(64, 4, generator=generator()) * torch.tensor([0.1, 1.0, 10.0, 33.0])
    ratio = layer(x) / (x - x.mean(0))
    mantissa = torch.frexp(ratio[ratio.isfinite()])[0]
    torch.testing.assert_close(mantissa.abs().remainder(0.5), torch.zeros_like(mantissa))


def test_the_average_of_the_inverse_std_is_rounded_at_test_alone():
    layer = ShiftBatchNorm(2, 0.0)
    x = torch.randn(50, 2, generator=generator()) * 3
    layer(x)
    first = layer.inv_std.clone()
    assert (torch.frexp(first)[0] != 0.5).all()
    layer.gamma.data.fill_(1.0)
    expected = (x - layer.mean) * torch.tensor(twin.ap2(first.numpy()))
    torch.testing.assert_close(layer.eval()(x), expected)
    assert torch.equal(layer.inv_std, first)


def test_the_last_layers_is_torchs_own():
    layer, reference = OrdinaryBatchNorm(10, generator()), nn.BatchNorm1d(10, 1e-5, 0.1)
    assert 0 <= layer.gamma.min() and layer.gamma.max() < 1 and layer.gamma.std() > 0.1
    with torch.no_grad():
        reference.weight.copy_(layer.gamma)
    for step in range(20):
        x = draw((12, 10), step)[0].detach().float()
        torch.testing.assert_close(layer(x), reference(x))
    torch.testing.assert_close(layer.variance, reference.running_var)
    assert torch.equal(layer.eval()(x), reference.eval()(x))


@pytest.mark.parametrize("shape", [(4, 100), (2, 100, 3, 3)])
def test_the_scale_alone_starts_at_the_scale_of_a_sum_of_signs(shape):
    layer = Scale(100, fan_in=64)
    x = torch.full(shape, 8.0)
    assert torch.equal(layer(x), torch.ones(shape))
    assert torch.equal(layer(x), layer.eval()(x))
