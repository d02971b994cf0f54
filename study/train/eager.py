"""One step of training: the loss, its gradients, the update. Determines a run's numbers."""

import torch.nn.functional as F
from torch import Tensor, nn

from bnnlib import optim, parallel


def squared_hinge(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean over batch and classes of max(0, 1 - t s)^2, t = +1 for the label's class, -1 elsewhere.

    scores: (B, 10), labels: (B,). The paper's "L2-SVM" loss (mnist.py:175).
    """
    margins = 1 - scores * (2 * F.one_hot(labels, scores.shape[1]) - 1)
    return margins.clamp(min=0).square().mean()


def gradients(
    network: nn.Module, optimizer: optim.Optimizer, images: Tensor, labels: Tensor
) -> Tensor:
    """Forward and backward: fill the parameters' gradients. Returns the loss, detached."""
    optimizer.zero_grad()
    loss = squared_hinge(network(images), labels)
    loss.backward()
    return loss.detach()


def step(network: nn.Module, optimizer: optim.Optimizer, images: Tensor, labels: Tensor) -> Tensor:
    """Algorithm 1 of the paper once: forward, backward, update, clip. Returns the batch's loss.

    images, labels: this process's rows of the batch; loss and gradients are the whole batch's.
    """
    loss = gradients(network, optimizer, images, labels)
    parallel.average_([loss, *(parameter.grad for parameter in optimizer.parameters())])
    optimizer.step()
    return loss
