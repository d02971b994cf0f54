"""What `training_data` hands to a run, for every preprocessing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from study import data, recipes
from study.data import preprocessing, training_data
from study.recipes.recipe import Preprocessing

RECIPE = replace(recipes.CIFAR10_THEANO, batch_size=10)
SPLITS = ("train", "validation", "test")


def small_dataset() -> data.Dataset:
    """Colour pictures of 6 x 6 pixels, of which `split` holds back a tenth."""
    rng = np.random.default_rng(0)
    train, test = (rng.integers(256, size=(n, 3, 6, 6), dtype=np.uint8) for n in (200, 40))
    train[:, :, 1:], test[:, :, 1:] = train[:, :, :-1] // 2, test[:, :, :-1] // 2
    labels = (np.arange(200) % 10).astype(np.uint8)
    return data.Dataset("cifar10", train, labels, test, labels[:40], "made up", "ab" * 32, True)


@pytest.fixture(autouse=True)
def dataset(monkeypatch) -> data.Dataset:
    dataset = small_dataset()
    monkeypatch.setattr(training_data, "_dataset", lambda name, smoke: dataset)
    return dataset


def obtain(kind: Preprocessing, **changes) -> training_data.TrainingData:
    return training_data.training_data(replace(RECIPE, inputs=kind, **changes), "quick")


def seen(training: training_data.TrainingData, split: str) -> torch.Tensor:
    """The images of a split as the network sees them, float64."""
    images = getattr(training, split).images.double()
    return training.scale * images + training.offset


def test_scaled_images_stay_as_they_are(dataset):
    training, split = obtain(Preprocessing.SCALED), data.split(dataset)
    assert (training.scale, training.offset) == (2 / 255, -1)
    expected = (split.train_images, split.validation_images, dataset.test_images)
    for name, images in zip(SPLITS, expected, strict=True):
        found = getattr(training, name).images
        assert found.dtype == torch.uint8 and np.array_equal(found, images)


@pytest.mark.parametrize("kind", Preprocessing)
def test_labels_and_origin_are_the_same_for_all(dataset, kind):
    training, split = obtain(kind), data.split(dataset)
    expected = (split.train_labels, split.validation_labels, dataset.test_labels)
    for name, labels in zip(SPLITS, expected, strict=True):
        found = getattr(training, name)
        assert found.labels.dtype == torch.int64 and np.array_equal(found.labels, labels)
        assert found.images.shape == (len(labels), 3, 6, 6)
    assert training.source == "made up" and training.stand_in
    assert training.sha256 == obtain(Preprocessing.SCALED).sha256


@pytest.mark.parametrize("kind", [Preprocessing.STANDARDIZED, Preprocessing.CONTRAST])
def test_training_images_get_zero_mean_and_unit_variance(kind):
    x = seen(obtain(kind), "train")
    assert x.mean().item() == pytest.approx(0, abs=1e-6) and x.std().item() == pytest.approx(1)


def test_standardized_images_stay_uint8_and_share_the_training_moments(dataset):
    training, images = obtain(Preprocessing.STANDARDIZED), data.split(dataset).train_images
    assert training.test.images.dtype == torch.uint8
    mean, std = (images / 255).mean(), (images / 255).std(ddof=1)
    assert np.allclose(seen(training, "test"), (dataset.test_images / 255 - mean) / std)


def test_whitened_images_share_the_training_statistics(dataset):
    training, split = obtain(Preprocessing.ZCA_TWICE), data.split(dataset)
    assert (training.scale, training.offset) == (1, 0)
    fitted = preprocessing.whitening(torch.tensor(split.train_images))
    expected = (split.train_images, split.validation_images, dataset.test_images)
    for name, images in zip(SPLITS, expected, strict=True):
        found = getattr(training, name).images
        assert found.dtype == torch.float32
        assert torch.equal(found, preprocessing.whiten(torch.tensor(images), *fitted))


def test_every_split_is_divided_by_its_own_largest_contrast():
    training = obtain(Preprocessing.CONTRAST)
    assert [getattr(training, name).images.max().item() for name in SPLITS] == [1, 1, 1]


@pytest.mark.parametrize("kind", [Preprocessing.STANDARDIZED, Preprocessing.ZCA_TWICE])
def test_statistics_are_those_of_the_images_trained_on(kind):
    few = obtain(kind, train_images=30)
    assert len(few.train.images) == 30
    assert seen(few, "train").mean().item() == pytest.approx(0, abs=1e-4)
    assert not torch.allclose(seen(few, "test"), seen(obtain(kind), "test"), atol=1e-3)


def test_next_seed_finds_the_images_prepared():
    first, second = (obtain(Preprocessing.ZCA_TWICE) for _ in range(2))
    assert second.train.images is first.train.images
    training_data._prepared.cache_clear()
    assert torch.equal(obtain(Preprocessing.ZCA_TWICE).test.images, first.test.images)


@pytest.mark.parametrize("changes", [{"batch_size": 181}, {"train_images": 9}])
def test_less_than_a_batch_is_refused(changes):
    with pytest.raises(ValueError, match="larger than the training images"):
        obtain(Preprocessing.SCALED, **changes)


@pytest.mark.parametrize("kind", [Preprocessing.STANDARDIZED, Preprocessing.CONTRAST])
def test_one_grey_is_refused(dataset, kind):
    dataset.train_images[:] = 9
    with pytest.raises(ValueError, match="no contrast"):
        obtain(kind)
