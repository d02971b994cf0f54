"""Draws with few bits: exact probabilities by enumeration, and sources that fill every bit."""

import pytest
import torch

from study import randomness
from study.randomness import Source, drawn_sign

SOURCES = randomness.sources(0)
every_source = pytest.mark.parametrize("source", SOURCES, ids=randomness._name)


def chances(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Share of +1 over all numbers of this dtype, for each x (N,) -> (N,)."""
    limits = torch.iinfo(dtype)
    numbers = torch.arange(limits.min, limits.max + 1).to(dtype)
    columns = x.expand(len(numbers), -1)
    return (drawn_sign(columns, numbers[:, None].expand_as(columns)) > 0).double().mean(0)


@pytest.mark.parametrize(("dtype", "bits"), [(torch.int8, 8), (torch.int16, 16)])
def test_probabilities_are_the_hard_sigmoids_to_half_a_step(dtype, bits):
    x = torch.linspace(-1.25, 1.25, 101)
    wanted = ((x.double() + 1) / 2).clamp(0, 1)
    found = chances(x, dtype)
    assert (found - wanted).abs().max() <= 2.0 ** -(bits + 1) + 1e-7
    certain = x.abs() >= 1
    assert torch.equal(found[certain], wanted[certain])


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16])
def test_zero_is_fair(dtype):
    assert chances(torch.tensor([0.0, -0.0]), dtype).tolist() == [0.5, 0.5]


def test_float_numbers_are_compared_with_the_hard_sigmoid():
    x = torch.tensor([-1.0, -1.0, 0.0, 0.0, 1.0, 1.0, 3.0])
    almost = 1 - 2.0**-24
    numbers = torch.tensor([0.0, almost, 0.25, 0.5, 0.0, almost, almost])
    assert drawn_sign(x, numbers).tolist() == [-1, -1, 1, -1, 1, 1, 1]


@every_source
def test_numbers_are_as_many_as_asked_and_use_all_bits(source: Source):
    numbers = source.numbers(4099)
    assert numbers.shape == (4099,)
    if source.bits == randomness.FLOAT_BITS:
        assert numbers.dtype == torch.float32
        assert 0 <= numbers.min() < 0.01 and 0.99 < numbers.max() < 1
        return
    assert numbers.dtype == randomness.INTEGERS[source.bits]
    places = torch.arange(source.bits)
    shares = ((numbers.long()[:, None] >> places) & 1).double().mean(0)  # of ones, by place
    assert (shares - 0.5).abs().max() < 5 * 0.5 / 4099**0.5


@every_source
def test_draws_go_on_and_are_a_function_of_the_seed(source: Source):
    place = SOURCES.index(source)
    again, same = (randomness.sources(7)[place] for _ in range(2))
    first = again.numbers(64)
    assert torch.equal(first, same.numbers(64))
    assert not torch.equal(first, again.numbers(64))


def test_costs_have_a_row_for_each_way_and_no_bias():
    x = 2 * torch.rand(64, 256, generator=torch.Generator().manual_seed(1)) - 1
    rows = randomness.costs(x, 0, 0.001)
    ways = [(row["implementation"], row["output"]) for row in rows]
    assert ways[:3] == [("sign", "signs"), ("sample_sign", "signs"), ("torch.bernoulli", "signs")]
    assert len(ways) == len(set(ways)) == 3 + 2 * len(SOURCES)
    drawn = [row["off"] for row in rows if row["output"] == "signs"][1:]
    assert max(map(abs, drawn)) < 5 / x.numel() ** 0.5
