import numpy as np
import pytest
import torch
import twin
from torch import nn

from bnnlib.layers import BatchNorm, BinaryLinear
from bnnlib.optim import (
    Adam,
    adam_update,
    exponential_decay,
    parameter_groups,
    set_learning_rate,
)


def gradients(steps, shape, scale):
    generator = torch.Generator().manual_seed(0)
    grads = torch.randn(steps, *shape, dtype=torch.float64, generator=generator) * scale
    grads[:, 0] = 0  # a parameter that never gets a gradient must not move
    return grads


@pytest.mark.parametrize("scale", [1.0, 1e-7])
def test_adam_update_equals_its_twin_over_20_steps(scale):
    value, state = np.full(7, 0.5), [np.zeros(7), np.zeros(7)]
    tensor = torch.full((7,), 0.5, dtype=torch.float64)
    m, v = torch.zeros_like(tensor), torch.zeros_like(tensor)
    for t, grad in enumerate(gradients(20, (7,), scale), start=1):
        value = twin.adam(value, grad.numpy(), state, t, 3e-3)
        adam_update(tensor, grad, m, v, t, 3e-3)
        np.testing.assert_allclose(tensor, value, rtol=1e-12)
        np.testing.assert_allclose(m, state[0], rtol=1e-10, atol=1e-30)
        np.testing.assert_allclose(v, state[1], rtol=1e-12, atol=1e-30)
    assert tensor[0] == 0.5


def test_epsilon_meets_the_uncorrected_second_moment():
    grad = torch.tensor([1e-7], dtype=torch.float64)
    value, m, v = (torch.zeros(1, dtype=torch.float64) for _ in range(3))
    adam_update(value, grad, m, v, 1, 1.0)
    # m / (sqrt(v) + eps) * sqrt(1 - b2) / (1 - b1) with m = 1e-8, sqrt(v) = 1e-7 sqrt(0.001)
    root = 1e-7 * np.sqrt(0.001)
    assert value.item() == pytest.approx(-np.sqrt(0.001) * 1e-7 / (root + 1e-8), rel=1e-9)


def network():
    init = torch.Generator().manual_seed(0)
    return nn.Sequential(BinaryLinear(6, 4, init), BatchNorm(4)).double()


def run_steps(glorot, clip, steps=5, rate=0.01):
    net = network()
    optimizer = Adam(parameter_groups(net, glorot, clip), rate)
    before = net[0].weight.detach().clone()
    for _ in range(steps):
        for parameter in net.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    return net, before


def test_the_multiplier_scales_binary_weights_alone():
    net, before = run_steps(glorot=True, clip=False)
    plain, _ = run_steps(glorot=False, clip=False)
    moved, plain_moved = net[0].weight - before, plain[0].weight - before
    torch.testing.assert_close(moved, plain_moved * net[0].update_scale, rtol=1e-12, atol=0)
    assert torch.equal(net[0].bias, plain[0].bias)
    assert torch.equal(net[1].gamma, plain[1].gamma)


def test_clipping_keeps_binary_weights_in_range_and_touches_nothing_else():
    net, _ = run_steps(glorot=True, clip=True, steps=200, rate=0.1)
    assert (net[0].weight == -1).all()
    assert net[1].beta.max() < -1
    unclipped, _ = run_steps(glorot=True, clip=False, steps=200, rate=0.1)
    assert unclipped[0].weight.min() < -1


def test_learning_rate_reaches_every_group():
    net = network()
    optimizer = Adam(parameter_groups(net, True, True), 0.1)
    set_learning_rate(optimizer, 0.0)
    before = [p.detach().clone() for p in net.parameters()]
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_learning_rate_falls_by_epoch_from_first_to_last():
    # The factors that the authors' scripts print: mnist.py:77-81, cifar10.py:65-69.
    for first, last, epochs, factor in ((3e-3, 3e-7, 1000, 0.99083), (1e-3, 3e-7, 500, 0.98391)):
        rates = [exponential_decay(first, last, epoch, epochs) for epoch in (0, 1, epochs)]
        assert rates[0] == first
        assert rates[1] / rates[0] == pytest.approx(factor, abs=5e-6)
        assert rates[2] == pytest.approx(last)


def test_a_shortened_schedule_is_compressed_and_not_cut():
    assert exponential_decay(3e-3, 3e-7, 5, 10) == pytest.approx(
        exponential_decay(3e-3, 3e-7, 500, 1000)
    )
