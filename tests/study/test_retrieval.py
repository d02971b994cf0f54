"""Hamming search finds what sorting all distances finds, ties included; mAP is what it is said."""

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_networks import images, random_network

from benchmarks import bench_retrieval
from bnnlib import folding
from bnnlib.kernels.cpu import hamming_search, packing
from bnnlib.layers import Normalization
from bnnlib.xnor import pack_signs, unpack_signs
from study import data, retrieval
from study.train import runs


def near_each_other(count: int, bits: int, flips: float, seed: int) -> torch.Tensor:
    """Codes around three centres, each bit flipped with this probability: tiles are skipped."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(3, bits, generator=torch.Generator().manual_seed(9))
    own = centres[torch.randint(0, 3, (count,), generator=generator)]
    flipped = torch.rand(count, bits, generator=generator) < flips
    return pack_signs(torch.where(flipped, -own, own))


def check(queries: torch.Tensor, words: torch.Tensor, bits: int, k: int) -> None:
    codes = retrieval.index(words, bits)
    found = retrieval.search(queries, codes, k)
    wanted = hamming_search.reference(queries, codes, k)
    for own, other in zip(found, wanted, strict=True):
        assert own.dtype == other.dtype and torch.equal(own, other)


SIZES = st.tuples(st.integers(0, 60), st.integers(1, 700), st.integers(1, 300))


@given(SIZES, st.floats(0, 1), st.floats(0, 0.5))
def test_search_equals_the_reference(sizes, share, flips):
    count, codes, bits = sizes
    k = max(1, round(share * codes))
    check(near_each_other(count, bits, flips, 0), near_each_other(codes, bits, flips, 1), bits, k)


@pytest.mark.parametrize("looks_up", [True, False])
@pytest.mark.parametrize(("codes", "bits", "k"), [(1, 1, 1), (129, 64, 129), (600, 1000, 9)])
def test_both_layouts(monkeypatch, looks_up, codes, bits, k):
    monkeypatch.setattr(packing, "looks_up", lambda planes=False: looks_up)
    check(near_each_other(50, bits, 0.1, 0), near_each_other(codes, bits, 0.1, 1), bits, k)


def test_more_queries_than_go_together_on_all_threads():
    queries = near_each_other(2 * hamming_search.QUERIES_PER_PASS + 1, 200, 0.1, 0)
    check(queries, near_each_other(900, 200, 0.1, 1), 200, 7)


def test_of_equal_codes_the_first_are_found():
    words = near_each_other(1, 100, 0, 0).expand(1000, -1)
    distances, places = retrieval.search(words[:2], retrieval.index(words, 100), 300)
    assert not distances.any() and torch.equal(places, torch.arange(300).expand(2, -1))


def test_far_tiles_are_skipped_and_no_needed_one(monkeypatch):
    words = near_each_other(1200, 512, 0.02, 1)
    codes = retrieval.index(words, 512)
    assert codes.radii.sort().values[:6].max() < 60  # of tiles within a centre's codes
    assert sorted(codes.places.tolist()) == list(range(1200))
    check(near_each_other(70, 512, 0.3, 0), words, 512, 20)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda words, codes: retrieval.search(words, codes, 6), "5, not 6"),
        (lambda words, codes: retrieval.search(words, codes, 0), "5, not 0"),
        (lambda words, codes: retrieval.search(words[:, :1], codes, 1), r"\(N, 2\).*\(5, 1\)"),
        (lambda words, codes: retrieval.search(words.int(), codes, 1), "int64.*int32"),
        (lambda words, codes: retrieval.index(words, 64), r"\(N, 1\).*\(5, 2\)"),
        (lambda words, codes: retrieval.index(words, 65473), "65472.*65473"),
        (lambda words, codes: retrieval.index(words[:0], 100), "at least 1.*0"),
    ],
)
def test_what_does_not_fit_is_refused(call, said):
    words = near_each_other(5, 100, 0.2, 0)
    with pytest.raises(ValueError, match=said):
        call(words, retrieval.index(words, 100))


def test_all_distances():
    queries, words = near_each_other(4, 130, 0.3, 0), near_each_other(2300, 130, 0.3, 1)
    distances = retrieval.hamming(queries, words, 130)
    left, right = unpack_signs(queries, 130), unpack_signs(words, 130)
    assert torch.equal(distances, (left[:, None] != right).sum(2))
    products = retrieval.sign_products(queries, words, 130)
    assert torch.equal(products, 130 - 2 * distances)


@pytest.mark.parametrize("ranked", [retrieval.hamming, retrieval.sign_products])
def test_whole_rankings_count_in_sixteen_bits_or_refuse(ranked):
    most = retrieval.MOST_BITS
    ones, zeros = (fill(1, most // 64 + 1, dtype=torch.int64) for fill in (torch.ones, torch.zeros))
    far = pack_signs(torch.ones(1, most)), pack_signs(-torch.ones(1, most))
    assert abs(ranked(*far, most).item()) == most
    with pytest.raises(ValueError, match=f"{most} bits, not {most + 1}"):
        ranked(ones, zeros, most + 1)


@pytest.mark.parametrize("network", ["mlp", "convnet"])
def test_codes_are_the_signs_of_the_real_values(monkeypatch, network):
    monkeypatch.setattr(retrieval, "CHUNK", 4)
    model = random_network(network, (70, 40) if network == "mlp" else (4, 5), Normalization.EXACT)
    pixels = images(model, 9)
    codes, reals = retrieval.encode(model, pixels)
    *_, signs, _ = folding.reference(model, pixels)
    assert torch.equal(unpack_signs(codes, 40).float(), signs)
    parts = list(reals)
    assert [len(part) for part in parts] == [4, 4, 1]
    values = torch.cat(parts)
    assert torch.equal(torch.where(values >= 0, 1.0, -1.0), signs)
    cosines = retrieval.cosines(values[:3], parts)
    assert torch.allclose(cosines, torch.cosine_similarity(values[:3, None], values, dim=2))


def test_average_precision_of_a_case_worked_by_hand():
    ranked = torch.tensor([[1, 0, 1, 0], [0, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]]).bool()
    wanted = [(1 + 2 / 3) / 2, (1 / 2 + 2 / 3 + 3 / 4) / 3, 0, 1]
    assert retrieval.average_precisions(ranked).tolist() == pytest.approx(wanted, abs=1e-15)


@given(st.integers(1, 40), st.integers(0, 10**6))
def test_rankings_take_the_lowest_place_of_equals(count, seed):
    generator = torch.Generator().manual_seed(seed)
    distances = torch.randint(0, 4, (70, count), generator=generator, dtype=torch.int32)
    relevant = torch.rand(70, count, generator=generator) < 0.4
    found = retrieval.ranked_precisions(distances, relevant)
    assert torch.equal(found, retrieval.ranked_precisions(distances.short(), relevant))
    for row, right, own in zip(distances.tolist(), relevant.tolist(), found.tolist(), strict=True):
        order = sorted(range(count), key=lambda i: (row[i], i))
        places = [at for at, i in enumerate(order, 1) if right[i]]
        precisions = [hit / at for hit, at in enumerate(places, 1)]
        assert own == pytest.approx(sum(precisions) / max(1, len(places)), abs=1e-12)


def test_the_benchmark_compares_every_side_with_the_reference(monkeypatch, capsys):
    monkeypatch.setattr(bench_retrieval, "BATCHES", (21, 1))
    words, queries = near_each_other(700, 130, 0.1, 1), near_each_other(21, 130, 0.1, 0)
    found = bench_retrieval.measure(words, queries, 130, 0.0)
    sides = {row["implementation"] for row in found["rows"]}
    assert sides >= {"ours", "ours, nothing skipped", "torch float32", "NumPy float32"}
    assert any("skipped as ours" in side for side in sides)
    assert all(row["exact"] for row in found["rows"])
    assert {row["what"] for row in found["rows"]} == {"21 queries", "1 queries"}
    assert found["bytes"]["float32"] == 700 * 130 * 4
    assert "ours, nothing skipped" in capsys.readouterr().out


def test_the_benchmark_notices_what_is_not_exact():
    words, queries = near_each_other(300, 130, 0.1, 1), near_each_other(5, 130, 0.1, 0)
    codes = retrieval.index(words, 130)
    wanted = bench_retrieval.reference(queries, codes)
    signs, x = unpack_signs(words, 130).float(), unpack_signs(queries, 130).float()
    products, places = (x @ signs.t()).topk(bench_retrieval.TOP)
    assert bench_retrieval.exact(wanted, wanted, x, signs)
    assert bench_retrieval.exact((products, places), wanted, x, signs)
    assert not bench_retrieval.exact((wanted[0] + 1, wanted[1]), wanted, x, signs)
    assert not bench_retrieval.exact((wanted[0], wanted[1] + 1), wanted, x, signs)
    assert not bench_retrieval.exact((products + 2, places), wanted, x, signs)
    assert not bench_retrieval.exact((products, places.flip(1)), wanted, x, signs)
    doubled = places[:, :1].expand(-1, bench_retrieval.TOP)
    assert not bench_retrieval.exact((products, doubled), wanted, x, signs)


def test_the_committed_benchmark_is_of_the_committed_network():
    record = runs.read_record(bench_retrieval.PATH)
    assert record["network"] == bench_retrieval.NETWORK.stem
    assert record["network_sha256"] == bench_retrieval.network_hash(bench_retrieval.NETWORK)


def test_rankings_of_a_network_are_compared():
    model = random_network("mlp", (70, 40), Normalization.EXACT)
    own = data.stand_in("mnist", train=200, test=30)
    found = retrieval.compare_rankings(model, own, 20, 200)
    assert set(map(len, found.values())) == {20}
    assert torch.equal(found[retrieval.CODES], found[retrieval.FLOAT_SIGNS])
    assert not torch.equal(found[retrieval.CODES], found[retrieval.REALS])
    flat = torch.from_numpy(own.train_images).flatten(1).double()
    query = torch.from_numpy(own.test_images[3]).flatten().double()
    order = torch.cosine_similarity(query, flat).argsort(descending=True)
    relevant = torch.from_numpy(own.train_labels == own.test_labels[3])[order]
    wanted = retrieval.average_precisions(relevant[None])
    by_pixels = retrieval.rank_pixels(own, 20, 200)[retrieval.PIXELS]
    assert by_pixels[3] == pytest.approx(wanted.item(), abs=1e-3)


def test_words_on_a_network_s_training_do_not_make_it_another_network(tmp_path):
    weights, words = {"bias": torch.zeros(3)}, {"shape": "{}"}
    plain, told, other = (tmp_path / name for name in ("plain", "told", "other"))
    safetensors.torch.save_file(weights, plain, words)
    safetensors.torch.save_file(weights, told, words | {"trained_on": "digits"})
    safetensors.torch.save_file({"bias": torch.ones(3)}, other, words)
    hashes = [bench_retrieval.network_hash(path) for path in (plain, told, other)]
    assert hashes[0] == hashes[1] != hashes[2]
