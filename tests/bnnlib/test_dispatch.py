"""The one-pass kernels against torch's several passes."""

import itertools

import pytest
import torch
from torch_rounding import NEEDS_TORCH_TO_ROUND_ONCE

from bnnlib import binarize, functional, fused_rules, optim, rules
from bnnlib.kernels import dispatch

if not dispatch.AVAILABLE:
    pytest.skip("numba is not installed", allow_module_level=True)

SPECIAL = [0.0, -0.0, 1.0, -1.0, 1 + 2**-23, -1 - 2**-23, 1e-30, -1e-30, float("nan"), float("inf")]


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def numbers(shape=(37, 53), seed=0) -> torch.Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    x.view(-1)[: len(SPECIAL)] = torch.tensor(SPECIAL)
    return x


def in_torch(function, *arguments):
    """The same without the kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "fits", lambda *_: False)
        return function(*arguments)


def test_sign_and_cancelled_gradient_equal_torch_s_bit_by_bit():
    x, grad = numbers(), numbers(seed=1)
    ours, theirs = binarize.sign(x), in_torch(binarize.sign, x)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(ours.isnan(), x.isnan())
    passing = binarize.passes(x)
    assert torch.equal(passing, in_torch(binarize.passes, x))
    ours, theirs = binarize.cancelled(grad, passing), in_torch(binarize.cancelled, grad, passing)
    finite = grad.isfinite()  # where |x| > 1, torch's product of 0 and NaN is NaN
    assert torch.equal(ours[finite], theirs[finite])


@pytest.mark.parametrize("rule", list(fused_rules.FUSED))
@pytest.mark.parametrize("clip", [False, True])
def test_twenty_fused_updates_equal_twenty_of_the_rule(rule, clip):
    generator = torch.Generator().manual_seed(0)
    start = functional.empty_latent_weight((40, 30)).uniform_(-1, 1, generator=generator)
    runs = []
    for fits in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            if not fits:
                patch.setattr(dispatch, "fits", lambda *_: False)
            weight = torch.nn.Parameter(start.clone())
            groups = [{"params": [weight], "scale": 30.0, "clip": clip}]
            optimizer = optim.Optimizer(groups, rule, 2**-7)
            generator = torch.Generator().manual_seed(1)
            for _ in range(20):
                grad = torch.empty_like(weight).normal_(generator=generator) * 1e-4
                weight.grad = grad * (grad.abs() > 3e-5)  # with zeros in it
                optimizer.step()
            runs.append((weight.detach(), *optimizer.moments[weight].values()))
    for ours, torch_s in zip(*runs, strict=True):
        torch.testing.assert_close(ours, torch_s, rtol=2e-6, atol=2e-6 * torch_s.abs().max().item())
    assert (runs[0][0].abs().max() <= 1) == clip


TINY = torch.finfo(torch.float32).tiny
EDGES = [*SPECIAL, -float("inf"), TINY, TINY / 2, -1e-45, 3e38]


def same_bits(ours: torch.Tensor, torch_s: torch.Tensor) -> bool:
    """Whether all are equal, zeros by their sign, too; NaN is NaN."""
    equal = ours.view(torch.int32) == torch_s.view(torch.int32)
    return bool((equal | (ours.isnan() & torch_s.isnan())).all())


@NEEDS_TORCH_TO_ROUND_ONCE
@pytest.mark.parametrize("rule", [rules.Rule.ADAMAX_PRINTED, rules.Rule.ADAMAX_DECAYING])
@pytest.mark.parametrize("count", [1, 15, 1003, 70_001])
def test_these_rules_equal_torch_s_passes_to_the_last_bit(rule, count):
    """Records were made by torch's passes. Gradients and second moments meet all special values."""
    draw = torch.Generator().manual_seed(count)
    start = [torch.randn(count, generator=draw) * size for size in (1, 1e-4, 1e-4, 1e-4)]
    start[3].abs_()
    if count > len(EDGES) ** 2:
        pairs = torch.tensor(list(itertools.product(EDGES, EDGES)))
        start[1][: len(pairs)], start[3][: len(pairs)] = pairs[:, 0], pairs[:, 1].abs()
    for threads, clip in ((1, False), (2, True), (3, False)):
        torch.set_num_threads(threads)
        ours, torch_s = ([t.clone() for t in start] for _ in range(2))
        for t in range(1, 4):
            fused_rules.FUSED[rule](*ours, t, 2**-6, 37.123, clip)
            rules.UPDATES[rule](*torch_s, t, 2**-6, 37.123)
            torch_s[0] = torch_s[0].clamp(-1, 1) if clip else torch_s[0]
            assert all(map(same_bits, ours, torch_s))


def test_every_rule_has_a_kernel():
    assert fused_rules.FUSED.keys() == rules.UPDATES.keys() == set(rules.Rule)


@pytest.mark.parametrize(
    ("tensor", "taken"),
    [
        (torch.zeros(4, 6), True),
        (torch.zeros(4, 6).t(), True),
        (torch.zeros(2, 3, 4, 5).contiguous(memory_format=torch.channels_last), True),
        (torch.zeros(1, 4, 1), True),
        (torch.zeros(4, 6)[:, :5], False),
        (torch.zeros(4, 1).expand(4, 6), False),
        (torch.zeros(4, 6, dtype=torch.float64), False),
    ],
)
def test_only_float32_memory_without_gaps_is_taken(tensor, taken):
    assert dispatch.fits(tensor) == taken


def test_tensors_that_are_laid_out_differently_are_not_taken():
    assert not dispatch.fits(torch.zeros(4, 4), torch.zeros(4, 4).t())
