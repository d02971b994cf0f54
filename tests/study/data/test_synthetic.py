"""Stand-in pictures: the same ones every time, labels that match them, hard enough to learn."""

import subprocess
import sys

import numpy as np
import pytest

from study import ROOT
from study.data import synthetic

SHAPES = {
    "mnist": (28, 28),
    "cifar10": (3, 32, 32),
    "svhn": (3, 32, 32),
    "svhn-no-extra": (3, 32, 32),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_types_and_labels(name):
    images, labels = synthetic.draw(name, 0, "train", 600)
    assert images.shape == (600, *SHAPES[name]) and images.dtype == np.uint8
    assert labels.shape == (600,) and labels.dtype == np.uint8
    assert np.bincount(labels, minlength=10).min() > 30 and labels.max() == 9


@pytest.mark.parametrize("count", [0, 1, 249, 250, 251])
def test_a_set_begins_with_the_shorter_one(count):
    long_images, long_labels = synthetic.draw("mnist", 3, "train", 600)
    images, labels = synthetic.draw("mnist", 3, "train", count)
    assert np.array_equal(images, long_images[:count])
    assert np.array_equal(labels, long_labels[:count])


@pytest.mark.parametrize("name", ["mnist", "svhn"])
def test_another_process_draws_the_same(name):
    images, labels = synthetic.draw(name, 7, "test", 300)
    code = (
        "import sys; from study.data import synthetic; "
        f"images, labels = synthetic.draw({name!r}, 7, 'test', 300); "
        "sys.stdout.buffer.write(images.tobytes() + labels.tobytes())"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    assert said.stdout == images.tobytes() + labels.tobytes()


def test_name_seed_part_and_block_all_matter():
    keys = [
        ("svhn", 0, "train"),
        ("svhn", 1, "train"),
        ("svhn", 0, "test"),
        ("cifar10", 0, "train"),
    ]
    drawn = [synthetic.draw(*key, 500) for key in keys]
    pictures = [
        images[half].tobytes() for images, _ in drawn for half in np.split(np.arange(500), 2)
    ]
    assert len(set(pictures)) == 8
    assert len({labels.tobytes() for _, labels in drawn}) == 4


def test_no_picture_is_twice_in_a_set():
    images, _ = synthetic.draw("mnist", 0, "train", 2000)
    assert len(np.unique(images.reshape(2000, -1), axis=0)) == 2000


def test_every_font_draws_ten_different_digits():
    cells = synthetic._atlas().reshape(len(synthetic.FONTS), 10, -1)
    inside = (cells > 0).sum(axis=2)
    assert inside.min() > 20 and inside.max() < synthetic.SIDE**2 / 3
    assert cells.reshape(-1, synthetic.SIDE, synthetic.SIDE)[:, [0, -1]].max() < 0
    for font in cells:
        assert len(np.unique(font > 0, axis=0)) == 10


def test_mnist_stand_in_is_pale_on_black():
    images, _ = synthetic.draw("mnist", 0, "train", 500)
    assert 0.6 < (images == 0).mean() < 0.85
    assert (images.max(axis=(1, 2)) > 100).all()
    assert images[:, [0, -1], :].mean() < 1  # the edge is black


def test_colour_stand_in_uses_colour_and_contrast():
    images, _ = synthetic.draw("svhn", 0, "train", 500)
    assert (images.std(axis=(1, 2, 3)) > 8).all()
    assert (images.astype(float).std(axis=1).mean(axis=(1, 2)) > 3).mean() > 0.9


def nearest(train, train_labels, test):
    """Label of the nearest of the training pictures, by Euclidean distance."""
    distance = (train**2).sum(1) - 2 * test @ train.T
    return train_labels[distance.argmin(1)]


def test_labels_match_the_pictures():
    """Learnable, with room to learn: neighbours in pixels agree mostly, class means far less."""
    images, labels = synthetic.draw("mnist", 0, "train", 2500)
    pixels = images.reshape(2500, -1).astype(np.float64)
    guess = nearest(pixels[:2000], labels[:2000], pixels[2000:])
    assert (guess == labels[2000:]).mean() > 0.8
    means = np.stack([pixels[:2000][labels[:2000] == digit].mean(0) for digit in range(10)])
    guess = nearest(means, np.arange(10), pixels[2000:])
    assert (guess == labels[2000:]).mean() < 0.85


def test_colour_labels_match_the_pictures():
    """Ink may be darker or paler than its ground: compare what stands out, not what is bright."""
    images, labels = synthetic.draw("svhn", 0, "train", 5000)
    grey = images.mean(axis=1).reshape(5000, -1)
    grey = np.abs(grey - np.median(grey, axis=1, keepdims=True))
    grey /= np.linalg.norm(grey, axis=1, keepdims=True)
    guess = nearest(grey[:4500], labels[:4500], grey[4500:])
    assert (guess == labels[4500:]).mean() > 0.7
