"""Applying each distinct filter once a map, against convolutions."""

import pytest
import torch
import torch.nn.functional as F

from study import shared_filters
from study.train.analysis import unique_filters


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Signs, float32."""
    bits = torch.randint(2, shape, generator=torch.Generator().manual_seed(seed))
    return 2.0 * bits - 1


def repetitive() -> torch.Tensor:
    """Filters (40, 11, 3, 3) of which many repeat others, or are their inverses."""
    weight = drawn(40, 11, 3, 3)
    weight[10:20], weight[20:30] = weight[:10], -weight[:10]
    return weight


@pytest.mark.parametrize("merged", [True, False])
def test_each_distinct_filter_once_is_the_convolution(merged):
    weight, x = repetitive(), drawn(2, 11, 5, 7)
    sums, applied = shared_filters.reference_conv2d(x, weight, merged)
    assert torch.equal(sums, F.conv2d(x, weight, padding=1))
    assert applied == unique_filters(weight)["per_map_merged" if merged else "per_map"]


@pytest.mark.parametrize("shape", [(2, 11, 5, 7), (1, 8, 1, 1), (3, 1, 20, 20), (1, 24, 16, 16)])
@pytest.mark.parametrize("shared", [True, False])
def test_the_fast_one_is_exact(shape, shared):
    x = drawn(*shape, seed=1)
    weight = repetitive()[:, :1].expand(-1, shape[1], -1, -1) * drawn(40, shape[1], 1, 1)
    sums = shared_filters.conv2d(x.to(torch.int8), shared_filters.plan(weight, shared))
    assert torch.equal(sums, F.conv2d(x, weight, padding=1).to(torch.int32))


def test_bytes_that_are_summed_together_do_not_overflow():
    weight = torch.ones(3, 300, 3, 3)
    weight[1] = -1
    x = torch.ones(1, 300, 4, 4)
    sums = shared_filters.conv2d(x.to(torch.int8), shared_filters.plan(weight))
    assert torch.equal(sums, F.conv2d(x, weight, padding=1).to(torch.int32))


def test_zeros_among_the_signs_count_nothing():
    x, weight = drawn(1, 9, 6, 6), repetitive()[:, :9]
    x[:, :, 2] = 0
    sums = shared_filters.conv2d(x.to(torch.int8), shared_filters.plan(weight))
    assert torch.equal(sums, F.conv2d(x, weight, padding=1).to(torch.int32))


def test_a_plan_applies_each_distinct_filter_of_a_map_once():
    weight = repetitive()
    assert shared_filters.plan(weight).counts.sum() == unique_filters(weight)["per_map_merged"]
    assert shared_filters.plan(weight, shared=False).counts.sum() == 40 * 11


def test_other_numbers_and_other_maps_are_refused():
    plan = shared_filters.plan(repetitive())
    with pytest.raises(ValueError, match="values -1, 0 and .*, not torch.int8 from 2 to 2$"):
        shared_filters.conv2d(torch.full((1, 11, 4, 4), 2, dtype=torch.int8), plan)
    with pytest.raises(ValueError, match="from -128 to -128$"):  # whose size no int8 holds
        shared_filters.conv2d(torch.full((1, 11, 4, 4), -128, dtype=torch.int8), plan)
    with pytest.raises(ValueError, match="int8"):
        shared_filters.conv2d(torch.ones(1, 11, 4, 4), plan)
    with pytest.raises(ValueError, match="11 maps"):
        shared_filters.conv2d(torch.ones(1, 12, 4, 4, dtype=torch.int8), plan)


def test_a_race_is_run_by_sides_that_agree():
    found = shared_filters.race(repetitive(), drawn(2, 11, 6, 6), seconds=0.001)
    assert found["equal"] and found["repeats"] >= 1
    sides = (shared_filters.PACKED, shared_filters.EVERY, shared_filters.DISTINCT)
    assert min(found[side] for side in sides) > 0
