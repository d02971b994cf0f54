"""The look-up products against float64 matrix products and convolutions."""

import copy
import pickle
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bnnlib import functional, optim, rules
from bnnlib.binarize import binarize, sign
from bnnlib.functional import InputValues
from bnnlib.kernels import dispatch

if not dispatch.AVAILABLE:
    pytest.skip("numba is not installed", allow_module_level=True)

DENSE = [(100, 512, 256), (7, 13, 10), (1, 1, 1), (33, 65, 31), (200, 2100, 40)]
IMAGES = [(5, 16, 24, 8, 8), (3, 5, 9, 7, 6), (2, 128, 128, 16, 16), (1, 1, 1, 1, 1)]


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Take the look-up products whatever the size."""
    monkeypatch.setattr(functional, "FEWEST_PRODUCTS", 0)
    monkeypatch.setattr(functional, "FEWEST_CHANNELS", 0)


def inputs(shape: tuple[int, ...], values: InputValues, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if values is InputValues.SIGNS:
        return torch.randint(0, 2, shape, generator=generator).float() * 2 - 1
    return torch.randint(-1, 2, shape, generator=generator).float() * 2


def weights(shape: tuple[int, ...], seed: int = 1) -> Tensor:
    weight = functional.empty_latent_weight(shape)
    weight.uniform_(-1, 1, generator=torch.Generator().manual_seed(seed))
    weight[0].zero_()  # sign(0) = +1
    weight[-1].fill_(-0.0)
    return weight


def exact(x: Tensor, weight: Tensor, bias: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums, gradient of x, gradient of the signs, in float64."""
    x = x.double().requires_grad_()
    signs = torch.where(weight >= 0, 1.0, -1.0).double().requires_grad_()
    multiply = F.linear if x.dim() == 2 else lambda *xs: F.conv2d(*xs, padding=1)
    sums = multiply(x, signs, bias.double())
    return sums.detach(), *torch.autograd.grad(sums, (x, signs), grad.double())


def check(x: Tensor, weight: Tensor, values: InputValues) -> None:
    """Sums equal; gradients within the rounding of float32 sums of that many terms."""
    x, weight = x.requires_grad_(), weight.requires_grad_()
    bias = torch.arange(len(weight)).float()
    multiply = functional.linear if x.dim() == 2 else functional.conv2d
    sums = multiply(x, weight, bias, values)
    assert "SignProduct" in str(sums.grad_fn.next_functions) or "SignProduct" in str(sums.grad_fn)
    grad = torch.randn(sums.shape, generator=torch.Generator().manual_seed(2)).float()
    found = torch.autograd.grad(sums, (x, weight), grad)
    expected = exact(x.detach(), weight.detach(), bias, grad)
    assert torch.equal(sums.double(), expected[0])
    for ours, twin, terms in zip(found, expected[1:], (weight.numel(), x.numel()), strict=True):
        assert ours.shape == twin.shape
        bound = 4 * grad.abs().max().item() * 2**-24 * terms / min(ours.shape)
        assert (ours - twin).abs().max() <= max(bound, 1e-5)


@pytest.mark.parametrize("values", [InputValues.SIGNS, InputValues.DROPPED])
@pytest.mark.parametrize("size", DENSE, ids=str)
def test_dense_products_and_gradients(size, values):
    batch, fan_in, fan_out = size
    check(inputs((batch, fan_in), values), weights((fan_out, fan_in)), values)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("size", IMAGES, ids=str)
def test_convolutions_and_their_gradients(size, channels_last):
    batch, channels, filters, height, width = size
    x = inputs((batch, channels, height, width), InputValues.SIGNS)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    check(x, weights((filters, channels, 3, 3)), InputValues.SIGNS)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 70),
    fan_in=st.integers(1, 150),
    fan_out=st.integers(1, 90),
    dropped=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_any_dense_shape(batch, fan_in, fan_out, dropped, seed):
    values = InputValues.DROPPED if dropped else InputValues.SIGNS
    check(inputs((batch, fan_in), values, seed), weights((fan_out, fan_in), seed + 1), values)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 5),
    channels=st.integers(1, 40),
    filters=st.integers(1, 40),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    seed=st.integers(0, 2**16),
)
def test_any_image_shape(batch, channels, filters, height, width, seed):
    x = inputs((batch, channels, height, width), InputValues.SIGNS, seed)
    check(x, weights((filters, channels, 3, 3), seed + 1), InputValues.SIGNS)


def test_results_do_not_depend_on_the_number_of_threads():
    threads = torch.get_num_threads()
    x, weight = inputs((3, 400, 6, 12), InputValues.SIGNS), weights((90, 400, 3, 3))
    found = []
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        own = x.clone().requires_grad_(), weight.clone().requires_grad_()
        functional.conv2d(*own, torch.zeros(90), InputValues.SIGNS).square().sum().backward()
        found.append([one.grad for one in own])
    torch.set_num_threads(threads)
    assert all(map(torch.equal, found[0], found[1])) and all(map(torch.equal, found[0], found[2]))


@pytest.mark.parametrize("size", [(2, 10, 7, 5, 9), (1, 4, 8, 1, 3)], ids=str)
def test_the_input_s_gradient_is_summed_tap_by_tap_and_four_channels_at_a_time(size):
    """In float32, so that a sum in another order gives other bits."""
    batch, channels, filters, height, width = size
    x = inputs((batch, channels, height, width), InputValues.SIGNS).requires_grad_()
    weight = weights((filters, channels, 3, 3))
    sums = functional.conv2d(x, weight, torch.zeros(filters), InputValues.SIGNS)
    grad = torch.randn(sums.shape, generator=torch.Generator().manual_seed(3))
    (found,) = torch.autograd.grad(sums, x, grad)
    padded = F.pad(grad, (1, 1, 1, 1, 0, -filters % 4))
    signs = F.pad(sign(weight), (0, 0, 0, 0, 0, 0, 0, -filters % 4))
    expected = torch.zeros(x.shape)
    for row, column in product(range(3), repeat=2):
        there = padded[:, :, 2 - row : 2 - row + height, 2 - column : 2 - column + width]
        for q in range(0, padded.shape[1], 4):
            a, b, c, d = (
                there[:, q + i, None] * signs[q + i, :, row, column, None, None] for i in range(4)
            )
            expected = expected + ((a + b) + (c + d))
    assert torch.equal(found, expected)


def test_drawn_signs_pass_their_gradient_on():
    weight = weights((40, 30)).requires_grad_()
    drawn = binarize(weight, torch.Generator().manual_seed(3), cancel=False)
    x = inputs((20, 30), InputValues.SIGNS)
    sums = functional.linear(x, drawn, torch.zeros(40), InputValues.SIGNS)
    assert not torch.equal(drawn, sign(weight))
    assert torch.equal(sums, x @ drawn.detach().t())
    sums.sum().backward()
    assert torch.equal(weight.grad, x.sum(0).expand(40, -1))


@pytest.mark.parametrize(
    ("x", "weight", "values"),
    [
        (torch.ones(8, 6), torch.ones(4, 6), InputValues.REAL),
        (torch.ones(8, 6).double(), torch.ones(4, 6).double(), InputValues.SIGNS),
        (torch.ones(1, 20_000), torch.ones(2, 20_000), InputValues.DROPPED),  # int16 would overflow
    ],
)
def test_other_inputs_take_torch_s_own_product(x, weight, values):
    sums = functional.linear(x, weight.requires_grad_(), torch.zeros(len(weight)).to(x), values)
    assert "SignProduct" not in str(sums.grad_fn)
    assert torch.equal(sums, x @ weight.detach().t())


@pytest.mark.parametrize("values", InputValues)
def test_the_kind_of_inputs_may_be_given_by_its_word(values):
    x = 2 * inputs((9, 30), InputValues.SIGNS) if values is InputValues.REAL else None
    x = inputs((9, 30), InputValues.SIGNS) if x is None else x
    weight = weights((40, 30))
    sums = functional.linear(x, weight, None, str(values))
    assert torch.equal(sums, functional.linear(x, weight, None, values))
    assert torch.equal(sums, x @ sign(weight).t())
    with pytest.raises(ValueError, match="not a valid InputValues"):
        functional.linear(x, weight, None, "sign")


def test_further_axes_of_an_input_are_torch_s():
    x = inputs((4, 9, 30), InputValues.SIGNS)
    weight = weights((40, 30))
    sums = functional.linear(x, weight, torch.ones(40), InputValues.SIGNS)
    assert torch.equal(sums, F.linear(x, sign(weight), torch.ones(40)))
    images = inputs((4, 30, 6, 5), InputValues.DROPPED)  # no look-up for them
    image = inputs((30, 6, 5), InputValues.SIGNS)
    filters = weights((40, 30, 3, 3))
    sums = functional.conv2d(image, filters, None, InputValues.SIGNS)
    assert torch.equal(sums, F.conv2d(image, sign(filters), padding=1))
    sums = functional.conv2d(images, filters, None, InputValues.DROPPED)
    assert torch.equal(sums, F.conv2d(images, sign(filters), padding=1))


@pytest.mark.parametrize("shape", [(40, 30), (8, 12, 3, 3)])
def test_float32_layers_stay_so_under_another_default(shape):
    x = inputs((5, shape[1], *(6, 6)[: len(shape) - 2]), InputValues.SIGNS)
    weight = weights(shape)
    torch.set_default_dtype(torch.float64)
    try:
        check(x, weight, InputValues.SIGNS)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("shape", [(40, 30), (8, 12, 3, 3), (1, 1), (32, 64)])
def test_latent_weights_lie_in_memory_as_taps_inputs_outputs(shape):
    weight = functional.empty_latent_weight(shape)
    assert weight.shape == shape
    memory = weight.as_strided((weight.numel(),), (1,)).view(*shape[2:], shape[1], shape[0])
    memory.copy_(torch.arange(weight.numel()).view(memory.shape))
    assert torch.equal(weight, memory.movedim((-1, -2), (0, 1)))


def backward(weight: Tensor) -> None:
    x = inputs((10, weight.shape[1]), InputValues.SIGNS)
    functional.linear(x, weight, torch.zeros(len(weight)), InputValues.SIGNS).sum().backward()


@pytest.mark.parametrize("size", [(64, 32), (63, 31)])  # the latter is filled up
def test_the_gradient_s_memory_is_taken_again(size):
    weight = torch.nn.Parameter(weights(size))
    optimizer = optim.Optimizer([{"params": [weight]}], rules.Rule.ADAM, 0.0)
    backward(weight)
    first = weight.grad.clone()
    backward(weight)  # accumulates
    assert torch.equal(weight.grad, 2 * first)
    optimizer.zero_grad()
    place = weight.gradient_memory.memory.ctypes.data
    backward(weight)
    assert torch.equal(weight.grad, first) and weight.gradient_memory.memory.ctypes.data == place


@pytest.mark.parametrize(
    "keep",
    [lambda grad: grad, lambda grad: grad[3:], Tensor.detach, Tensor.numpy, lambda grad: grad.t()],
)
def test_a_gradient_that_somebody_keeps_stays_as_it_is(keep):
    weight = torch.nn.Parameter(weights((64, 32)))
    optimizer = optim.Optimizer([{"params": [weight]}], rules.Rule.ADAM, 0.0)
    backward(weight)
    kept = keep(weight.grad)
    before = np.asarray(kept).copy()
    optimizer.zero_grad()
    x = -2 * inputs((10, 32), InputValues.SIGNS, seed=5)
    functional.linear(x, weight, torch.zeros(64), InputValues.DROPPED).sum().backward()
    assert np.array_equal(np.asarray(kept), before)
    assert not np.array_equal(np.asarray(keep(weight.grad)), before)


def test_a_copy_or_a_file_of_a_weight_has_no_gradient_in_it():
    weight = torch.nn.Parameter(weights((64, 32)))
    backward(weight)
    assert pickle.loads(pickle.dumps(weight)).gradient_memory.memory is None
    assert "gradient_memory" not in copy.deepcopy(weight).__dict__


@pytest.mark.parametrize("values", [InputValues.SIGNS, InputValues.DROPPED, InputValues.REAL])
@pytest.mark.parametrize("where", ["weight", "x"])
@pytest.mark.parametrize("shape", [(40, 30), (8, 12, 3, 3)])
def test_a_nan_goes_on_to_the_sums_as_in_torch(values, where, shape):
    if len(shape) == 4 and values is InputValues.DROPPED:
        pytest.skip("convolutions have no dropout before them")
    weight = weights(shape)
    x = inputs((5, shape[1], *(6, 6)[: len(shape) - 2]), values)
    {"weight": weight, "x": x}[where][3, 2] = torch.nan
    multiply, plain = (
        (functional.linear, F.linear)
        if len(shape) == 2
        else (functional.conv2d, lambda *xs: F.conv2d(*xs, padding=1))
    )
    bias = torch.zeros(shape[0])
    sums, expected = multiply(x, weight, bias, values), plain(x, sign(weight), bias)
    assert expected.isnan().any() and not expected.isnan().all()
    torch.testing.assert_close(sums, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("change", ["in place", "by our optimizer"])
def test_a_weight_that_changes_before_the_backward_pass_is_torch_s_error(change):
    weight = torch.nn.Parameter(weights((40, 30)))
    x = inputs((20, 30), InputValues.SIGNS).requires_grad_()
    sums = functional.linear(x, weight, torch.zeros(40), InputValues.SIGNS)
    if change == "in place":
        with torch.no_grad():
            weight.neg_()
    else:
        weight.grad = torch.ones_like(weight)
        optim.Optimizer([{"params": [weight]}], rules.Rule.ADAM, 0.1).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        sums.sum().backward()


@pytest.mark.parametrize("size", [(20, 30, 40), (3, 12, 8, 6, 5)], ids=str)
def test_gradients_of_gradients_are_torch_s(size):
    """Of a penalty on both gradients, against the same product in float64."""
    batch, fan_in, fan_out, *sides = size
    multiply = F.conv2d if sides else F.linear
    options = {"padding": 1} if sides else {}
    weight = weights((fan_out, fan_in, *(3, 3)[: len(sides)])).requires_grad_()
    x = inputs((batch, fan_in, *sides), InputValues.SIGNS).requires_grad_()
    ours = functional.conv2d if sides else functional.linear
    bias = torch.zeros(fan_out)
    found = penalized(lambda x, w: ours(x, w, bias, InputValues.SIGNS), x, weight)
    signs = sign(weight).double().requires_grad_()
    there = x.detach().double().requires_grad_()
    expected = penalized(lambda x, w: multiply(x, w, **options), there, signs)
    for mine, torchs in zip(found, expected, strict=True):
        assert torchs.abs().max() > 0.1
        bound = 1e-5 * torchs.abs().max().item()
        torch.testing.assert_close(mine.double(), torchs, rtol=0, atol=bound)


def penalized(product, x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """Gradients by x and weight of the squares of a product's own gradients."""
    sums = product(x, weight)
    by = torch.autograd.grad(sums.square().mean(), (x, weight), create_graph=True)
    return torch.autograd.grad(sum(grad.square().sum() for grad in by), (x, weight))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    types=st.sampled_from([("float32", "float32"), ("int16", "int16"), ("int16", "float32")]),
    gaps=st.booleans(),
)
def test_numbers_are_turned(rows, columns, types, gaps):
    from bnnlib.kernels.cpu.transpose import transpose

    wide = np.arange(-50, 1550).astype(types[0]).reshape(40, 40)
    source = wide[:rows, :columns] if gaps else wide[:rows, :columns].copy()
    target = np.full((columns + 1, rows + gaps), 7, types[1])
    transpose(source, target[:columns, :rows])
    assert np.array_equal(target[:columns, :rows], source.T)
    assert (target[columns] == 7).all() and (target[:, rows:] == 7).all()


def test_a_strip_is_cut_where_its_outputs_are_too_many():
    from bnnlib.kernels.cpu import lut_matmul

    for side in (1, 3):
        most = lut_matmul.SUMS_PER_PIECE // side
        assert [lut_matmul.shifted_pieces(n, side) for n in (1, most, most + 1)] == [1, 1, 2]
    x = inputs((2, lut_matmul.SUMS_PER_PIECE // 3 + 5, 3, 9), InputValues.SIGNS)
    check(x, weights((7, x.shape[1], 3, 3)), InputValues.SIGNS)
