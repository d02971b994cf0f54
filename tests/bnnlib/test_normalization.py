import numpy as np
import pytest
import torch
import twin
from torch import nn
from torch_rounding import NEEDS_TORCH_TO_ROUND_ONCE

from bnnlib import shift_norm
from bnnlib.kernels import dispatch
from bnnlib.normalization import (
    BatchNorm,
    OrdinaryBatchNorm,
    PrintedShiftBatchNorm,
    Scale,
    ShiftBatchNorm,
    ShiftNormalize,
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


@pytest.mark.parametrize("norm", [ShiftBatchNorm(5, 1.0), PrintedShiftBatchNorm(5)])
@pytest.mark.parametrize("shape", [(0, 5), (0, 5, 4, 4)])
def test_an_empty_batch_is_refused_and_leaves_the_averages(norm, shape):
    before = [average.clone() for average in norm.buffers()]
    with pytest.raises(ValueError, match=r"a batch of shape \(0, 5.* has nothing to normalize"):
        norm(torch.empty(shape))
    assert all(map(torch.equal, norm.buffers(), before))


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


ROWS = [(2, 1), (3, 5), (37, 53), (100, 777), (3, 5, 2, 2), (7, 9, 5, 3), (20, 64, 16, 16)]
ROWS += [(4, 64, 1, 1), (3, 1, 4, 4)]


def batch(shape, special: bool):
    """x, gamma, beta, the gradient of y; special: subnormal products, zeros, NaN, infinity."""
    draws = [torch.randn(size, generator=generator(i)) for i, size in enumerate((shape, shape))]
    x, grad = 3 * draws[0] + 1, draws[1] * (1e-37 if special else 1e-3)
    gamma, beta = (torch.randn(shape[1], generator=generator(i)) for i in (2, 3))
    gamma[0] = 0
    if special:
        x.view(-1)[:2], grad.view(-1)[:2] = torch.tensor([0.0, 1e-45]), torch.tensor([-0.0, 1e-44])
        if shape[1] > 4:
            x[0, 1], x[0, 2] = float("nan"), float("inf")
            grad[0, 3], grad[0, 4] = float("nan"), -float("inf")
    if len(shape) == 4:
        x, grad = (t.contiguous(memory_format=torch.channels_last) for t in (x, grad))
    return x, gamma, beta, grad


def normalized(x, gamma, beta, grad):
    """y, mean, variance, and the gradients of x, gamma, beta."""
    given = [t.detach().requires_grad_() for t in (x, gamma, beta)]
    out = ShiftNormalize.apply(*given, ShiftBatchNorm.EPS)
    return [t.detach() for t in (*out, *torch.autograd.grad(out[0], given, grad))]


def by_definition(x, gamma, beta, grad):
    """The same by torch's passes, as all records were made before there were kernels."""
    from bnnlib.binarize import ap2
    from bnnlib.normalization import _axes, inverse_std
    from bnnlib.shift_norm import per_channel

    mean = x.mean(_axes(x))
    centred = x - per_channel(mean, x)
    rounded = ap2(centred)
    variance = (rounded * centred).mean(_axes(x))
    shift = ap2(inverse_std(variance, ShiftBatchNorm.EPS))
    factor = ap2(gamma) * shift
    y = centred.mul_(per_channel(factor, x)).add_(per_channel(beta, x))
    total, along = grad.sum(_axes(grad)), (grad * rounded).sum(_axes(grad))
    count = grad.numel() // len(total)
    grad_x = rounded * per_channel(-factor * shift.square() * along / count, grad)
    grad_x.addcmul_(grad, per_channel(factor, grad))
    grad_x.sub_(per_channel(factor * total / count, grad))
    return [y, mean, variance, grad_x, along * shift, total]


@NEEDS_TORCH_TO_ROUND_ONCE
@pytest.mark.skipif(not dispatch.AVAILABLE, reason="numba is not installed")
@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("shape", ROWS)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_shift_based_normalization_equals_torch_s_passes_to_the_last_bit(shape, special, threads):
    given, before = batch(shape, special), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert shift_norm._fits(given[0], given[3])
        for grad in (given[3], given[3].contiguous()):  # images: laid out unlike x, too
            for kind in (torch.float32, torch.float64):  # which no kernel takes
                own = [t.to(kind) for t in (*given[:3], grad)]
                for ours, torch_s in zip(normalized(*own), by_definition(*own), strict=True):
                    assert bool(((ours == torch_s) | (ours.isnan() & torch_s.isnan())).all())
                    assert ours.stride() == torch_s.stride()
    finally:
        torch.set_num_threads(before)
