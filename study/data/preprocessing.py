"""Preprocessing of images, as the authors' Torch7 code has it (its Data.lua).

It calls two libraries, cited as dp (nicholas-leonard/dp: zca.lua at 069029d, gcn.lua at 6b23f75,
lecunlcn.lua at 4eda4c8) and unsup (koraykv/unsup). Everything here runs on the CPU, whatever the
training runs on, and goes through the images in blocks: a split may fill much of the memory.
"""

import math

import torch
from torch import Tensor

BLOCK = 1024  # images; up to as many, the sums of `_covariance` are exact
FILTER_BIAS = 0.1  # of the first whitening (dp zca.lua:23)
EPSILON = 1e-5  # of the second (unsup whitening.lua:15)
SQRT_BIAS = 10.0  # of the global contrast (Data.lua:105-111)
KERNEL_SIZE = 9  # pixels
KERNEL_STD = 2.0
THRESHOLD = 1e-4  # of the local one (dp lecunlcn.lua:20-26)


def moments(images: Tensor) -> tuple[float, float]:
    """(mean, standard deviation) of all numbers in images (N, ...) uint8 or float32.

    The sums are float64, so exact for uint8; the variance divides by one less, as Torch7's does.
    Raises ValueError where nothing varies.
    """
    _require_contrast(images)
    count = images.numel()
    total = 0.0
    squares = 0.0
    for block in images.split(BLOCK):
        total += block.double().sum().item()
        squares += block.double().square().sum().item()
    return total / count, math.sqrt((squares - total**2 / count) / (count - 1))


def whitening(images: Tensor) -> tuple[Tensor, Tensor]:
    """images (N, ...) uint8 of D pixels -> the mean (D,) and matrix W (D, D) of `whiten`, float32.

    Two ZCA whitenings, each fitted to what it is given (Data.lua:58-60, 161-180), where C is the
    covariance of x in [0, 1], divided by N, with eigenvectors U and eigenvalues d:
    P_1 = (C + 0.1)^-1/2 (dp zca.lua:36-44, 73-76), then P_2 = (C_2 + 1e-5)^-1/2, where C_2 is the
    covariance of (x - mean) P_1, divided by N - 1 (unsup whitening.lua:15, pca.lua:9). All of them
    share U, so that W = P_1 P_2 needs one decomposition; it is about (C + 1e-6)^-1/2, for the
    second whitening undoes the caution of the first. Raises ValueError below two images.
    """
    if len(images) < 2:
        raise ValueError(f"whitening is fitted to at least two images, got {len(images)}")
    mean, covariance = _covariance(images)
    d, u = torch.linalg.eigh(covariance)
    d = d.clamp(min=0)  # of fewer images than pixels some are 0, but for rounding
    first = (d + FILTER_BIAS).rsqrt()
    variance = d * first.square() * len(images) / (len(images) - 1)
    second = (variance + EPSILON).rsqrt()
    return mean.float(), ((u * first * second) @ u.T).float()


def _covariance(images: Tensor) -> tuple[Tensor, Tensor]:
    """images (N, ...) uint8 -> mean (D,) and covariance (D, D) of x in [0, 1], divided by N.

    Centred on 128, pixels are integers up to 2^7 in size, and the float32 sum of 2^10 products of
    two is an integer up to 2^24: exact, in whatever order it is added up.
    """
    pixels = images[0].numel()
    total = torch.zeros(pixels, dtype=torch.float64)
    products = torch.zeros(pixels, pixels, dtype=torch.float64)
    for block in images.flatten(1).split(BLOCK):
        x = block.float() - 128  # (B, D)
        total += x.sum(0)
        products += x.T @ x
    mean = total / len(images)
    covariance = products / len(images) - mean.outer(mean)
    return (mean + 128) / 255, covariance / 255**2


def whiten(images: Tensor, mean: Tensor, matrix: Tensor) -> Tensor:
    """(x - mean) W, with x in [0, 1]: images (N, ...) uint8 -> float32 of the same shape."""
    whitened = torch.empty(images.shape)
    for block, out in zip(images.split(BLOCK), whitened.split(BLOCK), strict=True):
        x = block.flatten(1) / 255 - mean  # (B, D)
        torch.mm(x, matrix, out=out.view(x.shape))
    return whitened


def normalize_contrast(images: Tensor) -> Tensor:
    """images (N, C, H, W) uint8 -> float32: first by image, then by neighbourhood.

    All is divided by the largest number of the split, so that it ends at 1 (Data.lua:105-111).
    Raises ValueError where nothing varies.
    """
    _require_contrast(images)
    normalized = torch.empty(images.shape)
    for block, out in zip(images.split(BLOCK), normalized.split(BLOCK), strict=True):
        out[:] = local_contrast(global_contrast(block / 255))
    return normalized.div_(normalized.max())


def global_contrast(x: Tensor) -> Tensor:
    """x (N, ...) -> same shape: less its mean, over sqrt(10 + its variance), image by image.

    dp gcn.lua:84-100 with use_std. For x in [0, 1] the 10 outweighs any variance: in effect only
    the mean is subtracted.
    """
    x = x - x.mean(tuple(range(1, x.dim())), keepdim=True)
    return x / (x.square().mean(tuple(range(1, x.dim())), keepdim=True) + SQRT_BIAS).sqrt()


def local_contrast(x: Tensor) -> Tensor:
    """x (N, C, H, W) -> same shape: c = x - blur(x), over s = sqrt(blur(c^2)), channel by channel.

    s is raised to its own mean over the picture where it is less, so that flat parts stay flat, and
    to 1e-4 (dp lecunlcn.lua:131-165).
    """
    centred = x - _blur(x)
    spread = _blur(centred.square()).sqrt()
    floor = spread.mean((-2, -1), keepdim=True).clamp(min=THRESHOLD)
    return centred / spread.maximum(floor)


def _blur(x: Tensor) -> Tensor:
    """x (..., H, W) -> same shape: a 9 x 9 Gaussian of deviation 2 and sum 1, zeros around x."""
    return _band(x.shape[-2]) @ x @ _band(x.shape[-1])


def _band(size: int) -> Tensor:
    """(size, size): a Gaussian that is as wide as the kernel around the diagonal.

    The 2-d Gaussian is a product of two, one along each axis (dp lecunlcn.lua:54-69).
    """
    reach = KERNEL_SIZE // 2
    gauss = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * KERNEL_STD**2))
    places = torch.arange(size)
    distance = places[:, None] - places
    weights = (gauss / gauss.sum())[distance.clamp(-reach, reach) + reach]
    return torch.where(distance.abs() <= reach, weights, 0.0)


def _require_contrast(images: Tensor) -> None:
    if images.min() == images.max():
        raise ValueError("images that are all of one grey have no contrast to normalize")
