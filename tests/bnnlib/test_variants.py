"""XNOR-Net's scale and Bi-Real Net's gradient, against plain autograd in float64."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
import twin

from bnnlib.binarize import sign
from bnnlib.functional import InputValues
from bnnlib.layers import BinaryActivation, BinaryLinear
from bnnlib.models import binary_layers
from bnnlib.network_file import load_network, save_network
from bnnlib.normalization import Scale
from bnnlib.packed import pack
from bnnlib.variants import PolynomialActivation, ScaledBinaryLinear, without_scales
from study import recipes
from study.train.build import build_network, file_shape
from study.train.eager import squared_hinge

SCALED = replace(recipes.at_profile(recipes.GRADIENTS_XNOR_SCALE, "smoke"), hidden=(70, 33))
PLAIN = replace(SCALED, filter_scale=False)


def normal(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def images(count):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 28, 28), dtype=torch.uint8, generator=generator)


def trained(recipe):
    """A network with averages of a few batches, and weights that a step has moved apart."""
    network = build_network(recipe, seed=0)
    with torch.no_grad():
        for layer in binary_layers(network).values():
            layer.weight *= torch.linspace(0.1, 1, len(layer.weight)).unsqueeze(1)
            layer.bias.uniform_(-2, 2, generator=torch.Generator().manual_seed(2))
        for _ in range(20):
            network(images(50))
    return network.eval()


def approximated(x):
    """ApproxSign as the paper prints it."""
    inside = torch.where(x < 0, 2 * x + x**2, 2 * x - x**2)
    return torch.where(x < -1, -1.0, torch.where(x < 1, inside, 1.0))


def test_the_activations_gradient_is_the_polynomials_derivative():
    steps = torch.linspace(-2, 2, 4001, dtype=torch.float64)
    x = torch.cat([steps, torch.from_numpy(twin.SPECIAL)])
    upstream = normal(len(x))
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    out = PolynomialActivation()(ours)
    out.backward(upstream)
    approximated(theirs).backward(upstream)
    assert torch.equal(out.detach(), sign(x))
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-13, atol=1e-13)


def test_the_scaled_layer_is_plain_autograd_of_its_formula():
    layer = ScaledBinaryLinear(9, 4, init=torch.Generator().manual_seed(0)).double()
    x, upstream = normal(6, 9), normal(6, 4, seed=1)
    weight = layer.weight.detach().clone().requires_grad_()
    straight = weight - weight.detach() + torch.where(weight.detach() >= 0, 1.0, -1.0)
    expected = x @ (straight * weight.abs().mean(1, keepdim=True)).t() + layer.bias.detach()
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)
    layer(x).backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(layer.weight.grad, weight.grad, rtol=1e-12, atol=1e-12)
    assert torch.equal(layer.bias.grad, upstream.sum(0))


def test_the_scale_is_the_best_one_by_least_squares():
    layer = ScaledBinaryLinear(50, 3)
    best = torch.linalg.lstsq(sign(layer.weight)[0].unsqueeze(1), layer.weight[0].unsqueeze(1))
    assert layer.filter_scale()[0].item() == pytest.approx(best.solution.item(), rel=1e-5)


def test_look_up_products_are_scaled_too():
    layer = ScaledBinaryLinear(1024, 1024, inputs=InputValues.SIGNS)
    x = sign(torch.randn(128, 1024, generator=torch.Generator().manual_seed(0)))
    expected = F.linear(x, sign(layer.weight)) * layer.weight.abs().mean(1) + layer.bias
    torch.testing.assert_close(layer(x), expected)


def test_batch_normalization_behind_it_undoes_the_scale_and_its_gradient():
    """Why no effect is to be expected: in float64 both networks step alike but for eps."""
    networks = [build_network(recipe, seed=0).double() for recipe in (SCALED, PLAIN)]
    labels = torch.arange(50) % 10
    for network in networks:
        for part in network:
            if hasattr(part, "EPS"):
                part.EPS = 0.0
        squared_hinge(network(images(50)), labels).backward()
    scaled, plain = (list(binary_layers(network).values()) for network in networks)
    for one, other in zip(scaled, plain, strict=True):
        assert isinstance(one, ScaledBinaryLinear) and type(other) is BinaryLinear
        torch.testing.assert_close(one.weight.grad, other.weight.grad, rtol=1e-6, atol=1e-9)


def test_normalization_takes_the_scale_in():
    network = trained(SCALED)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    plain = without_scales(network)
    assert all(type(layer) is BinaryLinear for layer in binary_layers(plain).values())
    scores = network.double()(images(40))
    torch.testing.assert_close(plain.double()(images(40)), scores, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(value.float(), before[n]) for n, value in network.state_dict().items())
    unscaled = trained(PLAIN)
    assert without_scales(unscaled) is unscaled


def test_it_is_packed_and_kept_as_a_file_without_its_scales():
    network = trained(SCALED)
    classes = network(images(200)).argmax(1)
    loaded = load_network(save_network(network, file_shape(SCALED)))
    for other in (loaded, pack(network), pack(loaded)):
        assert (other(images(200)).argmax(1) == classes).float().mean() > 0.98  # but for rounding
    assert torch.equal(pack(network)(images(200)), pack(loaded)(images(200)))


def test_a_scale_that_no_batch_normalization_takes_in_is_refused():
    network = build_network(SCALED, seed=0)
    network[4] = Scale(70, 784)
    for refused in (without_scales, pack, lambda network: save_network(network, {})):
        with pytest.raises(ValueError, match="layer 3 scales its filters, and no BatchNorm"):
            refused(network)


def test_recipes_have_the_layers_that_they_name():
    parts = list(build_network(recipes.at_profile(recipes.GRADIENTS_BIREAL, "smoke"), 0))
    activations = [part for part in parts if isinstance(part, BinaryActivation)]
    assert activations and all(isinstance(part, PolynomialActivation) for part in activations)
    assert not any(isinstance(part, ScaledBinaryLinear) for part in parts)
