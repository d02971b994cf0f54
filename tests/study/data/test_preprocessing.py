"""Torch7's preprocessing against float64 NumPy twins that follow the Lua code step by step."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate

from study.data import preprocessing


def pictures(count: int, side: int = 6, seed: int = 0) -> torch.Tensor:
    """(count, 3, side, side) uint8: neighbouring pixels alike, as in photographs."""
    walk = np.random.default_rng(seed).normal(0, 25, (count, 3, side, side)).cumsum(2).cumsum(3)
    return torch.tensor((128 + walk).clip(0, 255).astype(np.uint8))


TRAIN, TEST = pictures(400), pictures(90, seed=1)


def unit(images: torch.Tensor) -> np.ndarray:
    return images.numpy().astype(np.float64) / 255


def whitened_twice(train: np.ndarray, other: np.ndarray) -> np.ndarray:
    """`other` behind dp.ZCA and behind unsup's whitening, one after the other, as in Data.lua."""
    train, other = train.reshape(len(train), -1), other.reshape(len(other), -1)
    for divisor, bias in ((len(train), 0.1), (len(train) - 1, 1e-5)):
        mean = train.mean(0)
        covariance = (train - mean).T @ (train - mean) / divisor
        u, d, _ = np.linalg.svd(covariance)
        matrix = u @ np.diag(1 / np.sqrt(d + bias)) @ u.T
        train, other = (train - mean) @ matrix, (other - mean) @ matrix
    return other


@pytest.mark.parametrize("count", [400, 20], ids=["many", "fewer-than-pixels"])
@pytest.mark.parametrize("other", [TRAIN, TEST], ids=["train", "test"])
def test_two_whitenings_in_one_matrix(count, other):
    mean, matrix = preprocessing.whitening(TRAIN[:count])
    whitened = preprocessing.whiten(other, mean, matrix)
    assert whitened.dtype == torch.float32 and whitened.shape == other.shape
    expected = whitened_twice(unit(TRAIN[:count]), unit(other))
    assert np.allclose(whitened.flatten(1), expected, atol=2e-4 * np.abs(expected).max())


def test_whitened_images_are_white():
    """Of the directions that vary much more than the biases, the covariance is the identity."""
    x = preprocessing.whiten(TRAIN, *preprocessing.whitening(TRAIN)).flatten(1).double().numpy()
    assert np.abs(x.mean(0)).max() < 1e-4
    u, d, _ = np.linalg.svd(np.cov(unit(TRAIN).reshape(400, -1).T))
    loud = x @ u[:, d > 1e-3]
    assert loud.shape[1] > 30
    assert np.allclose(np.cov(loud.T), np.eye(loud.shape[1]), atol=2e-3)


def test_covariance_is_exact_in_any_blocks(monkeypatch):
    whole = preprocessing._covariance(TRAIN)
    x = TRAIN.flatten(1).numpy().astype(np.int64)
    scatter = len(x) * (x.T @ x) - np.outer(x.sum(0), x.sum(0))
    assert np.allclose(whole[1], scatter / (len(x) * 255) ** 2, rtol=0, atol=1e-15)
    monkeypatch.setattr(preprocessing, "BLOCK", 7)
    assert all(map(torch.equal, preprocessing._covariance(TRAIN), whole))


def test_a_full_block_of_extreme_pixels_is_exact():
    images = torch.zeros(preprocessing.BLOCK, 2, dtype=torch.uint8)
    images[::3, 1] = 255
    share = len(images[::3]) / len(images)
    _, covariance = preprocessing._covariance(images)
    assert covariance[0].tolist() == [0, 0] and covariance[1, 0] == 0
    assert covariance[1, 1] == pytest.approx(share * (1 - share), rel=1e-14)


def contrast_twin(images: np.ndarray) -> np.ndarray:
    """dp.GCN, dp.LeCunLCN, over the maximum. The kernel is summed in two dimensions here."""
    mean = images.mean((1, 2, 3), keepdims=True)
    x = (images - mean) / np.sqrt(((images - mean) ** 2).mean((1, 2, 3), keepdims=True) + 10)
    row, column = np.mgrid[-4:5, -4:5]
    kernel = np.exp(-(row**2 + column**2) / (2 * 2.0**2))
    kernel /= kernel.sum()
    result = np.empty_like(x)
    for n, picture in enumerate(x):
        for c, plane in enumerate(picture):
            centred = plane - correlate(plane, kernel, mode="constant")
            spread = np.sqrt(correlate(centred**2, kernel, mode="constant"))
            divisor = np.maximum(np.maximum(spread, spread.mean()), 1e-4)
            result[n, c] = centred / divisor
    return result / result.max()


def test_contrast_twin():
    images = pictures(30, side=14)
    normalized = preprocessing.normalize_contrast(images)
    assert normalized.dtype == torch.float32 and normalized.max() == 1
    assert np.allclose(normalized, contrast_twin(unit(images)), atol=1e-5)


def test_a_faint_picture_is_not_blown_up():
    """Where the spread lies below the threshold, the divisor is the threshold."""
    faint = torch.zeros(1, 1, 12, 12)
    faint[0, 0, 6, 6] = 1e-5
    expected = (faint - preprocessing._blur(faint)) / 1e-4
    assert torch.allclose(preprocessing.local_contrast(faint), expected)
    assert not preprocessing.local_contrast(torch.zeros(1, 1, 12, 12)).any()


def test_blur_of_a_dot_is_the_kernel():
    dot = torch.zeros(13, 11)
    dot[6, 5] = 1
    blurred = preprocessing._blur(dot)
    assert blurred.sum() == pytest.approx(1)
    assert blurred[6, 7] / blurred[6, 5] == pytest.approx(np.exp(-1 / 2))
    assert (blurred > 0).sum() == 81


def test_moments():
    mean, std = preprocessing.moments(TRAIN)
    assert mean == TRAIN.numpy().mean(dtype=np.float64)
    assert std == pytest.approx(TRAIN.numpy().std(ddof=1, dtype=np.float64), rel=1e-13)
    assert preprocessing.moments(TRAIN.float()) == (mean, std)


@pytest.mark.parametrize("block", [1, 7, 64])
def test_blocks_change_nothing_but_rounding(monkeypatch, block):
    fitted = preprocessing.whitening(TRAIN)
    white, sharp = preprocessing.whiten(TEST, *fitted), preprocessing.normalize_contrast(TEST)
    moments = preprocessing.moments(sharp)
    monkeypatch.setattr(preprocessing, "BLOCK", block)
    assert torch.allclose(preprocessing.whiten(TEST, *fitted), white, atol=1e-4)
    assert torch.allclose(preprocessing.normalize_contrast(TEST), sharp, atol=1e-6)
    assert preprocessing.moments(sharp) == pytest.approx(moments, rel=1e-12)


def test_twice_the_same():
    first, second = (preprocessing.whitening(TRAIN) for _ in range(2))
    assert all(map(torch.equal, first, second))
    white = (preprocessing.whiten(TEST, *fitted) for fitted in (first, second))
    assert torch.equal(*white)
    assert torch.equal(*(preprocessing.normalize_contrast(TEST) for _ in range(2)))


def test_nothing_to_fit_is_refused():
    grey = torch.full((5, 3, 6, 6), 77, dtype=torch.uint8)
    for fit in (preprocessing.moments, preprocessing.normalize_contrast):
        with pytest.raises(ValueError, match="no contrast"):
            fit(grey)
    with pytest.raises(ValueError, match="at least two images, got 1"):
        preprocessing.whitening(TRAIN[:1])
