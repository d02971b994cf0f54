"""Findings above captions, from numbers made by hand."""

import pandas as pd
import pytest
import torch

from study import measured_captions as captions
from study import randomness


def test_a_ragged_plane_is_noise_and_a_smooth_one_is_not():
    bits = torch.zeros(8, 4, 4)
    bits[0] = torch.arange(4) % 2  # every neighbour to the side differs, none below
    told = captions.planes(bits)
    assert told.startswith("The lower a plane, the more it is noise: 0.0 %")
    assert "50.0 % in the one that counts 1." in told
    assert captions.planes(bits.flip(0)).startswith("No plane is pure noise")


def test_bits_at_their_threshold_are_the_ones_that_can_turn():
    first = torch.tensor([0, 0]), torch.tensor([0, 0])  # reads pixels: left out
    second = torch.tensor([10, 2, -30, 50]), torch.tensor([0, 0, 0, 0])
    told = captions.distances([first, second])
    assert "median one of layers 2 to 2 by 10" in told and "at most 25.0 %" in told


def test_the_label_and_two_highest_scores_are_told():
    told = captions.scores(torch.tensor([0.0, 3.0, 1.0]), 2)
    assert told.startswith(
        "The label is 2. The highest score is 3.00, of class 1; the next is 1.00"
    )


def test_pictures_are_ranked_by_their_error():
    told = captions.pictures({"deterministic": 0.63, "drawn once": 0.8})
    assert told.endswith("0.63 and drawn once 0.80; nearest to the picture is deterministic.")


def test_a_toss_is_nearer_only_where_terms_lean():
    counts = torch.tensor([4**k for k in range(7)])
    rms = {f"{case}: v": randomness.sum_errors(low, counts) for case, low in
           (("even", -1.0), ("leaning", -0.5))}  # fmt: skip
    told = captions.sums(counts.tolist(), rms)
    assert "where terms are even the sign is nearer at every K" in told
    sign, toss = rms["leaning: v"]
    first = next(k for k, a, b in zip(counts.tolist(), sign, toss, strict=True) if b < a)
    assert f"where terms are leaning the toss is nearer from K = {first} on" in told


@pytest.mark.parametrize("low", [-1.0, -0.5])
def test_formulas_of_sums_are_what_sums_of_drawn_terms_scatter_by(low):
    noise, count = torch.Generator().manual_seed(0), 16
    v = low + (1 - low) * torch.rand(20_000, count, generator=noise)
    tossed = randomness.sample_sign(v, noise)
    formulas = randomness.sum_errors(low, torch.tensor([count]))
    for formula, made in zip(formulas, (randomness.sign(v), tossed), strict=True):
        rms = (made - v).mean(1).square().mean().sqrt()
        assert rms == pytest.approx(formula.item(), rel=0.03)


def test_cosines_say_on_which_side_the_cancelled_gradient_lies():
    names = ("expected", "expected, not cancelled")
    found = {1: (0.9, 0.8), 2.5: (0.7, 0.4)}
    rows = [(8, spread, *row) for spread in found for row in zip(names, found[spread], strict=True)]
    frame = pd.DataFrame(rows, columns=["n", "spread", "gradient", "cosine"])
    told = captions.cosines(frame)
    assert "expected 0.90; expected, not cancelled 0.80" in told
    assert "At a deviation of 2.5" in told and "above the uncancelled one by 0.30" in told


def test_steps_below_half_a_distance_are_lost():
    steps = pd.Series([0.1, 0.003, 0.0001], [1, 2, 3])
    told = captions.lost_steps({"ours": steps, "long": steps + 1}, (8, 6))
    assert "for ours with 8 bits from epoch 2 and 6 bits from epoch 2" in told
    assert told.endswith("for long with none of these bits.")


def test_sums_of_gradients_are_told_at_their_end():
    rows = [(4, how, count, error / count) for how, error in (("nearest", 5), ("stochastic", 1))
            for count in (1, 10)]  # fmt: skip
    told = captions.accumulated(
        pd.DataFrame(rows, columns=["bits", "rounding", "batches", "error"])
    )
    assert told.startswith("After 10 batches") and "4 bits 0.5 to nearest and 0.1 at" in told


def test_numbers_that_never_move_are_told_by_their_bits():
    still, moved = torch.zeros(3, 2), torch.arange(6.0).view(3, 2)
    off = [[torch.tensor(0.5), torch.tensor(0.1)], [torch.tensor(0.2), torch.tensor(0.1)]]
    told = captions.stored({4: (still, moved), 8: (moved, moved)}, off)
    assert "never moves with 4 bits or fewer. With 4 bits it ends off by 0.50" in told
    assert "none of these bits" in captions.stored({8: (moved, moved)}, off[1:])


def test_generators_are_told_from_the_fastest_to_the_slowest():
    index = ["sign", "sample_sign", "A, 8 bits", "B, 8 bits"]
    told = captions.generators(pd.DataFrame({"signs": [1.0, 4.0, 2.0, 3.0]}, index))
    assert "fastest draw (A, 8 bits) 2 ns, the slowest (sample_sign) 4 ns" in told
    assert told.endswith("it is 2 to 3 ns, by generator.")


def test_light_that_contrast_normalization_takes_away_is_measured():
    dark, bright = torch.rand(1, 3, 4, 4) / 4, 0.75 + torch.rand(1, 3, 4, 4) / 4
    pair = torch.cat([dark, bright])
    even = pair - pair.mean((1, 2, 3), keepdim=True)
    assert captions.light(pair, even).startswith("Contrast normalization takes most")
    assert captions.light(pair, pair).startswith("Contrast normalization keeps most")


def test_speeds_leave_out_what_was_not_timed():
    told = captions.speeds({"one": [100.0, 20.0, 10.0, 5.0], "two": [100.0, None, None, 5.0]})
    assert "one: the XNOR kernel 10 × and 2 ×, ours 20 × and 4 ×; two: ours 20 ×." in told


def test_the_largest_product_is_told_beside_its_bound():
    speed = pd.DataFrame({"ours": [1.0, 8.0], "bound": [2.0, 10.0]}, [512, 1000])
    library = pd.Series({512: 1.0, 1000: 2.0})  # 2e9 operations in 2 ms: 1e12 a second
    told = captions.sweep("AMD", speed, "bound", library)
    assert told == (
        "On AMD, at N = 1000, ours runs at 80% of the bound, 8 times as fast as the fastest "
        "float32 library."
    )
    assert "bound" not in captions.sweep("AMD", speed[["ours"]], "bound", library)


def test_filters_of_a_network_as_wide_as_the_papers_were_counted():
    shares = {"counted": 47.1, "the paper's width": 48.7, "the paper's width, evened": 52.1}
    assert captions.extrapolated(pd.Series(shares), as_wide=True) == (
        "This network has the paper's widths: 47.1 % are counted, and drawn independently at the "
        "same frequencies 49 to 52 % would differ"
    )
    assert captions.extrapolated(pd.Series(shares), as_wide=False).startswith(
        "Filters as frequent as here would be 49 to 52 % distinct"
    )


def test_the_two_largest_parts_of_the_energy_are_named():
    told = captions.most_energy({"MLP": {"a": 1.0, "b": 6.0, "c": 3.0}}, 100)
    assert told.endswith("100 images at once, most energy goes into: MLP b 60% and c 30%.")


def test_a_search_is_told_with_and_without_skipping():
    times = pd.Series({"ours": 1.0, "ours, nothing skipped": 4.0, "torch": 80.0,
                       "torch, tiles skipped as ours": 20.0})  # fmt: skip
    told = captions.retrieval({"net": {"codes": 90.0}}, times)
    assert "net: 90.0 % by codes." in told
    assert "80 × as fast as torch; when it skips nothing, 20 ×" in told
    assert told.endswith("where both skip the same tiles, 20 ×.")
    assert captions.retrieval({"net": {"codes": 90.0}}, pd.Series(dtype=float)).endswith(
        "The speed was not measured."
    )


def test_where_bits_don_t_lead_their_own_number_stands_beside():
    frame = pd.DataFrame(
        {"numbers": ["bits", "int8"], "file (MB)": [5.0, 40.0], "one image (ms)": [0.1, 2.0],
         "load (s)": [5.2, 1.8]}
    )  # fmt: skip
    told = captions.clients(frame)
    assert "The smallest file is of bits, 5 MB; the quickest image is of bits, 0.1 ms" in told
    assert told.endswith("the quickest start is of int8, 1.8 s (bits: 5.2 s).")


def test_the_last_epoch_of_falling_filters_is_told():
    told = captions.filters_by_epoch(pd.Series([60.0, 50.0, 49.5]), 42)
    assert told.startswith("The mean goes from 60.0 % to 49.5 % in 2 epochs, by -0.50 points")


def test_the_fewest_planes_are_those_that_leave_nearly_all_signs():
    shares = {("MNIST", 1): 4.0, ("MNIST", 2): 0.8, ("MNIST", 8): 0.0}
    assert captions.needed_planes(shares).endswith("the highest 2 bits on MNIST (0.80 %).")


def test_the_pair_that_is_confused_most_is_named():
    told = captions.confusion([[5, 2], [1, 4]], ["cat", "dog"])
    assert told == "3 of 12 test images are misread; most often, 2 times, cat is read as dog."
    assert captions.confusion([[5, 0], [0, 4]], ["cat", "dog"]).startswith("All 9")
