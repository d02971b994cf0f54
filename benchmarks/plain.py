"""The two full-size networks of the paper written plainly in PyTorch float32, for comparison.

What one would write first: signs as float tensors with a straight-through gradient, library layers,
library Adam with a rate for each layer, latent weights clamped after the step. Same sizes, loss,
batch norm constants and update multipliers as the recipes; it shares no code with bnnlib.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Sign(torch.autograd.Function):
    """+1 where x >= 0, else -1; the gradient passes where |x| <= 1."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * (x.abs() <= 1)


class Activation(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Sign.apply(x)


class Linear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, Sign.apply(self.weight), self.bias)


class Conv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, Sign.apply(self.weight), self.bias, padding=1)


def mlp() -> nn.Sequential:
    """784 - 3 x 4096 - 10, dropout 0.2 and 0.5."""
    layers: list[nn.Module] = [nn.Flatten(), nn.Dropout(0.2)]
    for fan_in in (784, 4096, 4096):
        layers += [Linear(fan_in, 4096), nn.BatchNorm1d(4096, eps=1e-4), Activation()]
        layers.append(nn.Dropout(0.5))
    return nn.Sequential(*layers, Linear(4096, 10), nn.BatchNorm1d(10, eps=1e-4))


def convnet() -> nn.Sequential:
    """2 x 128C3 - MP2 - 2 x 256C3 - MP2 - 2 x 512C3 - MP2 - 2 x 1024 - 10."""
    layers: list[nn.Module] = []
    for channels, width in ((3, 128), (128, 256), (256, 512)):
        norms = [nn.BatchNorm2d(width, eps=1e-4) for _ in range(2)]
        layers += [Conv2d(channels, width, 3, padding=1), norms[0], Activation()]
        layers += [Conv2d(width, width, 3, padding=1), nn.MaxPool2d(2), norms[1], Activation()]
    layers.append(nn.Flatten())
    for fan_in in (8192, 1024):
        layers += [Linear(fan_in, 1024), nn.BatchNorm1d(1024, eps=1e-4), Activation()]
    return nn.Sequential(*layers, Linear(1024, 10), nn.BatchNorm1d(10, eps=1e-4))


def adam(network: nn.Module, learning_rate: float) -> torch.optim.Adam:
    """Library Adam; each binary layer's rate times 1 / sqrt(1.5 / (fan in + fan out))."""
    groups = []
    for layer in network.modules():
        if isinstance(layer, Linear | Conv2d):
            nn.init.uniform_(layer.weight, -1, 1)
            area = layer.weight[0, 0].numel()
            fans = area * (layer.weight.shape[0] + layer.weight.shape[1])
            groups.append({"params": [layer.weight], "lr": learning_rate * (fans / 1.5) ** 0.5})
    scaled = {id(group["params"][0]) for group in groups}
    rest = [p for p in network.parameters() if id(p) not in scaled]
    return torch.optim.Adam([*groups, {"params": rest}], learning_rate)


def step(network: nn.Module, optimizer: torch.optim.Adam, images: Tensor, labels: Tensor) -> Tensor:
    """One training step on uint8 images; returns the squared hinge loss."""
    optimizer.zero_grad()
    targets = 2 * F.one_hot(labels, 10) - 1
    loss = (1 - targets * network(images * (2 / 255) - 1)).clamp(min=0).square().mean()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, Linear | Conv2d):
                layer.weight.clamp_(-1, 1)
    return loss.detach()
