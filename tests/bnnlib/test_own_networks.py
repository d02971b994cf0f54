"""The layers in somebody's own network: compiled, checkpointed, cast, optimized, saved by torch."""

import copy
import subprocess
import sys

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bnnlib import functional
from bnnlib.binarize import ap2, sign
from bnnlib.functional import InputValues
from bnnlib.kernels import dispatch
from bnnlib.layers import (
    BinaryActivation,
    BinaryConv2d,
    BinaryLinear,
    Dropout,
    MaxPool2x2,
    ScaleInput,
    order_for_kernels,
)
from bnnlib.normalization import BatchNorm, ShiftBatchNorm

HALVES = (torch.bfloat16, torch.float16)


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Take the look-up products whatever the size."""
    monkeypatch.setattr(functional, "FEWEST_PRODUCTS", 0)
    monkeypatch.setattr(functional, "FEWEST_CHANNELS", 0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def own_network(normalized: bool = True) -> nn.Sequential:
    """A small convolutional one, all but the first layer of which read signs."""
    torch.manual_seed(0)
    normalization = BatchNorm if normalized else lambda _: nn.Identity()
    network = nn.Sequential(
        BinaryConv2d(4, 8, 3),
        normalization(8),
        BinaryActivation(),
        BinaryConv2d(8, 300),  # sums beyond what a bfloat16 counts
        MaxPool2x2(),
        normalization(300),
        BinaryActivation(),
        nn.Flatten(),
        BinaryLinear(300 * 4, 16),
        normalization(16),
        BinaryActivation(),
        Dropout(0.5),
        BinaryLinear(16, 10),
    )
    network[3].inputs = network[8].inputs = InputValues.SIGNS
    network[12].inputs = InputValues.DROPPED
    return network


def pictures(count: int = 5) -> Tensor:
    x = torch.randn(count, 4, 4, 4, generator=generator(1))
    return x.contiguous(memory_format=torch.channels_last)


def trained(function, network: nn.Module, x: Tensor) -> list[Tensor]:
    """Scores and all gradients of one pass through `function`, which calls the network."""
    torch.manual_seed(2)
    network.zero_grad()
    x = x.clone().requires_grad_()
    scores = function(x)
    F.cross_entropy(scores.float(), torch.arange(len(x))).backward()
    return [scores.detach(), x.grad, *(parameter.grad for parameter in network.parameters())]


# torch.compile


@pytest.mark.skipif(not dispatch.AVAILABLE, reason="needs Numba: there is nothing to trace")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("normalized", [True, False])
def test_a_compiled_network_equals_the_eager_one(normalized, training):
    """Traced, torch's batch normalization may sum its gradients in another order; nothing else."""
    network, x = own_network(normalized).train(training), pictures()
    order_for_kernels(network[3])  # in the memory of kernels; the others in torch's
    other = copy.deepcopy(network)
    torch.compiler.reset()
    compiled = torch.compile(network, backend="aot_eager")
    eager, traced = trained(other, other, x), trained(compiled, network, x)
    assert torch.equal(eager[0], traced[0])
    bound = 1e-6 * max(grad.abs().max().item() for grad in eager[1:]) if normalized else 0
    for ours, theirs in zip(traced, eager, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=bound)
    states = zip(network.state_dict().values(), other.state_dict().values(), strict=True)
    assert all(torch.equal(*pair) for pair in states)


@pytest.mark.skipif(not dispatch.AVAILABLE, reason="needs Numba: there is nothing to trace")
def test_every_layer_is_traced_whole():
    network = nn.Sequential(*list(own_network(normalized=False))[:11])
    x = pictures()
    torch.compiler.reset()
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    assert all(map(torch.equal, trained(network, network, x), trained(compiled, network, x)))


def test_a_compiled_layer_may_be_large_enough_for_several_threads():
    layer = nn.Sequential(BinaryActivation(), BinaryLinear(32_768, 2)).eval()
    x, threads = torch.randn(3, 32_768, generator=generator()), torch.get_num_threads()
    torch.compiler.reset()
    torch.set_num_threads(2)
    try:
        compiled = torch.compile(layer, backend="aot_eager")
        assert torch.equal(compiled(x), layer(x))
    finally:
        torch.set_num_threads(threads)


def test_no_compiler_is_imported_before_it_is_asked_for():
    script = (
        "import sys, torch; from bnnlib import layers, optim, packed, functional\n"
        "layer = layers.BinaryLinear(5, 3)\n"
        "layers.BinaryActivation()(layer(torch.ones(2, 5))).sum().backward()\n"
        "assert 'torch._dynamo' not in sys.modules and 'torch._inductor' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# torch.utils.checkpoint


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("kind", ["activation", "weights", "dropout"])
def test_a_checkpoint_draws_the_same_from_torch_s_generator(kind, reentrant):
    layer = noisy(kind, torch.default_generator)
    plain = gradients(layer, lambda x: layer(x))
    again = gradients(layer, lambda x: checkpoint(layer, x, use_reentrant=reentrant))
    assert all(map(torch.equal, plain, again))


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("kind", ["activation", "weights", "dropout"])
def test_a_checkpoint_of_a_layer_with_a_generator_of_its_own_is_refused(kind, reentrant):
    layer = noisy(kind, generator(5))
    gradients(layer, lambda x: layer(x))
    with pytest.raises(RuntimeError, match=r"can't be recomputed by torch\.utils\.checkpoint"):
        gradients(layer, lambda x: checkpoint(layer, x, use_reentrant=reentrant))


def noisy(kind: str, noise: torch.Generator) -> nn.Module:
    first = BinaryLinear(30, 40, init=generator(), noise=noise if kind == "weights" else None)
    then = {"activation": BinaryActivation(noise), "dropout": Dropout(0.5, noise)}
    return nn.Sequential(first, nn.Tanh(), then.get(kind, nn.Identity()), nn.Linear(40, 3))


def gradients(layer: nn.Module, function) -> list[Tensor]:
    torch.manual_seed(0)
    x = torch.rand(7, 30, generator=generator(2)).requires_grad_()
    layer.zero_grad()
    function(x).square().sum().backward()
    return [x.grad, *(parameter.grad for parameter in layer.parameters())]


# Fewer bits


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("training", [True, False])
def test_autocast_changes_no_number(dtype, training):
    network, x = own_network(), pictures()
    network.train(training)
    other = copy.deepcopy(network)

    def cast(x):
        with torch.autocast("cpu", dtype):
            return other(x)

    assert all(map(torch.equal, trained(network, network, x), trained(cast, other, x)))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("layer", [nn.Linear(30, 400), nn.Conv2d(30, 400, 3, padding=1)])
def test_sums_stay_integers_behind_layers_that_autocast_rounds(dtype, layer):
    binary = BinaryLinear(400, 6) if isinstance(layer, nn.Linear) else BinaryConv2d(400, 6)
    x = torch.randn(5, 30, *(6, 6) * isinstance(layer, nn.Conv2d), generator=generator())
    with torch.autocast("cpu", dtype):
        signs = BinaryActivation()(layer(x))
        sums = binary(signs)
    expected = copy.deepcopy(binary).double()(signs.double())
    assert signs.dtype == dtype and sums.dtype == torch.float32
    assert torch.equal(sums.double(), expected) and sums.abs().max() > 8


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layer", [BinaryLinear(30, 4), BinaryConv2d(30, 4)])
def test_layers_in_fewer_bits_refuse(layer, training, dtype):
    layer = copy.deepcopy(layer).to(dtype).train(training)
    x = torch.ones(2, 30, *(4, 4) * (layer.weight.dim() == 4), dtype=dtype)
    with pytest.raises(ValueError, match=f"would be rounded in {dtype}: keep binary layers in fl"):
        layer(x)


@pytest.mark.parametrize("dtype", HALVES)
def test_powers_of_two_are_the_nearest_in_fewer_bits_too(dtype):
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    x = bits.view(dtype)
    x = x[x.isfinite() & (x.abs() >= torch.finfo(dtype).tiny)]
    expected = ap2(x.double()).to(dtype)
    assert torch.equal(ap2(x), expected) and len(x) > 60_000
    assert ap2(torch.zeros(1, dtype=dtype)).item() == 0


@pytest.mark.parametrize("dtype", HALVES)
def test_shift_based_normalization_takes_fewer_bits(dtype):
    layer = ShiftBatchNorm(3, 1.0).to(dtype)
    x = torch.randn(50, 3, generator=generator()).to(dtype).requires_grad_()
    layer(x).sum().backward()
    assert x.grad.dtype == dtype and layer.eval()(x).dtype == dtype


# As torch's own layers


@pytest.mark.parametrize("make", [BinaryLinear, BinaryConv2d])
def test_initial_weights_come_from_torch_s_generator_by_default(make):
    torch.manual_seed(3)
    first = make(70, 80)
    torch.manual_seed(3)
    assert torch.equal(first.weight, make(70, 80).weight)
    assert torch.equal(first.weight, make(70, 80, init=generator(3)).weight)
    assert not torch.equal(first.weight, make(70, 80).weight)


def test_layers_take_the_arguments_of_torch_s():
    dense, conv = BinaryLinear(12, 5, bias=False), BinaryConv2d(3, 8, 3, 1, 1, False)
    assert BinaryConv2d(3, 8, (3, 3), (1, 1), (1, 1)).bias.shape == (8,)
    x, images = torch.randn(4, 12), torch.randn(2, 3, 6, 6)
    assert torch.equal(dense(x), F.linear(x, sign(dense.weight)))
    assert torch.equal(conv(images), F.conv2d(images, sign(conv.weight), padding=1))
    assert set(dense.state_dict()) == {"weight"}
    dense.inputs = conv.inputs = InputValues.SIGNS
    assert torch.equal(dense(sign(x)), F.linear(sign(x), sign(dense.weight)))
    assert torch.equal(conv(sign(images)), F.conv2d(sign(images), sign(conv.weight), padding=1))


@pytest.mark.parametrize("arguments", [(5,), (3, 2), (3, 1, 0), ((3, 5),), (1,), ("3",)])
def test_other_convolutions_are_refused(arguments):
    with pytest.raises(ValueError, match="has kernel_size 3, stride 1 and padding 1, not"):
        BinaryConv2d(3, 8, *arguments)


def test_a_generator_in_the_place_of_another_argument_is_refused():
    with pytest.raises(TypeError, match="init and noise go by name"):
        BinaryLinear(3, 8, generator())
    with pytest.raises(ValueError, match="has kernel_size 3"):
        BinaryConv2d(3, 8, generator())


def losses(network: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    x, labels = pictures(), torch.arange(5)

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(network(x), labels)
        loss.backward()
        return loss

    return [optimizer.step(closure).item() for _ in range(steps)]


@pytest.mark.parametrize(
    "make",
    [
        lambda weights: torch.optim.Adam(weights, 0.01),
        lambda weights: torch.optim.SGD(weights, 0.05, momentum=0.9),
        lambda weights: torch.optim.LBFGS(weights, 0.05, max_iter=3),
    ],
    ids=["Adam", "SGD", "LBFGS"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_s_optimizers_train_them(make, dtype, monkeypatch):
    network, x = own_network().to(dtype), pictures().to(dtype)
    monkeypatch.setattr(sys.modules[__name__], "pictures", lambda: x)
    before = copy.deepcopy(network.state_dict())
    found = losses(network, make(network.parameters()), 4)
    assert all(0 < loss < 100 for loss in found)
    for name, parameter in network.named_parameters():
        assert parameter.is_contiguous() and parameter.grad.is_contiguous()
        assert not torch.equal(parameter, before[name])


def test_their_state_is_saved_and_copied(tmp_path):
    network, x = own_network().eval(), pictures()
    safetensors.torch.save_file(network.state_dict(), tmp_path / "own.safetensors")
    other = own_network(normalized=True).eval()
    with torch.no_grad():
        other[0].weight.neg_()
    assert not torch.equal(other(x), network(x))
    other.load_state_dict(safetensors.torch.load_file(tmp_path / "own.safetensors"))
    assert torch.equal(other(x), network(x))
    assert torch.equal(copy.deepcopy(network)(x), network(x))
    torch.save(network, tmp_path / "whole.pt")
    assert torch.equal(torch.load(tmp_path / "whole.pt", weights_only=False)(x), network(x))


def test_a_copy_of_a_noisy_layer_draws_the_same():
    layer = BinaryLinear(30, 4, noise=generator(4))
    other, x = copy.deepcopy(layer), torch.ones(2, 30)
    assert torch.equal(layer(x), other(x)) and layer.noise is not other.noise


def test_the_order_of_memory_changes_no_number():
    found = []
    for order in (lambda layer: layer, order_for_kernels):
        network, x = own_network(), pictures()
        for i in (3, 8, 12):
            order(network[i])
        found.append(trained(network, network, x))
    assert all(map(torch.equal, *found))


def test_scaled_pixels_enter_any_layer():
    pixels = torch.randint(0, 256, (2, 3, 6, 6), dtype=torch.uint8)
    assert nn.Sequential(ScaleInput(), BinaryConv2d(3, 8, 3))(pixels).shape == (2, 8, 6, 6)
