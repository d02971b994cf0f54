import numpy as np
import torch

from study.train.analysis import filter_codes, sign_flips, unique_filters


def counted_in_python(weight):
    """The four counts by brute force over tuples of signs."""
    signs = np.where(weight.numpy() >= 0, 1, -1)
    exact = lambda kernel: tuple(kernel.ravel())  # noqa: E731
    merged = lambda kernel: min(exact(kernel), exact(-kernel))  # noqa: E731
    outputs, inputs = signs.shape[:2]
    counts = {"total": outputs * inputs}
    for suffix, key in (("", exact), ("_merged", merged)):
        maps = [{key(signs[o, i]) for o in range(outputs)} for i in range(inputs)]
        counts["pooled" + suffix] = len(set().union(*maps))
        counts["per_map" + suffix] = sum(len(distinct) for distinct in maps)
    return counts


def test_counts_equal_brute_force():
    weight = torch.randn(40, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    weight[:20, :, 1:] = 1.0  # so that filters repeat
    weight[20:30] = -weight[:10]
    assert unique_filters(weight) == counted_in_python(weight)


def test_zero_counts_as_plus_one():
    weight = torch.zeros(2, 1, 3, 3)
    weight[0, 0, 0, 0] = -0.0
    assert filter_codes(weight).tolist() == [[511], [511]]


def test_an_inverse_filter_is_a_repetition_only_when_merged():
    weight = torch.ones(2, 1, 3, 3)
    weight[1] = -1
    counts = unique_filters(weight)
    assert (counts["per_map"], counts["per_map_merged"]) == (2, 1)


def test_a_flip_is_a_sign_that_differs():
    before = {"1": torch.tensor([True, True, False, False])}
    after = {"1": torch.tensor([True, False, False, False])}
    assert sign_flips(before, after) == {"1": 0.25}
