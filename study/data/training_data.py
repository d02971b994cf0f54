"""Data of a run, to train on, select by and test on: tensors that stay on its device."""

import hashlib
from dataclasses import dataclass, replace
from functools import cache, lru_cache

import numpy as np
import torch
from torch import Tensor

from study import data
from study.data import preprocessing
from study.recipes.recipe import Preprocessing, Recipe

SMOKE_IMAGES = {"train": 1200, "test": 300}


@dataclass(frozen=True)
class Images:
    """One split on the device: images (N, ...) uint8 or float32, labels (N,) int64."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class TrainingData:
    """Data of a run, to train on, select by and test on; and their source.

    The network sees scale * image + offset.
    """

    train: Images
    validation: Images
    test: Images
    scale: float
    offset: float
    source: str
    sha256: str  # of the data as published and of how they are split
    stand_in: bool


def training_data(recipe: Recipe, profile: str, device: str = "cpu") -> TrainingData:
    """The recipe's data: real where they can be had, else the stand-in; smoke draws a small one.

    Raises ValueError where there is less than a batch to train on, or nothing to be normalized.
    """
    dataset = _dataset(recipe.dataset, profile == "smoke")
    training = _prepared(dataset, recipe.train_images, recipe.inputs)
    if recipe.batch_size > len(training.train.images):
        raise ValueError(f"{recipe.name}: a batch is larger than the training images")
    return replace(
        training,
        train=_to_device(training.train, device),
        validation=_to_device(training.validation, device),
        test=_to_device(training.test, device),
    )


@cache
def _dataset(name: str, smoke: bool) -> data.Dataset:
    """Loaded and checked once a process: a notebook trains many runs on the same images."""
    return data.stand_in(name, **SMOKE_IMAGES) if smoke else data.load_or_stand_in(name)


@lru_cache(maxsize=1)  # a whitening takes many seconds; the next seed needs the same one
def _prepared(dataset: data.Dataset, train_images: int, inputs: Preprocessing) -> TrainingData:
    """The first `train_images` (0: all) of the training split, and the rest, on the CPU."""
    split = data.split(dataset)
    count = train_images or len(split.train_images)
    images = split.train_images[:count], split.validation_images, dataset.test_images
    labels = split.train_labels[:count], split.validation_labels, dataset.test_labels
    tensors, scale, offset = _preprocess(inputs, [torch.tensor(part) for part in images])
    train, validation, test = (
        Images(x, torch.tensor(part).long()) for x, part in zip(tensors, labels, strict=True)
    )
    return TrainingData(
        train=train,
        validation=validation,
        test=test,
        scale=scale,
        offset=offset,
        source=dataset.source,
        sha256=_split_hash(dataset, split),
        stand_in=dataset.stand_in,
    )


def _preprocess(inputs: Preprocessing, splits: list[Tensor]) -> tuple[list[Tensor], float, float]:
    """uint8 images of train, validation and test -> images, scale, offset: fitted to train."""
    if inputs == Preprocessing.SCALED:
        return splits, 2 / 255, -1.0
    if inputs == Preprocessing.ZCA_TWICE:
        mean, matrix = preprocessing.whitening(splits[0])
        return [preprocessing.whiten(images, mean, matrix) for images in splits], 1.0, 0.0
    if inputs == Preprocessing.CONTRAST:
        splits = [preprocessing.normalize_contrast(images) for images in splits]
    mean, std = preprocessing.moments(splits[0])  # Data.lua:181-197
    return splits, 1 / std, -mean / std


def _split_hash(dataset: data.Dataset, split: data.Split) -> str:
    """Binds the data and how they are split."""
    digest = hashlib.sha256(f"{dataset.sha256} {len(split.train_labels)}".encode())
    for labels in (split.train_labels, split.validation_labels):
        digest.update(np.ascontiguousarray(labels))
    return digest.hexdigest()


def _to_device(split: Images, device: str) -> Images:
    return Images(split.images.to(device), split.labels.to(device))
