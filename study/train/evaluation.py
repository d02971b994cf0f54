"""Loss and error of a network over a whole split. Determines a run's numbers."""

import torch
from torch import nn

from bnnlib import parallel
from study.data.training_data import Images
from study.train import eager

EVALUATION_BATCH = 500  # images


@torch.no_grad()
def evaluate(network: nn.Module, split: Images) -> tuple[float, float]:
    """(mean squared hinge loss, error in percent) over a whole split; leaves evaluation mode on."""
    network.eval()
    ours = slice(parallel.rank(), None, parallel.size())
    loss = torch.zeros((), dtype=torch.float64, device=split.labels.device)
    errors = torch.zeros_like(loss)  # both stay on the device: nothing waits for it in between
    for start in range(0, len(split.images), EVALUATION_BATCH)[ours]:
        labels = split.labels[start : start + EVALUATION_BATCH]
        scores = network(split.images[start : start + EVALUATION_BATCH])
        loss += eager.squared_hinge(scores, labels).double() * len(labels)
        errors += (scores.argmax(1) != labels).sum()
    loss, errors = parallel.total(*torch.stack([loss, errors]).tolist())
    return loss / len(split.images), 100 * errors / len(split.images)


def first_images(split: Images, count: int) -> Images:
    """The first `count` of a split, or all of a smaller one."""
    return Images(split.images[:count], split.labels[:count])
