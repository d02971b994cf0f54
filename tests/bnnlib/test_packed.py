import json
import re

import pytest
import safetensors.torch
import torch
from random_networks import DENSE, images, random_network, shuffle_values

from bnnlib import classify, packed, packed_layers
from bnnlib.binarize import Binarization
from bnnlib.folding import reference
from bnnlib.layers import (
    BinaryActivation,
    BinaryConv2d,
    BinaryLinear,
    MaxPool2x2,
    Normalization,
    ScaleInput,
)
from bnnlib.models import binary_layers
from bnnlib.network_file import load_network, save_network
from bnnlib.normalization import BatchNorm
from bnnlib.xnor import pack_signs, unpack_signs
from study import ROOT, data, recipes
from study.bench.baselines import network_for

MODELS = ROOT / "results" / "models"
EXACT, NONE = Normalization.EXACT, Binarization.NONE
SHAPES = {  # words that are full, words with gaps, several words; pooled to 16, 8 and 4 pixels
    "mlp": ((70, 130), (64, 128)),
    "convnet": ((5, 8, 70), (64,), (9, 64)),
}
KINDS = [(network, hidden) for network, shapes in SHAPES.items() for hidden in shapes]


def assert_equal_to_reference(network, x, shape=None):
    """Every hidden bit and every score, with ==. -> the packed network"""
    bits = packed.pack(network, shape)
    *signs, scores = reference(network, x)
    words = list(bits.hidden(x))
    assert len(words) == len(signs)
    for found, expected in zip(words, signs, strict=True):
        unpacked = unpack_signs(found, expected.shape[1]).movedim(-1, 1)
        assert torch.equal(unpacked.float(), expected)
        assert torch.equal(found, pack_signs(unpacked.movedim(1, -1)))  # padding bits are 0
        assert expected.unique().tolist() == [-1, 1]
    assert torch.equal(bits(x), scores)
    return bits


@pytest.mark.parametrize("batch_norm", Normalization)
@pytest.mark.parametrize(("network", "hidden"), KINDS)
def test_every_bit_and_score_is_the_references(network, hidden, batch_norm):
    built = random_network(network, hidden, batch_norm)
    bits = assert_equal_to_reference(built, images(built, 5))
    inverted = [layer.flipped is not None for layer in bits.layers if layer.pooled]
    learned = batch_norm not in (Normalization.STATISTICS, Normalization.NONE)
    assert inverted == [learned] * (len(hidden) if network == "convnet" else 0)


def test_scores_on_a_threshold_are_the_references():
    """Means that sums hit exactly, behind both signs of the factor."""
    network = random_network("mlp", (70, 130), EXACT)
    x = images(network, 64)
    with torch.no_grad():
        for layer in binary_layers(network).values():
            layer.bias.zero_()
        network[8].mean[:] = 2 * torch.arange(-65, 65).div(8, rounding_mode="floor")
        network[8].beta.zero_()
    words = list(packed.pack(network).hidden(x))[0]
    sums = unpack_signs(words, 70).float() @ network[7].weight.sign().t()
    ties = sums == network[8].mean
    assert ties[:, network[8].gamma > 0].sum() > 50 and ties[:, network[8].gamma < 0].sum() > 50
    assert_equal_to_reference(network, x)


@pytest.mark.parametrize("flips", ["none", "some", "all"])
def test_pooling_is_or_and_where_the_row_is_flipped_and(flips):
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (3, 4, 6, 70), generator=generator) * 2 - 1
    flipped = {
        "none": torch.zeros(70, dtype=torch.bool),
        "some": torch.arange(70) % 3 == 0,
        "all": torch.ones(70, dtype=torch.bool),
    }[flips]
    mask = None if flips == "none" else pack_signs(torch.where(flipped, 1, -1).int())
    windows = signs.unflatten(1, (2, 2)).unflatten(3, (3, 2))
    expected = torch.where(flipped, windows.amin((2, 4)), windows.amax((2, 4)))
    pooled = packed_layers.max_pool(pack_signs(signs.int()), mask)
    assert torch.equal(unpack_signs(pooled, 70), expected.to(torch.int8))
    assert torch.equal(pooled, pack_signs(expected.int()))


@pytest.mark.parametrize(
    ("network", "scale", "offset", "dtype"),
    [
        ("mlp", 0.0127, -0.4245, torch.uint8),  # standardized
        ("convnet", 1.0, 0.0, torch.float32),  # whitened
        ("convnet", 4.8, 0.02, torch.float32),  # normalized in contrast
    ],
)
def test_other_images_keep_the_networks_own_real_first_layer(network, scale, offset, dtype):
    built = random_network(network, (70, 130), EXACT, ScaleInput(scale, offset))
    x = images(built, 6)
    x = x if dtype == torch.uint8 else (x.float() - 128) / 64
    bits = assert_equal_to_reference(built, x)
    first = next(bits.hidden(x))
    end = 6 if network == "mlp" else 4
    with torch.no_grad():
        assert torch.equal(unpack_signs(first, 70).movedim(-1, 1).float(), built[:end](x))
    other = torch.float32 if dtype == torch.uint8 else torch.uint8
    with pytest.raises(ValueError, match=f"of {dtype} .* of {other}"):
        bits(x.to(other))


@pytest.mark.parametrize(("network", "hidden"), [KINDS[0], KINDS[-1]])
def test_batches_of_any_size_give_the_same_scores(network, hidden, monkeypatch):
    built = random_network(network, hidden, EXACT)
    x = images(built, 5)
    whole = packed.pack(built)
    monkeypatch.setattr(packed, "CHUNK_BYTES", 2 * (65536 if network == "convnet" else 8 * 13 * 8))
    halves = packed.pack(built)
    assert (whole.at_once > 5, halves.at_once) == (True, 2)
    assert torch.equal(whole(x), halves(x))
    assert torch.equal(whole(x[3:4]), whole(x)[3:4])
    assert packed.predict(whole, x).tolist() == whole(x).argmax(1).tolist()
    monkeypatch.setattr(packed, "CHUNK_BYTES", 1)
    assert torch.equal(packed.pack(built)(x), whole(x))


@pytest.mark.parametrize(("network", "hidden"), [KINDS[0], KINDS[2]])
def test_no_images_have_no_scores(network, hidden):
    built = random_network(network, hidden, EXACT)
    bits, none = packed.pack(built), images(built, 2)[:0]
    assert bits(none).shape == (0, 10) and packed.predict(bits, none).shape == (0,)


def test_a_packed_network_is_a_copy_of_what_evaluation_computes():
    network = random_network("mlp", (70,), Normalization.SHIFT_CODED)
    x = images(network, 9)
    scores = packed.pack(network)(x)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    training = packed.pack(network.train())
    assert torch.equal(training(x), scores) and not scores.requires_grad
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    shuffle_values(network, seed=3)
    assert torch.equal(training(x), scores)
    assert not torch.equal(packed.pack(network)(x), scores)


def test_torch_compile_takes_it_whole():
    built = random_network("convnet", (5, 8), EXACT)
    bits, x = packed.pack(built), images(built, 3)
    compiled = torch.compile(lambda x: bits(x), backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x), bits(x))


def test_a_network_takes_a_bit_a_weight_or_two():
    bits = packed.pack(random_network("mlp", (512, 256), EXACT))
    layers = [*bits.layers, bits.scores]
    weights = sum(part.nbytes for layer in layers for part in layer.weights.tensors)
    places = 832 * 512 + 512 * 256 + 256 * 128  # whole words of whole tiles of 128 columns
    assert (784 * 512 + 512 * 256 + 256 * 10) / 8 <= weights <= 2 * places / 8
    thresholds, bias, normalization = 4 * (512 + 256), 4 * 10, 16 * 10
    assert bits.packed_bytes() == weights + thresholds + bias + normalization


def saved(tmp_path, network, hidden):
    shape = {"network": "mlp", "hidden": hidden, "dense": DENSE, "activations": "deterministic"}
    if isinstance(network[1], BinaryConv2d):
        shape["network"] = "convnet"
    path = tmp_path / "network.safetensors"
    path.write_bytes(save_network(network, shape))
    return path


@pytest.mark.parametrize(("network", "hidden"), [KINDS[0], KINDS[2]])
def test_a_network_file_is_loaded_packed(network, hidden, tmp_path):
    built = random_network(network, hidden, EXACT)
    x = images(built, 4)
    loaded = packed.load(saved(tmp_path, built, hidden))
    assert torch.equal(loaded(x), packed.pack(built)(x))


def damaged(tmp_path, damage):
    """A path to a network file that went through `damage`."""
    path = saved(tmp_path, random_network("mlp", (8,), EXACT), (8,))
    content = path.read_bytes()
    tensors = safetensors.torch.load(content)
    shape = {"network": "mlp", "hidden": [8], "dense": 0, "activations": "deterministic"}
    if damage == "not finite":
        tensors["4.mean"][3] = float("nan")
    if damage == "real activations":
        shape["activations"] = "none"
    changed = safetensors.torch.save(tensors, {"shape": json.dumps(shape)})
    whole = {"cut": content[:-40], "empty": b"", "foreign": safetensors.torch.save(tensors)}
    path.write_bytes(whole.get(damage, changed))
    return path


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("cut", "no intact network file"),
        ("empty", "no intact network file"),
        ("foreign", "no intact network file"),
        ("not finite", "not finite"),
        ("real activations", "activations are real"),
    ],
)
def test_a_file_that_cannot_be_packed_is_refused_by_name(damage, sentence, tmp_path, capsys):
    path = damaged(tmp_path, damage)
    with pytest.raises(ValueError, match=rf"^network\.safetensors.*{sentence}"):
        packed.load(path)
    assert classify.main([str(path), "any.png"]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: network.safetensors") and sentence in printed.err
    assert printed.err.count("\n") == 1 and not printed.out


def test_a_network_with_real_numbers_inside_is_refused():
    with pytest.raises(ValueError, match="float twin"):
        packed.pack(random_network("mlp", (8,), EXACT, None, NONE, NONE))
    with pytest.raises(ValueError, match="float twin"):
        packed.pack(random_network("convnet", (8,), EXACT, None, NONE))
    with pytest.raises(ValueError, match=r"activations are real"):
        packed.pack(random_network("convnet", (8,), EXACT, None, activations=NONE))


@pytest.mark.parametrize("shape", [(1, 3, 3, 2), (1, 31, 30, 2), (1, 30, 31, 2), (1, 1, 1, 1)])
def test_pooling_refuses_images_of_odd_sides(shape):
    with pytest.raises(ValueError, match="even to be halved: " + re.escape(str(shape))):
        packed_layers.max_pool(torch.zeros(shape, dtype=torch.int64), None)


def own_mlp(*, last=True, first=784):
    """Somebody's own layers, as torch's are made."""
    network = [ScaleInput(), torch.nn.Flatten(), BinaryLinear(first, 65, bias=False)]
    network += [BatchNorm(65), BinaryActivation(), torch.nn.Dropout(), BinaryLinear(65, 10)]
    return torch.nn.Sequential(*network, *[BatchNorm(10)] * last)


def own_convnet(pools=2, dense=8 * 8 * 8, channels=3):
    network, width = [ScaleInput()], channels
    for _ in range(pools):
        network += [BinaryConv2d(width, 8, 3), MaxPool2x2(), BatchNorm(8), BinaryActivation()]
        width = 8
    network += [torch.nn.Flatten(), BinaryLinear(dense, 7), BatchNorm(7)]
    return torch.nn.Sequential(*network)


@pytest.mark.parametrize("network", [own_mlp(), own_convnet()], ids=["mlp", "convnet"])
def test_networks_of_somebody_s_own_layers_are_packed(network):
    shuffle_values(network, seed=1)
    assert_equal_to_reference(network, images(network, 5))


@pytest.mark.parametrize(
    ("network", "shape"),
    [(own_convnet(dense=8 * 5 * 3), (3, 20, 12)), (own_mlp(first=20 * 12), (20, 12))],
)
def test_images_may_be_higher_than_wide(network, shape):
    shuffle_values(network, seed=1)
    x = torch.randint(256, (5, *shape), dtype=torch.uint8)
    assert_equal_to_reference(network, x, shape)


def test_what_cannot_be_halved_is_named_with_both_sides():
    with pytest.raises(ValueError, match="layer 6 can't halve images of 10 x 7 pixels"):
        packed.pack(own_convnet(), (3, 20, 14))


class Own(torch.nn.Module):
    pass


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (torch.nn.Sequential(BinaryConv2d(3, 8), BatchNorm(8)), "layer 0 is a BinaryConv2d: .*beg"),
        (torch.nn.Sequential(), "last layers are no BinaryLinear"),
        (own_mlp()[:2].extend([BinaryLinear(784, 10), BatchNorm(10)]), "of one binary"),
        (Own(), r"in one nn\.Sequential, not a Own"),
        (own_mlp(last=False), "last layers are no BinaryLinear"),
        (own_mlp()[:5], "last layers are no BinaryLinear"),
        (torch.nn.Sequential(*own_mlp()[:4], *own_mlp()[6:]), "layer 4 is a BinaryLinear"),
        (torch.nn.Sequential(own_mlp()[:4], torch.nn.Sigmoid()), "layer 0 is a Sequential"),
        (torch.nn.Sequential(*own_mlp()[:4], torch.nn.Sigmoid()), "layer 4 is a Sigmoid"),
        (torch.nn.Sequential(*own_mlp()[:3], torch.nn.BatchNorm1d(65)), "layer 3 is a BatchNorm1d"),
        (own_mlp(first=100), "layer 2 reads 100 numbers, but is given 784"),
        (own_convnet(channels=1), "layer 1 reads 1 channels, but is given 3"),
        (own_convnet(dense=500), "layer 10 reads 500 numbers, but is given 512"),
        (own_convnet(pools=6), "layer 22 can't halve images of 1 x 1"),
        (own_mlp().half(), "0.scale is torch.float16"),
        (own_convnet().bfloat16(), "0.scale is torch.bfloat16"),
    ],
)
def test_other_networks_are_refused_with_what_a_network_must_be(network, sentence):
    with pytest.raises(ValueError, match=sentence):
        packed.pack(network)


def test_autocast_changes_no_bit_of_a_packed_network():
    network = random_network("convnet", (70, 130), EXACT, ScaleInput(1.0, 0.0))
    bits, x = packed.pack(network), (images(network, 6).float() - 128) / 64
    expected = bits(x)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            assert torch.equal(bits(x), expected)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((2, 28, 28), torch.float32),
        ((2, 28, 28), torch.int64),
        ((28, 28), torch.uint8),
        ((2, 27, 28), torch.uint8),
        ((2, 1, 28, 28), torch.uint8),
        ((2, 3, 32, 32), torch.uint8),
        ((2, 784), torch.uint8),
    ],
)
def test_images_of_another_kind_are_refused_with_both_kinds_named(shape, dtype):
    bits = packed.pack(random_network("mlp", (8,), EXACT))
    wrong = torch.zeros(shape, dtype=dtype)
    for use in (bits, lambda x: list(bits.hidden(x)), lambda x: packed.predict(bits, x)):
        with pytest.raises(ValueError) as refusal:
            use(wrong)
        assert "(B, 28, 28) of torch.uint8" in str(refusal.value)
        assert f"{shape} of {dtype}" in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "dataset", "count"),
    [("mnist-theano", "mnist", 400), ("cifar10-theano", "cifar10", 100)],
)
def test_trained_networks_classify_as_their_float_networks(name, dataset, count):
    """They differ by the float network's rounding alone: few first bits, no class, small scores."""
    path = next(MODELS.glob(f"{name}-*.safetensors"), None)  # of the best profile that was run
    if not path:
        pytest.skip("no trained network here")
    network, bits = load_network(path), packed.load(path)
    x = torch.tensor(data.stand_in(dataset, train=1, test=count).test_images)
    with torch.no_grad():
        scores = network(x)
        first = network[:6](x) if dataset == "mnist" else network[:4](x)
    words = next(bits.hidden(x))
    different = unpack_signs(words, first.shape[1]).movedim(-1, 1).float() != first
    assert different.float().mean() < 1e-5
    assert torch.equal(packed.predict(bits, x), scores.argmax(1))
    assert (bits(x) - scores).abs().max() < 0.2


@pytest.mark.parametrize("recipe", [recipes.MNIST_THEANO, recipes.CIFAR10_THEANO])
def test_a_first_layer_of_bytes_gives_the_bits_of_one_on_planes(recipe, monkeypatch):
    """What a GPU's int8 product makes, on the CPU; border and negative factors among it."""
    pytest.importorskip("triton", reason="triton is not installed: no GPU kernels")
    network = network_for(recipe, "smoke")
    for part in network:
        if hasattr(part, "inv_std"):
            part.gamma.data[::3] *= -1
            part.gamma.data[1], part.beta.data[1] = 0, 0.5  # a bit that never changes
            part.gamma.data[2], part.beta.data[2] = 0, -0.5
    shape = (28, 28) if recipe.network == "mlp" else (3, 32, 32)
    images = torch.randint(0, 256, (33, *shape), dtype=torch.uint8)
    images[0], images[1] = 0, 255
    wanted = packed.pack(network)
    monkeypatch.setattr(packed, "_multiplies_bytes", lambda images: True)
    made = packed.pack(network)
    assert isinstance(made.first, packed_layers.ByteInput) and made.packed_bytes() > 0
    for ours, theirs in zip(made.hidden(images), wanted.hidden(images), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(made(images[:3]), wanted(images[:3]))
