"""What a run trains on, selects by and is tested on, as uint8 tensors that stay on its device."""

import hashlib
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from bnnlib import data
from bnnlib.recipes import Recipe

SMOKE_IMAGES = {"train": 1200, "test": 300}


@dataclass(frozen=True)
class Images:
    """One split on the device: images (N, ...) uint8, labels (N,) int64."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class TrainingData:
    """What a run trains on, selects by, and is tested on; and where it came from."""

    train: Images
    validation: Images
    test: Images
    source: str
    sha256: str
    stand_in: bool


def training_data(recipe: Recipe, profile: str, device: str = "cpu") -> TrainingData:
    """The recipe's data: real where they can be had, else the stand-in; smoke draws a small one."""
    dataset = _dataset(recipe.dataset, profile == "smoke")
    split = data.split(dataset)
    count = recipe.train_images or len(split.train_images)
    if recipe.batch_size > min(count, len(split.train_images)):
        raise ValueError(f"{recipe.name}: a batch is larger than the training images")
    return TrainingData(
        train=_to_device(split.train_images[:count], split.train_labels[:count], device),
        validation=_to_device(split.validation_images, split.validation_labels, device),
        test=_to_device(dataset.test_images, dataset.test_labels, device),
        source=dataset.source,
        sha256=_split_hash(dataset, split),
        stand_in=dataset.stand_in,
    )


@cache
def _dataset(name: str, smoke: bool) -> data.Dataset:
    """Loaded and checked once a process: a notebook trains many runs on the same images."""
    return data.stand_in(name, **SMOKE_IMAGES) if smoke else data.load_or_stand_in(name)


def _split_hash(dataset: data.Dataset, split: data.Split) -> str:
    """Binds the data and how they are split."""
    digest = hashlib.sha256(f"{dataset.sha256} {len(split.train_labels)}".encode())
    for labels in (split.train_labels, split.validation_labels):
        digest.update(np.ascontiguousarray(labels))
    return digest.hexdigest()


def _to_device(images, labels, device: str) -> Images:
    """images (N, ...) uint8 and labels (N,) uint8, NumPy arrays -> tensors of their own."""
    return Images(torch.tensor(images, device=device), torch.tensor(labels, device=device).long())
