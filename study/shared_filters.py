"""Convolutions with 3x3 signs that apply each distinct filter once a map, and what that gains.

An inverse counts as the same filter, its response negated. `filters` counts how many there are.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from torch import Tensor

from bnnlib.kernels.cpu import round_up
from bnnlib.kernels.cpu.parallel_for import in_parts
from bnnlib.xnor import pack_signs, pack_weights, xnor_conv2d
from study.bench.timing import Implementation, compare
from study.filters import signs_of
from study.train.analysis import FILTER_BITS, filter_codes, merge_inverses

MAPS_PER_BYTE = 8  # maps whose responses are added up in bytes: 8 x 9 fits one
MOST_MAPS = np.iinfo(np.int16).max // FILTER_BITS  # whose sums an int16 holds
BLOCK = 256  # positions that `conv2d` works on at a time
EVERY = "every filter, map by map"
DISTINCT = "distinct filters, map by map"
PACKED = "packed"


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
    """Filters to apply to each map, and the places of each sum's parts; maps in whole groups."""

    filters: np.ndarray  # (C, most of a map) codes
    counts: np.ndarray  # (C,) filters applied to a map; 0 for maps that only fill the last group
    places: np.ndarray  # (N, C): 2 i, or 2 i + 1 for the inverse, of a map's filter i
    maps: int


def plan(weight: Tensor, shared: bool = True) -> Plan:
    """The plan for weight (N, C, 3, 3).

    shared: each distinct filter of a map once, inverses merged; else every filter, repeated or not.
    """
    codes = filter_codes(weight)
    kinds, (outputs, maps) = merge_inverses(codes), codes.shape
    width = round_up(maps, MAPS_PER_BYTE)
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
    low, high = x.amin(), x.amax()
    if x.dtype != torch.int8 or low < -1 or high > 1:
        raise ValueError(
            f"x must be int8 with values -1, 0 and +1, not {x.dtype} from {low} to {high}"
        )
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
            left = windows[3 * row]
            centre = windows[3 * row + 1]
            right = windows[3 * row + 2]
            left_sign = 2 * (code & 1) - 1
            centre_sign = (code & 2) - 1
            right_sign = (code >> 1 & 2) - 1
            third = thirds[row, code]
            for p in range(len(third)):
                third[p] = left_sign * left[p] + centre_sign * centre[p] + right_sign * right[p]
    for i in range(len(filters)):
        top = thirds[0, filters[i] & 7]
        middle = thirds[1, filters[i] >> 3 & 7]
        bottom = thirds[2, filters[i] >> 6]
        response = responses[2 * i]
        inverse = responses[2 * i + 1]
        for p in range(len(response)):
            response[p] = top[p] + middle[p] + bottom[p]
            inverse[p] = -top[p] - middle[p] - bottom[p]


@njit(nogil=True, cache=True)
def _add_parts(parts, places, sums):
    """Add to sums (block,) int16 the response of each map j of a group, parts[j, places[j]].

    In bytes, and unrolled: the eight are added before they are widened, in one pass.
    """
    p0 = parts[0, places[0]]
    p1 = parts[1, places[1]]
    p2 = parts[2, places[2]]
    p3 = parts[3, places[3]]
    p4 = parts[4, places[4]]
    p5 = parts[5, places[5]]
    p6 = parts[6, places[6]]
    p7 = parts[7, places[7]]
    for p in range(len(sums)):
        low = p0[p] + p1[p] + p2[p] + p3[p]
        high = p4[p] + p5[p] + p6[p] + p7[p]
        sums[p] += np.int8(low + high)


@njit(nogil=True, cache=True)
def _sum_blocks(windows, filters, counts, places, sums, first, last):
    """Blocks first .. last - 1 of sums (blocks, N, block) from windows (blocks, C, 9, block)."""
    block = windows.shape[3]
    thirds = np.empty((3, 8, block), np.int8)
    parts = np.zeros((MAPS_PER_BYTE, 2 * filters.shape[1], block), np.int8)
    for i in range(first, last):
        for start in range(0, len(counts), MAPS_PER_BYTE):
            for j in range(MAPS_PER_BYTE):
                used = filters[start + j, : counts[start + j]]
                if len(used):
                    _respond(windows[i, start + j], used, thirds, parts[j])
                else:
                    parts[j, 0] = 0
            for n in range(len(places)):
                _add_parts(parts, places[n, start : start + MAPS_PER_BYTE], sums[i, n])


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
