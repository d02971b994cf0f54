"""Convolutions with 3x3 signs that apply each distinct filter once a map, and what that gains.

An inverse counts as the same filter, its response negated. `filters` counts how many there are.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from torch import Tensor

from bnnlib.kernels.cpu import up
from bnnlib.kernels.cpu.parallel_for import in_parts
from bnnlib.xnor import pack_signs, pack_weights, xnor_conv2d
from study.bench.timing import Implementation, compare
from study.filters import signs_of
from study.train.analysis import FILTER_BITS, filter_codes, merge_inverses

TOGETHER = 8  # maps whose responses are added up in bytes: 8 x 9 fits one
MOST_MAPS = np.iinfo(np.int16).max // FILTER_BITS  # whose sums an int16 holds
BLOCK = 256  # positions that `conv2d` works on at a time
EVERY, DISTINCT, PACKED = "every filter, map by map", "distinct filters, map by map", "packed"


def reference_conv2d(x: Tensor, weight: Tensor, merged: bool = True) -> tuple[Tensor, int]:
    """Each distinct filter once a map, in plain torch -> (sums, applications of a filter to a map).

    x: (B, C, H, W) real; weight: (N, C, 3, 3); sums: (B, N, H, W) in x's type, as of
    conv2d(x, sign(weight), padding=1).
    """
    codes = filter_codes(weight)
    kinds = merge_inverses(codes) if merged else codes
    inverted = torch.where(codes == kinds, 1, -1).to(x.dtype)
    sums, applied = x.new_zeros(len(x), len(weight), *x.shape[2:]), 0
    for channel in range(x.shape[1]):
        distinct, places = kinds[:, channel].unique(return_inverse=True)
        filters = signs_of(distinct)[:, None].to(x.dtype)
        responses = F.conv2d(x[:, channel : channel + 1], filters, padding=1)
        sums += inverted[:, channel, None, None] * responses[:, places]
        applied += len(distinct)
    return sums, applied


@dataclass(frozen=True, eq=False)
class Plan:
    """What to apply to each map, and where each sum finds its parts; maps in whole groups."""

    filters: np.ndarray  # (C, most of a map) codes
    counts: np.ndarray  # (C,) filters applied to a map; 0 for maps that only fill the last group
    places: np.ndarray  # (N, C): 2 i, or 2 i + 1 for the inverse, of a map's filter i
    maps: int


def plan(weight: Tensor, shared: bool = True) -> Plan:
    """For weight (N, C, 3, 3). shared: each distinct filter of a map once, inverses merged; else
    every filter, repeated or not."""
    codes = filter_codes(weight)
    kinds, (outputs, maps) = merge_inverses(codes), codes.shape
    width = up(maps, TOGETHER)
    filters, places = np.zeros((width, outputs), np.int64), np.zeros((outputs, width), np.int64)
    counts = np.zeros(width, np.int64)
    for channel, column in enumerate(kinds.T):
        used, place = column, torch.arange(outputs)
        if shared:
            used, place = column.unique(return_inverse=True)
        counts[channel] = len(used)
        filters[channel, : len(used)] = used
        places[:, channel] = 2 * place + (codes[:, channel] != column)
    return Plan(np.ascontiguousarray(filters[:, : counts.max()]), counts, places, maps)


def conv2d(x: Tensor, plan: Plan) -> Tensor:
    """x (B, C, H, W) int8 in {-1, 0, +1} -> (B, N, H, W) int32: what `reference_conv2d` sums, fast.

    On all threads that torch may use. Raises ValueError for other numbers or another count of maps.
    """
    batch, maps, height, width = x.shape
    if x.dtype != torch.int8 or x.abs().amax() > 1:
        largest = x.abs().amax()
        raise ValueError(f"x must be int8 with values -1, 0 and +1, not {x.dtype} up to {largest}")
    if maps != plan.maps or maps > MOST_MAPS:
        raise ValueError(
            f"the filters are for {plan.maps} maps of at most {MOST_MAPS}, but x has {maps}"
        )
    padded = F.pad(x, (1, 1, 1, 1)).transpose(0, 1)
    shifted = [padded[..., i : i + height, j : j + width] for i in range(3) for j in range(3)]
    windows = torch.stack(shifted, 1).flatten(2)  # (C, 9, positions)
    positions = windows.shape[2]
    windows = F.pad(windows, (0, -positions % BLOCK)).unflatten(2, (-1, BLOCK))
    blocks = windows.movedim(2, 0).contiguous().numpy()
    sums = np.zeros((len(blocks), len(plan.places), BLOCK), np.int16)
    arrays = blocks, plan.filters, plan.counts, plan.places, sums
    in_parts(lambda first, last: _sum_blocks(*arrays, first, last), len(blocks))
    found = torch.from_numpy(sums).transpose(0, 1).flatten(1)[:, :positions]
    return found.unflatten(1, (batch, height, width)).transpose(0, 1).to(torch.int32)


@njit(nogil=True, cache=True)
def _respond(windows, filters, thirds, responses):
    """windows (9, block) of a map -> responses (2 filters, block): each filter's, then -1 times it.

    thirds: room for what the eight possible rows of a filter make of each row of a window.
    """
    for row in range(3):
        for code in range(8):
            a, b, c = windows[3 * row], windows[3 * row + 1], windows[3 * row + 2]
            at, bt, ct = 2 * (code & 1) - 1, (code & 2) - 1, (code >> 1 & 2) - 1
            third = thirds[row, code]
            for p in range(len(third)):
                third[p] = at * a[p] + bt * b[p] + ct * c[p]
    for i in range(len(filters)):
        top, middle, bottom = filters[i] & 7, filters[i] >> 3 & 7, filters[i] >> 6
        a, b, c = thirds[0, top], thirds[1, middle], thirds[2, bottom]
        own, inverse = responses[2 * i], responses[2 * i + 1]
        for p in range(len(own)):
            own[p] = a[p] + b[p] + c[p]
            inverse[p] = -a[p] - b[p] - c[p]


@njit(nogil=True, cache=True)
def _sum_blocks(windows, filters, counts, places, sums, first, last):
    """Blocks first .. last - 1 of sums (blocks, N, block) from windows (blocks, C, 9, block)."""
    block = windows.shape[3]
    thirds = np.empty((3, 8, block), np.int8)
    parts = np.zeros((TOGETHER, 2 * filters.shape[1], block), np.int8)
    for i in range(first, last):
        for start in range(0, len(counts), TOGETHER):
            for j in range(TOGETHER):
                used = filters[start + j, : counts[start + j]]
                if len(used):
                    _respond(windows[i, start + j], used, thirds, parts[j])
                else:
                    parts[j, 0] = 0
            for n in range(len(places)):
                at = places[n, start : start + TOGETHER]
                a, b, c, d = parts[0, at[0]], parts[1, at[1]], parts[2, at[2]], parts[3, at[3]]
                e, f, g, h = parts[4, at[4]], parts[5, at[5]], parts[6, at[6]], parts[7, at[7]]
                out = sums[i, n]
                for p in range(block):
                    out[p] += np.int8(a[p] + b[p] + c[p] + d[p] + e[p] + f[p] + g[p] + h[p])


def race(weight: Tensor, x: Tensor, seconds: float) -> dict:
    """The same sums three ways, timed in turn: packed, and map by map with every filter or with the
    distinct ones. Each begins with x (B, C, H, W) as it likes it best: words, or int8.

    Median ms by side (`PACKED`, `EVERY`, `DISTINCT`), the least number of blocks timed, and whether
    all were equal to torch's float64 convolution, and so was `reference_conv2d`.
    """
    signs = torch.where(weight >= 0, 1.0, -1.0).double()
    wanted = F.conv2d(x.double(), signs, padding=1).to(torch.int32)
    threads = torch.get_num_threads()
    bytes_of = x.to(torch.int8)
    words, packed = pack_signs(bytes_of.movedim(1, -1)), pack_weights(weight)
    every, distinct = plan(weight, shared=False), plan(weight)
    calls = {
        PACKED: lambda: xnor_conv2d(words, packed, padding=1).movedim(-1, 1),
        EVERY: lambda: conv2d(bytes_of, every),
        DISTINCT: lambda: conv2d(bytes_of, distinct),
    }
    for call in calls.values():
        call()  # compiles, which is not timed
    ways = [Implementation(name, "int32", call, threads) for name, call in calls.items()]
    rows = compare(ways, lambda _, sums: {"equal": torch.equal(sums, wanted)}, seconds, "cpu")
    plain, _ = reference_conv2d(x.float(), weight)
    equal = all(row["equal"] for row in rows) and torch.equal(plain.to(torch.int32), wanted)
    times = {row["implementation"]: row["ms"]["p50"] for row in rows}
    return {**times, "repeats": min(row["repeats"] for row in rows), "equal": equal}
