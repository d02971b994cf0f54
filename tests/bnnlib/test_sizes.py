"""Networks of other images and classes than the paper's: built, packed, kept, exported, refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from random_networks import shuffle_values

from bnnlib import models, network_file, packed
from bnnlib.export import c, network, onnx
from bnnlib.folding import reference
from bnnlib.network_file import trained_on as trained
from study import recipes
from study.train.build import build_network, file_shape

MLP = replace(recipes.MNIST_THEANO, hidden=(70, 33))
CONVNET = replace(recipes.CIFAR10_THEANO, hidden=(8, 70), dense=40)
SIZES = [
    (MLP, 2, 1, 2),
    (MLP, 8, 1, 10),
    (MLP, 30, 3, 1000),
    (MLP, 256, 3, 5),
    (CONVNET, 4, 1, 3),
    (CONVNET, 28, 1, 2),
    (CONVNET, 20, 3, 11),
    (replace(CONVNET, hidden=(8,)), 6, 3, 100),
    (replace(CONVNET, hidden=(4, 5, 6, 7, 8)), 32, 3, 10),
    (replace(CONVNET, side=256, hidden=(3,) * 8), 256, 3, 4),
]
each_size = pytest.mark.parametrize(("recipe", "side", "channels", "classes"), SIZES)


def made(recipe, side, channels, classes):
    """-> the recipe, its network with shuffled values, its image shape, three images"""
    sized = replace(recipe, side=side, channels=channels, classes=classes)
    built = build_network(sized, seed=1)
    with torch.no_grad():
        shuffle_values(built, seed=2)
    shape = models.image_shape(sized.network, side, channels)
    generator = torch.Generator().manual_seed(3)
    return sized, built.eval(), shape, torch.randint(256, (3, *shape), generator=generator).byte()


@each_size
def test_a_network_of_any_size_is_packed_exactly_and_survives_its_file(
    recipe, side, channels, classes
):
    sized, built, shape, images = made(recipe, side, channels, classes)
    *_, expected = reference(built, images)
    assert expected.shape == (3, classes)
    labels = tuple(f"class {number}" for number in range(classes))
    content = network_file.save_network(built, file_shape(sized), trained("own", labels))
    bits = packed.load(content)
    assert bits.shape == shape and torch.equal(bits(images), expected)
    assert network_file.about(content).labels == labels


@each_size
def test_exports_of_any_size_compute_the_packed_scores(recipe, side, channels, classes):
    _, built, shape, images = made(recipe, side, channels, classes)
    if shape[-1] * classes > 1000:
        pytest.skip("as text this one takes seconds, and shows no more")
    exported = network.convert(built, "own", shape)
    scores = network.inside(exported, images.flatten(1).numpy())[1]
    assert np.array_equal(scores, packed.pack(built, shape)(images).numpy())
    import onnxruntime

    content = onnx.model(exported).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert np.array_equal(session.run(["scores"], {"pixels": images.numpy()})[0], scores)
    assert f"#define BNN_CLASSES {classes}\n" in c.source(exported)


def test_the_paper_s_networks_are_instances_of_the_same_builder():
    for recipe in (recipes.MNIST_THEANO, recipes.CIFAR10_THEANO):
        small = recipes.at_profile(recipe, "smoke")
        shape = models.image_shape(recipe.network)
        explicit = replace(small, side=shape[-1], channels=shape[0] if len(shape) == 3 else 1)
        plain, same = build_network(small, 5), build_network(explicit, 5)
        for ours, theirs in zip(plain.parameters(), same.parameters(), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"side": 27}, "even side from 2 to 256 pixels, not 27"),
        ({"side": 258}, "even side from 2 to 256 pixels, not 258"),
        ({"side": -2}, "even side"),
        ({"channels": 2}, "1 channel .* or 3 .*, not 2"),
        ({"classes": 1}, "2 to 1000 classes apart, not 1"),
        ({"classes": 1001}, "2 to 1000 classes apart, not 1001"),
        ({"side": 28, "hidden": (4, 4, 4)}, "28 pixels can be halved 2 times, not 3; .* 2 stages"),
        ({"side": 30, "hidden": (4, 4)}, "halved 1 times, not 2; .* multiple of 4"),
    ],
)
def test_a_size_that_cannot_work_is_refused_with_what_would(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(CONVNET, **fields)


def test_onnx_refuses_sums_that_float32_does_not_hold():
    _, built, shape, _ = made(MLP, 256, 3, 5)
    with pytest.raises(ValueError, match="too many to be exact"):
        onnx.model(network.convert(built, "own", shape))


@pytest.mark.parametrize(
    ("dataset", "labels"), [("own", ["a"] * 9), ("own", [1] * 10), (3, ["a"] * 10)]
)
def test_labels_that_do_not_fit_are_no_intact_file(dataset, labels):
    told = trained(dataset, labels)
    content = network_file.save_network(build_network(MLP, 0), file_shape(MLP), told)
    with pytest.raises(ValueError, match="^network is no intact network file"):
        network_file.about(content)


def test_labels_can_be_added_to_an_older_file():
    older = network_file.save_network(build_network(MLP, 0), file_shape(MLP))
    assert network_file.about(older).dataset == "" and network_file.about(older).reads_digits
    newer = network_file.with_training(older, trained("mnist", "abcdefghij", 1.5, 200, "a run"))
    told = network_file.About((28, 28), tuple("abcdefghij"), "mnist", 1.5, 200, "a run")
    assert network_file.about(newer) == told
    x = torch.randint(256, (2, 28, 28)).byte()
    assert torch.equal(packed.load(older)(x), packed.load(newer)(x))
