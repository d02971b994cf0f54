import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import twin

from bnnlib import models, optim
from bnnlib.layers import BinaryConv2d, BinaryLinear, Normalization
from bnnlib.optim import Clip, Multiplier, set_learning_rate
from bnnlib.rounding import Rounding, round_gradient, round_latent
from bnnlib.rules import UPDATES, Rule, adam_update, step_size
from study import recipes
from study.train import build
from study.train.build import build_optimizer, learning_rate


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


TWINS = {
    Rule.ADAMAX_PRINTED: twin.adamax_printed,
    Rule.ADAMAX_CODED: twin.adamax_coded,
    Rule.ADAMAX_DECAYING: twin.adamax_decaying,
}


@pytest.mark.parametrize("scale", [1.0, 1e-7])
@pytest.mark.parametrize("rule", TWINS)
def test_shift_based_adamax_equals_its_twin_over_20_steps(rule, scale):
    value, state = np.full(7, 0.5), [np.zeros(7), np.zeros(7)]
    tensor = torch.full((7,), 0.5, dtype=torch.float64)
    m, v = torch.zeros_like(tensor), torch.zeros_like(tensor)
    for t, grad in enumerate(gradients(20, (7,), scale), start=1):
        value = TWINS[rule](value, grad.numpy(), state, t, 2**-6, 37.5)
        UPDATES[rule](tensor, grad, m, v, t, 2**-6, 37.5)
        np.testing.assert_allclose(tensor, value, rtol=1e-12)
        np.testing.assert_allclose(m, state[0], rtol=1e-10, atol=1e-30)
        np.testing.assert_allclose(v, state[1], rtol=1e-12, atol=1e-30)
    assert tensor[0] == 0.5


def test_adamax_starts_with_larger_steps_that_are_powers_of_two():
    """AP2(2^-6 / (1 - 0.9^t)) for t = 1, 2, ...: what the bias correction becomes."""
    steps = []
    for t in range(1, 16):
        value, m, v = (torch.zeros(1, dtype=torch.float64) for _ in range(3))
        m += 1.0
        UPDATES[Rule.ADAMAX_CODED](value, torch.ones(1, dtype=torch.float64), m, v, t, 2**-6)
        steps.append(-value.item() * (1 + 2**-27))
    assert np.log2(steps).round(9).tolist() == [-3] + 3 * [-4] + 7 * [-5] + 4 * [-6]


def second_moment_after_silence(rule):
    value, m, v = (torch.zeros(2) for _ in range(3))
    for t in range(1, 10_001):
        UPDATES[rule](value, torch.tensor([0.0, 1.0 if t == 1 else 0.0]), m, v, t, 2**-6)
    assert value[0] == 0
    return v


def test_the_coded_second_moment_never_decays_and_the_others_do():
    assert second_moment_after_silence(Rule.ADAMAX_CODED)[1] == 1
    printed = second_moment_after_silence(Rule.ADAMAX_PRINTED)[1].item()
    assert printed == pytest.approx((1 - 2**-10) ** 9999, rel=1e-3)
    decaying = second_moment_after_silence(Rule.ADAMAX_DECAYING)[1].item()
    assert decaying == pytest.approx(0.999**9999, rel=1e-3)


def test_the_printed_rule_stays_finite_when_a_gradient_has_long_been_zero():
    value, m = torch.ones(3), torch.tensor([0.0, 1e-39, 1e-44])
    v = m.clone()
    UPDATES[Rule.ADAMAX_PRINTED](value, torch.zeros(3), m, v, 10**6, 2**-10)
    assert torch.equal(value, torch.ones(3))


SMALL = replace(recipes.MNIST_THEANO, hidden=(4,), learning_rate=0.01)
TORCH7 = recipes.at_profile(recipes.CIFAR10_TORCH7_CODE, "smoke")


def run_steps(recipe, steps=5):
    """The network after some steps along gradients of 1, and the one before."""
    network = build.build_network(recipe, seed=0).double()
    before, optimizer = copy.deepcopy(network), build_optimizer(recipe, network)
    for _ in range(steps):
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    return network, before


def moved(recipe):
    """Parameter name -> its step; gradients of 1 move all alike but for the multiplier."""
    network, before = run_steps(replace(recipe, clip=Clip.NOTHING), steps=1)
    pairs = zip(network.named_parameters(), before.parameters(), strict=True)
    return {name: (old - new).mean().item() for (name, new), old in pairs}


def test_the_multiplier_scales_binary_weights_alone():
    scaled, plain = moved(SMALL), moved(replace(SMALL, multiplier=Multiplier.NONE))
    for name, layer in models.binary_layers(build.build_network(SMALL, 0)).items():
        ratio = scaled.pop(f"{name}.weight") / plain.pop(f"{name}.weight")
        assert ratio == pytest.approx(layer.update_scale)
    assert scaled == pytest.approx(plain)


def test_torch7_multipliers_are_powers_of_two_and_reach_the_biases():
    network = build.build_network(recipes.CIFAR10_TORCH7_CODE, 0)
    groups = build_optimizer(recipes.CIFAR10_TORCH7_CODE, network).param_groups
    scales = {id(group["params"][0]): group["scale"] for group in groups}
    layers = models.binary_layers(network).values()
    expected = [32, 32, 64, 64, 64, 64, 64, 32, 32]  # Cifar10_Model.lua:88-89, 141-142
    assert [scales[id(layer.weight)] for layer in layers] == expected
    assert [scales[id(layer.bias)] for layer in layers] == expected
    svhn = build.build_network(recipes.SVHN_TORCH7_CODE, 0)
    groups = build_optimizer(recipes.SVHN_TORCH7_CODE, svhn).param_groups
    weights = [group["scale"] for group in groups if group["params"][0].dim() > 1]
    assert weights == [16, 32, 32, 32, 64, 64, 64, 32, 32]


def test_torch7_mnist_scales_the_gammas_and_rounds_nothing():
    network = build.build_network(recipes.MNIST_TORCH7_CODE, 0)
    groups = build_optimizer(recipes.MNIST_TORCH7_CODE, network).param_groups
    names = {id(p): name for name, p in network.named_parameters()}
    scales = {names[id(group["params"][0])]: group["scale"] for group in groups}
    gammas = [round(scales[name], 2) for name in scales if name.endswith("gamma")]
    assert gammas == [36.95, 36.95, 36.95, 2.58]
    assert {scales[name] for name in scales if name.endswith("beta")} == {1.0}
    weights = [round(scales[name], 1) for name in scales if name.endswith("weight")]
    assert weights == [43.5, 52.3, 52.3, 37.0]


@pytest.mark.parametrize("clip", Clip)
def test_clipping_reaches_what_it_names(clip):
    network, _ = run_steps(replace(SMALL, clip=clip, learning_rate=0.1), steps=200)
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            latent = name == "weight" and isinstance(module, BinaryLinear | BinaryConv2d)
            clipped = clip is Clip.EVERYTHING or (clip is Clip.WEIGHTS and latent)
            assert parameter.min() == -1 if clipped else parameter.min() < -1


ROUNDED = replace(SMALL, latent_bits=5, gradient_bits=3, rounding=Rounding.STOCHASTIC)


def latent_weights(network):
    return [layer.weight for layer in models.binary_layers(network).values()]


@pytest.mark.parametrize("rule", Rule)
@pytest.mark.parametrize("rounding", Rounding)
def test_a_rounded_step_is_the_rule_between_two_roundings(rule, rounding):
    """By hand, with the same draws in the same order; what is no binary weight is left exact."""
    schedule = {"learning_rate": 2**-6, "final_learning_rate": 0.0, "halve_every": 100.0}
    recipe = replace(ROUNDED, optimizer=rule, rounding=rounding, **schedule)
    network = build.build_network(recipe, 0)
    by_hand, drawn = copy.deepcopy(network), rounding is Rounding.STOCHASTIC
    noise, same = (torch.Generator().manual_seed(7) if drawn else None for _ in range(2))
    optimizer = build_optimizer(recipe, network, noise)
    moments = [torch.zeros(2, *p.shape) for p in by_hand.parameters()]
    latent = {id(weight) for weight in latent_weights(by_hand)}
    scales = {id(w): layer.update_scale for w, layer in binary(by_hand)}
    for t in range(1, 4):
        for parameter, mine, (m, v) in zip(
            network.parameters(), by_hand.parameters(), moments, strict=True
        ):
            draw = torch.Generator().manual_seed(t)
            grad = parameter.grad = torch.randn(parameter.shape, generator=draw)
            with torch.no_grad():
                if id(mine) in latent:
                    grad = round_gradient(grad, 3, same)
                UPDATES[rule](mine, grad, m, v, t, 2**-6, scales.get(id(mine), 1.0))
                if id(mine) in latent:
                    mine.copy_(round_latent(mine.clamp(-1, 1), 5, same))
        optimizer.step()
    for parameter, mine in zip(network.parameters(), by_hand.parameters(), strict=True):
        # The one-pass kernels may differ in the last bit, which a draw may tell: hardly ever.
        differing = (parameter - mine).abs() > 1e-6
        assert differing.float().mean() < 1e-3


def binary(network):
    return [(layer.weight, layer) for layer in models.binary_layers(network).values()]


def test_bits_reach_the_latent_weights_alone_whatever_is_clipped():
    recipe = replace(ROUNDED, clip=Clip.EVERYTHING)
    network = build.build_network(recipe, 0)
    groups = build_optimizer(recipe, network, torch.Generator()).param_groups
    bits = {id(g["params"][0]): (g["latent_bits"], g["gradient_bits"]) for g in groups}
    latent = {id(weight) for weight in latent_weights(network)}
    assert bits == {key: (5, 3) if key in latent else (0, 0) for key in bits}


def test_without_bits_nothing_is_drawn_and_stochastic_rounding_needs_a_generator():
    network = build.build_network(SMALL, 0)
    optimizer = build_optimizer(SMALL, network, torch.Generator().manual_seed(1))
    assert optimizer.noise is None
    bits = [(group["latent_bits"], group["gradient_bits"]) for group in optimizer.param_groups]
    assert set(bits) == {(0, 0)}
    with pytest.raises(ValueError, match="mnist-theano: stochastic rounding needs a generator"):
        build_optimizer(ROUNDED, network)


def one_step(groups, rule):
    parameters = torch.nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        parameters.weight.fill_(0.5)
    parameters.weight.grad = torch.ones(2, 3)
    optim.Optimizer(groups(parameters), rule, 2**-4).step()
    return parameters.weight.detach()


@pytest.mark.parametrize(
    "groups",
    [
        lambda network: [{"params": network.parameters()}],  # a generator, used up by one walk
        lambda network: [{"params": network.weight}],
        lambda network: ({"params": (p,)} for p in network.parameters()),
    ],
)
@pytest.mark.parametrize("rule", Rule)
def test_parameters_come_in_any_form_and_rules_by_their_word(groups, rule):
    expected = one_step(lambda network: [{"params": [network.weight]}], rule)
    assert (expected < 0.5).all()
    assert torch.equal(one_step(groups, str(rule)), expected)


def test_an_optimizer_refuses_what_it_would_not_read():
    weight = torch.nn.Parameter(torch.zeros(3))
    with pytest.raises(ValueError, match=r"a group has params and learning_rate.*got params, lr"):
        optim.Optimizer([{"params": [weight], "lr": 0.1}], Rule.ADAM, 0.1)
    with pytest.raises(ValueError, match="a group has params"):
        optim.Optimizer([{"scale": 2.0}], Rule.ADAM, 0.1)
    with pytest.raises(ValueError, match="'sgd' is not a valid Rule"):
        optim.Optimizer([{"params": [weight]}], "sgd", 0.1)


def test_what_is_not_learned_has_no_group():
    recipe = replace(SMALL, batch_norm=Normalization.STATISTICS)
    network = build.build_network(recipe, 0)
    frozen = {id(p) for p in network.parameters() if not p.requires_grad}
    groups = build_optimizer(recipe, network).param_groups
    assert len(frozen) == 4
    assert not frozen & {id(p) for group in groups for p in group["params"]}


def test_the_set_rate_reaches_every_group():
    network = build.build_network(SMALL, 0)
    optimizer = build_optimizer(SMALL, network)
    set_learning_rate(optimizer, 0.0)
    before = [p.detach().clone() for p in network.parameters()]
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


@pytest.mark.parametrize("rule", Rule)
def test_a_restored_optimizer_continues_bit_for_bit(rule):
    recipe = replace(
        SMALL, optimizer=rule, learning_rate=2**-6, final_learning_rate=0.0, halve_every=100.0
    )

    def steps(network, optimizer, first, last):
        for step in range(first, last):
            generator = torch.Generator().manual_seed(step)
            for parameter in network.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()

    straight, halted, restored = (build.build_network(recipe, 0) for _ in range(3))
    steps(straight, build_optimizer(recipe, straight), 0, 6)
    optimizer = build_optimizer(recipe, halted)
    steps(halted, optimizer, 0, 3)
    restored.load_state_dict(halted.state_dict())
    other = build_optimizer(recipe, restored)
    other.param_groups = [
        {**saved, "params": own["params"]}
        for saved, own in zip(optimizer.param_groups, other.param_groups, strict=True)
    ]
    pairs = zip(other.parameters(), optimizer.moments.values(), strict=True)
    other.moments = {parameter: copy.deepcopy(moments) for parameter, moments in pairs}
    steps(restored, other, 3, 6)
    pairs = zip(straight.parameters(), restored.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_the_exponential_rate_falls_by_the_factors_that_the_authors_print():
    # mnist.py:77-81, cifar10.py:65-69, svhn.py:67-71.
    theano = {
        recipes.MNIST_THEANO: 0.99083,
        recipes.CIFAR10_THEANO: 0.98391,
        recipes.SVHN_THEANO: 0.96605,
    }
    for recipe, factor in theano.items():
        rates = [learning_rate(recipe, epoch) for epoch in (0, 1, recipe.epochs)]
        assert rates[0] == recipe.learning_rate
        assert rates[1] / rates[0] == pytest.approx(factor, abs=5e-6)
        assert rates[2] == pytest.approx(recipe.final_learning_rate)


def test_a_shortened_schedule_is_compressed_and_not_cut():
    short = replace(recipes.MNIST_THEANO, epochs=10)
    assert learning_rate(short, 5) == pytest.approx(learning_rate(recipes.MNIST_THEANO, 500))


def test_a_halved_rate_is_a_power_of_two_in_every_epoch():
    recipe = recipes.SVHN_TORCH7_CODE
    exponents = [np.log2(learning_rate(recipe, epoch)) for epoch in (0, 19, 20, 39, 40, 199)]
    assert exponents == [-7, -7, -8, -8, -9, -16]
    quick = replace(recipe, epochs=3, halve_every=0.5)
    assert [np.log2(learning_rate(quick, epoch)) for epoch in range(3)] == [-7, -9, -11]


@pytest.mark.parametrize("rule", list(Rule))
def test_a_step_size_in_a_tensor_moves_as_the_number_does(rule):
    generator = torch.Generator().manual_seed(0)
    by_number, by_tensor = ([torch.randn(70, 33, generator=generator)] for _ in range(2))
    by_tensor[0].copy_(by_number[0])
    for moved in (by_number, by_tensor):
        moved += [torch.zeros(70, 33), torch.zeros(70, 33)]
    for t in range(1, 51):
        grad = torch.randn(70, 33, generator=generator) * 1e-3
        grad[0] = 0
        size = torch.tensor(step_size(rule, t, 2**-7, 3.3))
        for moved, rate in ((by_number, 2**-7), (by_tensor, size)):
            UPDATES[rule](moved[0], grad, *moved[1:], t, rate, 3.3)
    assert all(map(torch.equal, by_number, by_tensor))


def test_step_sizes_are_those_of_the_steps_to_come():
    groups = [{"params": [], "scale": scale} for scale in (1.0, 7.5, 1.0)]
    optimizer = optim.Optimizer(groups, Rule.ADAMAX_CODED, 0.01)
    for group in optimizer.param_groups:
        group["t"] = 4
    wanted = [[step_size(Rule.ADAMAX_CODED, t, 0.01, s) for t in (5, 6)] for s in (1, 7.5, 1)]
    assert torch.equal(optimizer.step_sizes(2), torch.tensor(wanted))
