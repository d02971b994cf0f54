"""Looking images up by what a network's last hidden layer makes of them: signs, or real numbers.

A code is the layer's signs, packed in words; the real values are the normalized sums that these are
the signs of. Codes are compared by Hamming distance, real values by their cosine.
"""

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnlib.folding import blocks
from bnnlib.kernels.cpu import hamming_codes, hamming_search
from bnnlib.kernels.cpu.hamming_codes import Codes
from bnnlib.kernels.cpu.xnor_product import BITS_UNTIL_OVERFLOW
from bnnlib.kernels.reference import words_for
from bnnlib.packed import pack
from bnnlib.xnor import pack_weights, unpack_signs, xnor_matmul
from study.data import Dataset
from study.train import progress

# What rankings are made by
CODES, FLOAT_SIGNS = "codes, Hamming distance", "the same signs as float32, product"
REALS, PIXELS = "real values, cosine", "pixels, cosine"
CHUNK = 2000  # images or codes that are held as real numbers at once
QUERIES = 64  # whose rankings are held at once
MOST_BITS = torch.iinfo(torch.int16).max  # of codes whose distances are held as int16


@torch.no_grad()
def encode(model: nn.Sequential, images: Tensor) -> tuple[Tensor, Iterator[Tensor]]:
    """Images (B, ...) uint8 -> what the last hidden layer makes of them: its codes (B, words), and
    the real values (b, units) float32 that they are the signs of, some images at a time.

    Real values are normalized sums, and sums are exact. Two hidden layers or more are needed.
    """
    network, last = pack(model), blocks(model)[-2]
    parts = [list(network.hidden(some))[-2:] for some in images.split(CHUNK)]
    weights = pack_weights(last.signs)
    reals = (last.real(xnor_matmul(before, weights)) for before, _ in parts)
    return torch.cat([codes for _, codes in parts]), reals


def index(codes: Tensor, bits: int) -> Codes:
    """codes (N, words of bits) int64, N >= 1, as `xnor.pack_signs` makes them -> to search in.

    Raises ValueError, naming both values, for codes of another shape, or with too many bits.
    """
    if not 1 <= bits <= BITS_UNTIL_OVERFLOW:
        raise ValueError(f"codes may have 1 to {BITS_UNTIL_OVERFLOW} bits, not {bits}")
    _check(codes, bits)
    if not len(codes):
        raise ValueError("there must be at least 1 code to search in, not 0")
    return hamming_codes.pack(codes, bits)


def search(queries: Tensor, codes: Codes, k: int) -> tuple[Tensor, Tensor]:
    """queries (Q, words of the bits) int64 -> the k nearest codes by Hamming distance, exactly.

    Returns distances (Q, k) int32 and places (Q, k) int64, nearest first, of equals the lowest
    place first. Raises ValueError, naming both values, where k or the queries don't fit the codes.
    """
    if not 1 <= k <= len(codes.words):
        raise ValueError(f"k must be 1 to the number of codes, {len(codes.words)}, not {k}")
    _check(queries, codes.bits)
    return hamming_search.search(queries, codes, k)


def _check(codes: Tensor, bits: int) -> None:
    if codes.dtype != torch.int64 or codes.device.type != "cpu":
        raise ValueError(f"codes must be int64 on cpu, not {codes.dtype} on {codes.device}")
    if codes.dim() != 2 or codes.shape[1] != words_for(bits):
        raise ValueError(
            f"codes of {bits} bits must be (N, {words_for(bits)}), but are {tuple(codes.shape)}"
        )


def hamming(queries: Tensor, codes: Tensor, bits: int) -> Tensor:
    """All distances (Q, N) int16, of words (Q, .) from words (N, .): for whole rankings.

    Raises ValueError for more bits than int16 counts.
    """
    _require_countable(bits)
    weights = pack_weights(unpack_signs(queries, bits))
    parts = [(bits - xnor_matmul(some, weights)) >> 1 for some in codes.split(CHUNK)]
    return torch.cat([part.short().t() for part in parts], 1)


def sign_products(queries: Tensor, codes: Tensor, bits: int) -> Tensor:
    """Products (Q, N) int16 of the signs as float32: how a float search ranks the same codes.

    They are whole numbers, and are sorted faster as such. Raises ValueError as `hamming` does.
    """
    _require_countable(bits)
    left = unpack_signs(queries, bits).float()
    parts = [left @ unpack_signs(some, bits).float().t() for some in codes.split(CHUNK)]
    return torch.cat([part.short() for part in parts], 1)


def _require_countable(bits: int) -> None:
    if bits > MOST_BITS:
        raise ValueError(f"codes that are ranked whole may have {MOST_BITS} bits, not {bits}")


def cosines(queries: Tensor, values: Iterable[Tensor]) -> Tensor:
    """queries (Q, units) against values (N, units), some at a time -> cosines (Q, N) float32."""
    unit = F.normalize(queries)
    return torch.cat([unit @ F.normalize(some).t() for some in values], 1)


def compare_rankings(
    model: nn.Sequential, images: Dataset, queries: int, database: int
) -> dict[str, Tensor]:
    """Average precisions (Q,) of the first test images among the first training images, so many of
    each, by what is compared. Relevant are images of the same class. model: reads uint8 pixels.
    """
    bits = blocks(model)[-2].signs.shape[0]
    asked = torch.from_numpy(images.test_images[:queries])
    searched = torch.from_numpy(images.train_images[:database])
    relevant = _same_class(images, queries, database)
    (query_codes, query_reals), (codes, reals) = encode(model, asked), encode(model, searched)
    rankings = {
        CODES: hamming(query_codes, codes, bits),
        FLOAT_SIGNS: -sign_products(query_codes, codes, bits),
        REALS: -cosines(torch.cat(list(query_reals)), reals),
    }
    return {name: ranked_precisions(part, relevant) for name, part in rankings.items()}


def rank_pixels(images: Dataset, queries: int, database: int) -> dict[str, Tensor]:
    """Average precisions (Q,), as `compare_rankings` has them, by the pixels: without a network."""
    asked, searched = images.test_images[:queries], images.train_images[:database]
    pixels = [torch.from_numpy(part).flatten(1).float() for part in (asked, searched)]
    distances = -cosines(pixels[0], [pixels[1]])
    return {PIXELS: ranked_precisions(distances, _same_class(images, queries, database))}


def _same_class(images: Dataset, queries: int, database: int) -> Tensor:
    """(Q, N) bool: whether a test image and a training image have one class."""
    return torch.from_numpy(images.test_labels[:queries, None] == images.train_labels[:database])


def ranked_precisions(distances: Tensor, relevant: Tensor) -> Tensor:
    """Average precisions (Q,) of rankings by distances (Q, N), of equals the lowest place first.

    relevant (Q, N) bool. Their mean is the mean average precision (mAP).
    """
    parts = list(zip(distances.split(QUERIES), relevant.split(QUERIES), strict=True))
    ranked = progress.steps(parts, "ranking")
    return torch.cat([average_precisions(right.gather(1, _order(part))) for part, right in ranked])


def _order(distances: Tensor) -> Tensor:
    """The places (Q, N) of distances, smallest first; NumPy sorts int16 by its digits."""
    if distances.dtype == torch.int16:
        return torch.from_numpy(distances.numpy().argsort(1, kind="stable"))
    return distances.argsort(dim=1, stable=True)


def average_precisions(relevant: Tensor) -> Tensor:
    """relevant (Q, N) bool, best-ranked first -> (Q,) float64: of each query the mean, over its
    relevant items, of the share of relevant ones down to there; 0 where there are none.
    """
    query, place = relevant.nonzero(as_tuple=True)
    number = relevant.sum(1)
    before = (number.cumsum(0) - number)[query]  # relevant items of other queries
    precision = (torch.arange(len(query)) - before + 1).double() / (place + 1)
    sums = torch.zeros(len(relevant), dtype=torch.float64).index_add_(0, query, precision)
    return sums / number.clamp(min=1)
