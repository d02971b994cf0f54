"""Draws compared as they are made are torch's own, and leave its generator where it does."""

from unittest.mock import patch

import numpy as np
import pytest
import torch

from bnnlib import binarize, draws, functional, layers, parallel
from bnnlib.kernels import dispatch
from study import recipes
from study.train import build

if not dispatch.AVAILABLE:
    pytest.skip("numba is not installed", allow_module_level=True)

STATE = 624  # words; a generator makes as many at a time
FLAT = [(1,), (3,), (STATE - 1,), (STATE,), (STATE + 1,), (37, 53), (draws.WORDS_PER_PIECE + 7,)]
IMAGES = [(1, 3, 2, 2), (3, 5, 4, 4), (7, 3, 5, 7), (2, 33, 13, 11), (2, 256, 24, 24)]
SPECIAL = [float("nan"), float("inf"), -float("inf"), 1.0, -1.0, -0.0, 1e-45, -1 + 2**-24]


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def numbers(shape, seed=0):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    count = min(x.numel(), len(SPECIAL))
    x.view(-1)[:count] = torch.tensor(SPECIAL[:count])
    return x.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else x


def in_torch(function, *arguments):
    with patch.object(draws, "fits", lambda *_: False):
        return function(*arguments)


def generators(used: int):
    """Two in the same state, from which so many numbers were drawn."""
    both = [torch.Generator().manual_seed(5) for _ in range(2)]
    for noise in both:
        torch.rand(used, generator=noise)
    return both


def same(ours, torch_s):
    return bool(((ours == torch_s) | (ours.isnan() & torch_s.isnan())).all())


@pytest.mark.parametrize("shape", FLAT + IMAGES)
@pytest.mark.parametrize("used", [0, 1, STATE - 1, STATE, STATE + 1])
def test_signs_and_the_state_afterwards_are_torch_s(shape, used):
    ours, torch_s = generators(used)
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        x = numbers(shape, count)
        assert draws.fits(x, ours)
        drawn = binarize.sample_sign(x, ours, batch=True)
        expected = in_torch(binarize.sample_sign, x, torch_s, True)
        assert np.array_equal(drawn, expected, equal_nan=True)
        assert drawn.stride() == x.stride()
        assert torch.equal(ours.get_state(), torch_s.get_state())


def test_numbers_of_other_kinds_go_on_where_the_signs_ended():
    """Also the half of a pair of normal numbers that a generator keeps is left alone."""
    ours, torch_s = generators(0)
    for noise, draw in ((ours, binarize.sample_sign), (torch_s, None)):
        torch.randn(1, generator=noise)
        x = numbers((1000,))
        draw(x, noise) if draw else in_torch(binarize.sample_sign, x, noise)
    assert torch.equal(torch.randn(3, generator=ours), torch.randn(3, generator=torch_s))
    assert ours.initial_seed() == torch_s.initial_seed()


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.37])
@pytest.mark.parametrize("shape", [(5,), (37, 53), (3, draws.WORDS_PER_PIECE // 2)])
def test_dropout_and_its_gradient_are_torch_s(rate, shape):
    x, grad = numbers(shape), numbers(shape, 1)
    ours, torch_s = generators(3)
    found = []
    for noise, call in ((ours, lambda f, *given: f(*given)), (torch_s, in_torch)):
        given = x.clone().requires_grad_()
        out = call(layers.Dropout(rate, noise), given)
        found.append((out.detach(), *torch.autograd.grad(out, given, grad), noise.get_state()))
    assert all(map(same, *found))


def test_a_gradient_that_is_no_line_of_memory_goes_through_dropout_too():
    x = torch.ones(37, 53).requires_grad_()
    out = layers.Dropout(0.2, torch.Generator().manual_seed(0))(x)
    (grad,) = torch.autograd.grad(out.sum(), x)  # of a sum: one number, expanded
    assert torch.equal(grad, out.detach())
    assert 0 < (grad == 0).float().mean() < 0.5


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(4, 6, dtype=torch.float64),
        torch.zeros(4, 6).t(),
        torch.zeros(4, 6)[:, :5],
        torch.zeros(0, 3),
    ],
)
def test_torch_draws_for_what_the_kernels_do_not_take(x):
    ours, torch_s = generators(0)
    assert not draws.fits(x, ours)
    assert torch.equal(binarize.sample_sign(x, ours), in_torch(binarize.sample_sign, x, torch_s))


def test_torch_draws_where_several_processes_share_a_batch(monkeypatch):
    monkeypatch.setattr(parallel, "size", lambda: 2)
    assert not draws.fits(torch.zeros(4, 6), torch.Generator())


def test_a_generator_of_another_layout_is_refused_by_this_test():
    """What `draws.words` reads and writes: 24 bytes, the words in 8 bytes each, and normal numbers'
    rest. Words of a fresh generator are those of its seed."""
    state = torch.Generator().manual_seed(5).get_state()
    assert len(state) == draws.STATE_BYTES
    assert state[:24].view(torch.int32).tolist() == [5, 0, 1, 1, 0, 0]
    assert int(state[24:32].view(torch.int64)) == 5


def test_torch_s_convolution_gets_drawn_signs_in_the_order_of_the_draw():
    """The layout of its input decides in which order it sums a weight's gradient."""
    network = build.build_network(recipes.at_profile(recipes.CIFAR10_TORCH7, "smoke"), 0)
    convolutions = [m for m in network if isinstance(m, layers.BinaryConv2d)]
    assert {m.values() for m in convolutions[1:]} == {functional.InputValues.DRAWN}
    seen = []
    with patch.object(functional.F, "conv2d", lambda x, *_, **__: seen.append(x) or x):
        for values in (functional.InputValues.DRAWN, functional.InputValues.SIGNS):
            x = torch.ones(2, 8, 4, 4).contiguous(memory_format=torch.channels_last)
            weight = functional.empty_latent_weight((8, 8, 3, 3)).fill_(1)
            functional.conv2d(x, weight, torch.zeros(8), values)
    assert [x.is_contiguous() for x in seen] == [True, False]
    read = {m.values() for m in network.eval() if m in convolutions[1:]}
    assert read == {functional.InputValues.SIGNS}
