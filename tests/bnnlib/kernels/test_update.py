"""The one-pass update: in Triton's interpreter against the rules in torch, and compiled."""

import inspect
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip(
    "triton", reason="triton is not installed: no GPU kernels", exc_type=ImportError
)
from test_gpu import (  # noqa: E402
    DEVICE,
    compiled,
    interpret,
    outside_the_interpreter,
    tool,
    where_kernels_run,
)

from bnnlib import functional, models, one_pass  # noqa: E402
from bnnlib.binarize import sign  # noqa: E402
from bnnlib.kernels import (
    dispatch,  # noqa: E402
    update,  # noqa: E402
)
from bnnlib.rules import UPDATES, Rule, step_size  # noqa: E402
from study import recipes  # noqa: E402
from study.train import build, captured, eager  # noqa: E402

N = 5000  # more than a block, and a ragged one


@outside_the_interpreter
def test_in_the_interpreter():
    interpret(__file__)


def started(*shape):
    """[value, m, v] before the first step, some values at the bounds and at zero."""
    value = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    value.view(-1)[:4] = torch.tensor([1.0, -1.0, 0.0, -0.0])
    return [value, torch.zeros_like(value), torch.zeros_like(value)]


def gradient(t, *shape):
    grad = torch.randn(shape, generator=torch.Generator().manual_seed(t)) * 1e-3
    grad.view(-1)[2:9] = 0
    return grad


def in_float64(rule, tensors, grads, rate, scale, clip):
    """The rule's torch function in float64: what float32 may differ from by its rounding alone."""
    value, m, v = (tensor.double() for tensor in tensors)
    for t, grad in enumerate(grads, 1):
        UPDATES[rule](value, grad.double(), m, v, t, rate, scale)
        if clip:
            value.clamp_(-1, 1)
    return value, m, v


@where_kernels_run
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("rule", list(Rule))
def test_a_step_moves_as_the_rule_does_and_leaves_the_next_signs(rule, clip):
    """Against the very operations in NumPy's float32, which round once each, by equality."""
    value, m, v = (tensor.to(DEVICE) for tensor in started(N))
    wanted = [tensor.numpy().copy() for tensor in started(N)]
    signs = torch.empty_like(value)
    for t in range(1, 6):
        grad, size = gradient(t, N), step_size(rule, t, 2**-5, 7.5)
        sizes = torch.tensor([-1.0, size], device=DEVICE)
        update.update_(rule, value, grad.to(DEVICE), (m, v), sizes, 1, clip, signs)
        wanted = twin(rule, *wanted, grad.numpy(), np.float32(size), clip)
        if DEVICE == "cpu":
            for ours, theirs in zip((value, m, v), wanted, strict=True):
                assert np.array_equal(ours.numpy(), theirs)
        assert torch.equal(signs, sign(value))


def twin(rule, x, m, v, g, size, clip):
    """The kernel's operations, one by one, in float32."""
    beta1, beta2, eps = map(np.float32, update.CONSTANTS[rule])
    beta = update.CONSTANTS[rule][:2]
    m = m + np.float32(1 - beta[0]) * (g - m)
    if rule is Rule.ADAM:
        v = beta2 * v + np.float32(1 - beta[1]) * (g * g)
        direction = m / (np.sqrt(v) + eps)
    else:
        v = np.maximum(beta2 * v, np.abs(g))
        rounded = lambda y: update_ap2(y)  # noqa: E731
        if rule is Rule.ADAMAX_PRINTED:
            with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
                moved = m * rounded(np.float32(1) / v)
            direction = np.where(v < np.finfo(np.float32).tiny, np.float32(0), moved)
        elif rule is Rule.ADAMAX_CODED:
            v = rounded(v) + eps
            direction = m / v
        else:
            direction = m / (rounded(v) + eps)
    x = x - size * direction
    return (np.clip(x, -1, 1) if clip else x), m, v


def update_ap2(y):
    from bnnlib.binarize import ap2

    return ap2(torch.from_numpy(y.copy())).numpy()


@where_kernels_run
@pytest.mark.parametrize("rule", list(Rule))
def test_twenty_steps_stay_beside_the_rule_in_torch(rule):
    """torch sums in another order, so the last bit may differ; AP2 may then round to either side,
    but no gradient here comes that near to it."""
    value, m, v = (tensor.to(DEVICE) for tensor in started(70, 33))
    theirs = started(70, 33)
    for t in range(1, 21):
        grad, size = gradient(t, 70, 33), step_size(rule, t, 2**-7, 3.0)
        sizes = torch.tensor([size], device=DEVICE)
        update.update_(rule, value, grad.to(DEVICE), (m, v), sizes, 0, True)
        UPDATES[rule](theirs[0], grad, *theirs[1:], t, 2**-7, 3.0)
        theirs[0].clamp_(-1, 1)
    for ours, wanted in zip((value, m, v), theirs, strict=True):
        torch.testing.assert_close(ours.cpu(), wanted, rtol=2e-6, atol=2e-6)


@where_kernels_run
def test_parameters_that_are_joined_move_as_they_do_alone():
    sizes = torch.tensor([0.25, 0.5, 0.125], device=DEVICE)
    alone = [[tensor.to(DEVICE) for tensor in started(count)] for count in (10, 2000, 7)]
    lines = [torch.cat(parts) for parts in zip(*alone, strict=True)]
    grads = [gradient(count, count).to(DEVICE) for count in (10, 2000, 7)]
    for index, ((value, m, v), grad) in enumerate(zip(alone, grads, strict=True)):
        update.update_(Rule.ADAM, value, grad, (m, v), sizes, index, index == 1)
    of = torch.tensor([0] * 10 + [1] * 2000 + [2] * 7, dtype=torch.int32, device=DEVICE)
    bounds = torch.where(of == 1, 1.0, torch.inf)
    tensors = [lines[0], torch.cat(grads), *lines[1:]]
    update.update_joined_(Rule.ADAM, tensors, sizes, of, bounds)
    for line, parts in zip(lines, zip(*alone, strict=True), strict=True):
        assert torch.equal(line, torch.cat(parts))


@where_kernels_run
def test_a_gradient_laid_out_otherwise_reaches_its_weight():
    order = torch.channels_last
    value, m, v = (t.to(DEVICE).contiguous(memory_format=order) for t in started(5, 4, 3, 3))
    other = [tensor.to(DEVICE) for tensor in started(5, 4, 3, 3)]
    grad, sizes = gradient(1, 5, 4, 3, 3).to(DEVICE), torch.tensor([0.5], device=DEVICE)
    update.update_(Rule.ADAM, value, grad, (m, v), sizes, 0, True)
    update.update_(Rule.ADAM, other[0], grad, (other[1], other[2]), sizes, 0, True)
    assert torch.equal(value, other[0]) and value.is_contiguous(memory_format=order)


@pytest.mark.parametrize("rule", list(Rule))
def test_its_constants_are_the_rules_own(rule):
    own = inspect.signature(UPDATES[rule]).parameters
    defaults = [own[name].default for name in ("beta1", "beta2", "eps") if name in own]
    assert list(update.CONSTANTS[rule])[: len(defaults)] == defaults


@where_kernels_run
@pytest.mark.parametrize("name", ["mnist-theano", "mnist-torch7", "shift-adamax-printed"])
def test_an_optimizer_in_one_pass_trains_as_the_plain_one(name, monkeypatch):
    """Small parameters together, large ones with their signs: beside torch's rules, for 3 steps."""
    recipe = recipes.at_profile(recipes.by_name(name), "smoke")
    recipe = replace(recipe, hidden=(192, 192), gradient_bits=0, latent_bits=0)
    monkeypatch.setattr(dispatch, "AVAILABLE", False)
    networks, chance = [], torch.Generator().manual_seed(0)
    images = torch.randint(256, (50, 28, 28), dtype=torch.uint8, generator=chance)
    labels = torch.arange(50) % 10
    for fits in (lambda _: True, lambda _: False):
        monkeypatch.setattr(one_pass, "fits", fits)
        network = build.build_network(recipe, 0).train().to(DEVICE)
        optimizer = build.build_optimizer(recipe, network)
        for _ in range(3):
            loss = eager.step(network, optimizer, images.to(DEVICE), labels.to(DEVICE))
        networks.append((network, loss))
    for (key, ours), (_, plain) in zip(*(n.named_parameters() for n, _ in networks), strict=True):
        # normalization takes a bias away again: its gradient is nothing but rounding, which Adam
        # makes as large a step of as of any other
        if not key.endswith("bias"):
            torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)
    first = models.binary_layers(networks[0][0])
    kept = [layer.weight for layer in first.values() if "kept_signs" in layer.weight.__dict__]
    assert len(kept) == 2 and networks[0][1] == pytest.approx(networks[1][1].item(), rel=1e-5)
    for weight in kept:
        assert one_pass.signs_of(weight) is weight.kept_signs.signs
        assert torch.equal(one_pass.signs_of(weight), sign(weight))
        with torch.no_grad():
            weight.neg_()  # by torch, behind the optimizer's back
        assert torch.equal(one_pass.signs_of(weight), sign(weight))


@where_kernels_run
def test_a_captured_step_reads_the_signs_that_the_last_one_left(monkeypatch):
    """Rehearsed with a graph that only calls; the network multiplies by kept signs as on a GPU."""
    from test_captured import Called, begun, epoch, same_states

    monkeypatch.setattr(dispatch, "AVAILABLE", False)
    monkeypatch.setattr(one_pass, "fits", lambda _: True)
    reads_signs = lambda x, weight, values: values is not functional.InputValues.REAL  # noqa: E731
    monkeypatch.setattr(functional, "_on_tensor_cores", reads_signs)
    recipe = recipes.at_profile(recipes.MNIST_THEANO, "smoke")
    recipe = replace(recipe, hidden=(160, 160), hidden_dropout=0.0, input_dropout=0.0)
    recipe = replace(recipe, train_images=300)
    (eager, split), (replayed, _) = begun(recipe), begun(recipe)
    step, how = captured.prepared(replayed, recipe, split, Called)
    assert how == "captured"
    assert torch.equal(epoch(eager, recipe, split), epoch(replayed, recipe, split, step))
    assert same_states(eager, replayed)


@outside_the_interpreter
@pytest.mark.parametrize("capability", [80, 89, 90])
@pytest.mark.parametrize(("rule", "joined"), [*((r, False) for r in Rule), (Rule.ADAM, True)])
def test_it_compiles_without_spilling(rule, joined, capability, tmp_path):
    beta1, beta2, eps = update.CONSTANTS[rule]
    constants = {"LERP": 1 - beta1, "DECAY": beta2, "SQUARE": 1 - beta2, "EPS": eps}
    constants |= {"RULE": str(rule), "JOINED": joined, "SIGNS": not joined, "BLOCK": update.BLOCK}
    names = ("value", "grad", "first", "second", "signs", "sizes", "bounds")
    types = {**dict.fromkeys(names, "*fp32"), "groups": "*i32", "bound": "fp32"}
    sixteens = "value grad first second signs groups bounds N"  # as weights have it
    kernel = compiled(update.update_kernel, capability, types, constants, sixteens)
    assert re.search(r"ld\.global\.v4\.b32", kernel.asm["ptx"])  # 16 bytes at a time
    assert re.search(r"STACK:0 .*LOCAL:0 ", tool(kernel, tmp_path, "-res-usage"))
