"""Signs and bit planes packed on the CPU, and weights as this processor's products read them.

Same functions as in `reference`, but for the layout of weights: tiles of 128 output columns, as
`xnor_tiles` explains. Weights of convolutions also hold what each tap's signs add up to.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from bnnlib.kernels.cpu import processor, sign_bits
from bnnlib.kernels.cpu.parallel_for import in_parts
from bnnlib.kernels.cpu.processor import Path
from bnnlib.kernels.cpu.word_counts import WORDS_ACROSS
from bnnlib.kernels.cpu.xnor_tables import COLUMNS, STEPS
from bnnlib.kernels.reference import PLANES, words_for

# The bits of an infinity: above are those of a NaN
INFINITY_BITS = {torch.float16: 0x7C00, torch.bfloat16: 0x7F80}
FEWEST_SIGNS_IN_PARTS = 2**26  # multiplied in the time that `in_parts` takes to hand out pieces
SIGNS_PER_BYTE = 16  # multiplied in the time that a byte is packed


def round_up(number: int, multiple: int) -> int:
    """The least multiple of `multiple` that is not below `number`."""
    return -(-number // multiple) * multiple


@cache
def looks_up(planes: bool = False) -> bool:
    """Whether products look counts up in tables instead of counting the bits of words.

    One look-up serves four planes, which is faster than to count the bits of each on any processor
    that has such an instruction.
    """
    path = processor.path()
    return path is Path.AVX2 or (planes and path is not Path.GENERIC)


def layout(
    shape: tuple[int, ...], planes: bool = False
) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """Shapes and dtypes of what `pack_weights` makes of weights of this shape."""
    tiles = -(-shape[0] // COLUMNS)
    k = math.prod(shape[1:])
    if looks_up(planes):
        packed = (tiles, round_up(k, 4 * STEPS) // 4, COLUMNS), torch.uint8
    else:
        packed = (tiles, COLUMNS // WORDS_ACROSS, words_for(k), WORDS_ACROSS), torch.int64
    if len(shape) == 2:
        return [packed]
    return [packed, ((shape[2] * shape[3], tiles * COLUMNS), torch.int32)]


def pack_weights(w: Tensor, planes: bool = False) -> list[Tensor]:
    """(N, K) -> [tiles]; (N, C, kh, kw) -> [tiles, tap sums (kh kw, N in whole tiles) int32].

    planes: whether they will mostly be multiplied with planes; kernels take both kinds of tiles.

    A tile of the table's holds a byte for each half byte of a column, half bytes outside, columns
    inside; of the others, words in quarters of 32 columns. Inputs go by kernel row, kernel column,
    channel. Padding bits and columns are 0. Raises ValueError for a NaN.
    """
    signs = w.detach()
    if w.dtype != torch.float32:
        signs = torch.where(w >= 0, 1.0, torch.where(w < 0, -1.0, torch.nan))
    columns = signs.movedim(0, -1).movedim(0, -2).reshape(-1, len(w)).contiguous().numpy()
    (shape, dtype), *sums = layout(tuple(w.shape), planes)
    tiles = _in_lines(shape, dtype)
    looked_up = dtype == torch.uint8
    pack = sign_bits.half_byte_tiles if looked_up else sign_bits.word_tiles
    out = tiles.numpy()
    found: list[bool] = []
    run_in_parts(
        lambda *part: found.append(pack(columns, out, *part)),
        shape[0] if looked_up else shape[2],
        SIGNS_PER_BYTE * columns.nbytes,
    )
    if any(found):
        raise ValueError("the weights hold a NaN, which has no sign")
    return [tiles, *(_tap_sums(columns, shape) for shape, _ in sums)]


def _tap_sums(columns: np.ndarray, shape: tuple[int, int]) -> Tensor:
    """(taps C, N) -> (taps, N in whole tiles) int32: the sum of each tap's signs."""
    sums = torch.empty(shape, dtype=torch.int32)
    arrays = columns, sums.numpy()
    work = SIGNS_PER_BYTE * columns.nbytes
    run_in_parts(lambda *part: sign_bits.sums_of_taps(*arrays, *part), shape[0], work)
    return sums


def _in_lines(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Uninitialized memory that begins a cache line: reading vectors across two takes longer."""
    size = math.prod(shape) * dtype.itemsize
    room = torch.empty(size + 64, dtype=torch.uint8)
    start = -room.data_ptr() % 64
    return room[start : start + size].view(dtype).view(shape)


def run_in_parts(kernel: Callable, count: int, work: int) -> None:
    """Run kernel(first, last) over range(count), on this thread alone if there is little work."""
    if work < FEWEST_SIGNS_IN_PARTS:
        kernel(0, count)
    else:
        in_parts(kernel, count)


def pack_signs(x: Tensor) -> Tensor:
    """(..., K) real -> words (..., ceil(K / 64)). Raises ValueError for a NaN."""
    rows = x.detach().reshape(x.shape[:-1].numel(), x.shape[-1]).contiguous()
    words = torch.empty(len(rows), words_for(x.shape[-1]), dtype=torch.int64)
    largest = INFINITY_BITS.get(x.dtype, 0)
    array = (rows.view(torch.int16) if largest else rows).numpy()
    out = words.numpy()
    found: list[bool] = []
    run_in_parts(
        lambda first, last: found.append(
            sign_bits.signs(array, np.int16(largest), out, first, last)
        ),
        len(rows),
        SIGNS_PER_BYTE * rows.nbytes,
    )
    if any(found):
        raise ValueError("a NaN has no sign")
    return words.view(*x.shape[:-1], words.shape[-1])


def pack_planes(x: Tensor) -> Tensor:
    """(..., K) uint8 -> (..., 8, ceil(K / 64))."""
    rows = x.reshape(x.shape[:-1].numel(), x.shape[-1]).contiguous()
    words = torch.empty(len(rows), PLANES, words_for(x.shape[-1]), dtype=torch.int64)
    arrays = rows.numpy(), words.numpy()
    work = SIGNS_PER_BYTE * PLANES * rows.nbytes
    run_in_parts(lambda *part: sign_bits.planes(*arrays, *part), len(rows), work)
    return words.view(*x.shape[:-1], *words.shape[1:])
