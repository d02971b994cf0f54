import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import twin

from bnnlib import functional
from bnnlib.functional import InputValues
from bnnlib.kernels import dispatch
from bnnlib.layers import (
    BinaryActivation,
    BinaryConv2d,
    BinaryLinear,
    Dropout,
    Initialization,
    MaxPool2x2,
    ScaleInput,
    glorot_multiplier,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_glorot_multipliers_are_the_authors():
    # MNIST, 4096 units: in, hidden, out; ConvNet: conv1, conv2, first dense (binary_net.py:96-142).
    pairs = [(784, 4096), (4096, 4096), (4096, 10), (27, 1152), (1152, 1152), (8192, 1024)]
    rounded = [round(glorot_multiplier(*pair), 1) for pair in pairs]
    assert rounded == [57.0, 73.9, 52.3, 28.0, 39.2, 78.4]
    assert BinaryConv2d(3, 128).update_scale == glorot_multiplier(27, 1152)


def test_linear_multiplies_by_the_sign_of_its_latent_weights():
    layer = BinaryLinear(len(twin.SPECIAL), 4, init=generator()).double()
    with torch.no_grad():
        layer.weight[0] = torch.from_numpy(twin.SPECIAL)
        layer.bias.copy_(torch.tensor([0.5, 0, 0, 0]))
    x = torch.randn(6, len(twin.SPECIAL), dtype=torch.float64, generator=generator(1))
    expected = x.numpy() @ twin.sign(layer.weight.detach().numpy()).T + layer.bias.detach().numpy()
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-13)


def test_latent_weights_get_the_gradient_of_their_signs():
    layer = BinaryLinear(5, 3, init=generator()).double()
    with torch.no_grad():
        layer.weight[0, :3] = torch.tensor([0.0, -0.0, 1.0])
    x = torch.randn(4, 5, dtype=torch.float64, generator=generator(1))
    grad = torch.randn(4, 3, dtype=torch.float64, generator=generator(2))
    layer(x).backward(grad)
    np.testing.assert_allclose(layer.weight.grad, grad.numpy().T @ x.numpy(), rtol=1e-13)


def test_conv_pads_with_zeros_and_sums_signs_exactly():
    layer = BinaryConv2d(2, 3, init=generator())
    x = torch.where(torch.rand(2, 2, 5, 4, generator=generator(1)) < 0.5, -1.0, 1.0)
    weight = twin.sign(layer.weight.detach().numpy())  # (3, 2, 3, 3)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    expected = np.zeros((2, 3, 5, 4))
    for row in range(5):
        for column in range(4):
            patch = padded[:, :, row : row + 3, column : column + 3]
            expected[:, :, row, column] = np.einsum("bcij,ocij->bo", patch, weight)
    assert np.array_equal(layer(x).detach().numpy(), expected)


def test_initial_weights_are_uniform_and_a_function_of_the_generator():
    first, second = (BinaryLinear(200, 100, init=generator(3)).weight for _ in range(2))
    assert torch.equal(first, second)
    assert first.abs().max() <= 1
    assert abs(first.var().item() - 1 / 3) < 0.01  # variance of U(-1, 1)
    assert BinaryLinear(3, 2).bias.tolist() == [0, 0]


def test_stochastic_weights_are_random_in_training_and_signs_in_evaluation():
    layer = BinaryLinear(50, 20, init=generator(), noise=generator(1))
    first, second = layer.binary_weight(), layer.binary_weight()
    assert not torch.equal(first, second)
    assert set(first.unique().tolist()) == {-1.0, 1.0}
    layer.eval()
    assert np.array_equal(layer.binary_weight().detach(), twin.sign(layer.weight.detach().numpy()))


def test_stochastic_activation_is_the_sign_in_evaluation():
    layer = BinaryActivation(noise=generator())
    x = torch.rand(100, generator=generator(1)) - 0.5
    assert not np.array_equal(layer(x), twin.sign(x.numpy()))
    assert np.array_equal(layer.eval()(x), twin.sign(x.numpy()))


def test_torch7_starts_convolutions_and_biases_small():
    conv = BinaryConv2d(64, 128, init=generator(), initialization=Initialization.TORCH7)
    dense = BinaryLinear(400, 300, init=generator(), initialization=Initialization.TORCH7)
    for values, bound in (
        (conv.weight, 1 / 24),
        (conv.bias, 1 / 24),
        (dense.weight, 1),
        (dense.bias, 1 / 20),
    ):
        assert 0.9 * bound < values.abs().max() <= bound
        assert values.min() < 0 < values.max()


def test_dropout_behind_a_binarization_gives_zero_and_plus_minus_two():
    x = F.hardtanh(torch.randn(10_000, generator=generator(1))).sign()
    dropped = Dropout(0.5, generator())(x)
    assert set(dropped.unique().tolist()) == {-2.0, 0.0, 2.0}
    assert abs((dropped == 0).double().mean().item() - 0.5) < 0.025  # five standard deviations
    assert Dropout(0.5, generator()).eval()(x) is x


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, math.nan])
def test_a_dropout_that_keeps_nothing_or_more_than_all_is_refused(rate):
    with pytest.raises(ValueError, match=r"lies in \[0, 1\)"):
        Dropout(rate)


@pytest.mark.parametrize("layer_learns", [True, False])
@pytest.mark.parametrize("dropout_acts", [True, False])
def test_a_dropout_and_the_layer_behind_it_need_not_be_in_one_mode(
    dropout_acts, layer_learns, monkeypatch
):
    """Monte Carlo dropout draws in evaluation; fine-tuning may freeze one of the two."""
    monkeypatch.setattr(functional, "FEWEST_PRODUCTS", 0)
    layer = BinaryLinear(128, 64, inputs=InputValues.DROPPED).train(layer_learns)
    signs = F.hardtanh(torch.randn(32, 128, generator=generator(1))).sign()
    x = Dropout(0.5, generator()).train(dropout_acts)(signs).requires_grad_()
    assert x.unique().tolist() == ([-2, 0, 2] if dropout_acts else [-1, 1])
    grad = torch.randint(-9, 10, (32, 64), generator=generator(2)).float()
    layer(x).backward(grad)
    weight = layer.weight.detach().sign()
    assert torch.equal(layer(x), x @ weight.t() + layer.bias)
    assert torch.equal(x.grad, grad @ weight)
    assert torch.equal(layer.weight.grad, grad.t() @ x)


def test_choices_may_be_given_by_their_words():
    named = BinaryLinear(9, 5, init=generator(), initialization="torch7", inputs="signs")
    layer = BinaryLinear(9, 5, init=generator(), initialization=Initialization.TORCH7)
    assert torch.equal(named.bias, layer.bias) and named.inputs is InputValues.SIGNS
    for wrong in ({"inputs": "sign"}, {"initialization": "uniformly"}):
        with pytest.raises(ValueError, match="is not a valid"):
            BinaryConv2d(3, 4, **wrong)


def test_input_is_scaled_to_plus_minus_one():
    pixels = torch.tensor([[0, 255, 51]], dtype=torch.uint8)
    np.testing.assert_allclose(ScaleInput()(pixels), [[-1, 1, -0.6]], rtol=1e-6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pooling_and_its_gradient_are_torch_s(layout):
    # of integers, so that many are equal: the gradient goes to the same one of them
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-2, 3, (3, 5, 8, 6), generator=generator).float()
    x[1], x[2, :2] = numbers_and_none((5, 8, 6), generator), -math.inf
    grad = torch.randn(3, 5, 4, 3, generator=generator).contiguous(memory_format=layout)
    found = []
    pooled = MaxPool2x2()(x.contiguous(memory_format=layout).requires_grad_())
    kept = pooled.grad_fn.saved_tensors  # torch 2.11 has them as long as `pooled` lives
    ours = dispatch.AVAILABLE and layout == torch.channels_last
    assert [places.dtype for places in kept] == [torch.uint8 if ours else torch.int64]
    for pool in (MaxPool2x2(), torch.nn.MaxPool2d(2)):
        real = x.contiguous(memory_format=layout).requires_grad_()
        out = pool(real)
        out.backward(grad)
        found.append((out.detach(), real.grad))
        assert out.is_contiguous(memory_format=layout) and real.grad.stride() == real.stride()
    for ours, torchs in zip(*found, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("sides", [(3, 4), (4, 3)])
def test_pooling_refuses_what_it_cannot_halve(sides):
    with pytest.raises(ValueError, match=f"even to be halved: \\(2, 5, {sides[0]}, {sides[1]}\\)"):
        MaxPool2x2()(torch.zeros(2, 5, *sides))


def numbers_and_none(shape, generator):
    """Some of them no number."""
    x = torch.randint(-2, 3, shape, generator=generator).float()
    return torch.where(torch.rand(shape, generator=generator) < 0.4, math.nan, x)
