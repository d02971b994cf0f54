"""The binary kernels on a CPU: `xnor_product` and `sign_bits`, over torch tensors and all threads.

Same functions as in `reference`, but for the layout of packed weights: tiles of 128 output columns,
as `xnor_tiles` explains. Weights of convolutions also hold what each tap's signs add up to.
"""

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

from bnnlib.kernels.cpu import processor, sign_bits, xnor_convolution, xnor_product
from bnnlib.kernels.cpu.parallel_for import in_parts
from bnnlib.kernels.cpu.processor import Path
from bnnlib.kernels.cpu.thread_pool import share
from bnnlib.kernels.cpu.word_counts import WORDS_ACROSS
from bnnlib.kernels.cpu.xnor_product import DIFFERENCES, ROWS
from bnnlib.kernels.cpu.xnor_tiles import COLUMNS, STEPS, WORD_ROWS
from bnnlib.kernels.reference import PLANES, output_sides, words_for

LARGEST_BITS = {torch.float16: 0x7C00, torch.bfloat16: 0x7F80}  # an infinity's: above is a NaN
ALONE = 2**26  # signs multiplied in the time that `in_parts` takes to hand out pieces
SHARED = 2**24  # and `share`, of which threads draw them
BYTE = 16  # signs multiplied in the time that a byte is packed
NO_BOUNDS, NO_SUMS = np.empty(0, np.int32), np.empty((0, 0), np.int32)
NO_WORDS = np.empty((0, 0), np.int64)
PIECES = 2  # for each thread, at least, where there are rows and columns enough


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


PATHS = {
    Path.AVX512: "AVX-512 population count (VPOPCNTQ)",
    Path.AVX2: "AVX2 table look-up (VPSHUFB)",
    Path.NEON: "NEON population count (CNT)",
    Path.GENERIC: "population count, as LLVM lowers it",
}


def path() -> str:
    """Which instructions products are made of here, for people."""
    return PATHS[processor.path()]


def _inputs(shape: tuple[int, ...]) -> int:
    """Signs that an output sums."""
    return math.prod(shape[1:])


def layout(
    shape: tuple[int, ...], planes: bool = False
) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """Shapes and dtypes of what `pack_weights` makes of weights of this shape."""
    tiles, k = -(-shape[0] // COLUMNS), _inputs(shape)
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
    channel. Padding bits and columns are 0. Raises ValueError for a NaN in float32.
    """
    signs = w.detach() if w.dtype == torch.float32 else torch.where(w >= 0, 1.0, -1.0)
    columns = signs.movedim(0, -1).movedim(0, -2).reshape(-1, len(w)).contiguous().numpy()
    (shape, dtype), *sums = layout(tuple(w.shape), planes)
    tiles = _in_lines(shape, dtype)
    if dtype == torch.uint8:
        pack, pieces = sign_bits.half_byte_tiles, shape[0]
    else:
        pack, pieces = sign_bits.word_tiles, shape[2]
    found, out = [], tiles.numpy()
    work = BYTE * columns.nbytes
    _in_parts(lambda *part: found.append(pack(columns, out, *part)), pieces, work)
    if any(found):
        raise ValueError("a NaN has no sign")
    return [tiles, *(_tap_sums(columns, shape) for shape, _ in sums)]


def _tap_sums(columns: np.ndarray, shape: tuple[int, int]) -> Tensor:
    """(taps C, N) -> (taps, N in whole tiles) int32: what a tap's signs add up to."""
    sums = torch.empty(shape, dtype=torch.int32)
    arrays = columns, sums.numpy()
    _in_parts(lambda *part: sign_bits.sums_of_taps(*arrays, *part), shape[0], BYTE * columns.nbytes)
    return sums


def _in_lines(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Uninitialized memory that begins a cache line: reading vectors across two takes longer."""
    size = math.prod(shape) * dtype.itemsize
    room = torch.empty(size + 64, dtype=torch.uint8)
    start = -room.data_ptr() % 64
    return room[start : start + size].view(dtype).view(shape)


def _in_parts(kernel, count: int, work: int) -> None:
    """Run kernel(first, last) over range(count), on this thread alone if there is little work."""
    if work < ALONE:
        kernel(0, count)
    else:
        in_parts(kernel, count)


def _threads(work: int) -> int:
    """How many threads a product of so many signs should take."""
    return 1 if work < SHARED else torch.get_num_threads()


def pack_signs(x: Tensor) -> Tensor:
    """(..., K) real -> words (..., ceil(K / 64)). Raises ValueError for a NaN."""
    rows = x.detach().reshape(x.shape[:-1].numel(), x.shape[-1]).contiguous()
    words = torch.empty(len(rows), words_for(x.shape[-1]), dtype=torch.int64)
    largest = LARGEST_BITS.get(x.dtype, 0)
    array, out = (rows.view(torch.int16) if largest else rows).numpy(), words.numpy()
    found = []
    _in_parts(
        lambda first, last: found.append(
            sign_bits.signs(array, np.int16(largest), out, first, last)
        ),
        len(rows),
        BYTE * rows.nbytes,
    )
    if any(found):
        raise ValueError("a NaN has no sign")
    return words.view(*x.shape[:-1], words.shape[-1])


def pack_planes(x: Tensor) -> Tensor:
    """(..., K) uint8 -> (..., 8, ceil(K / 64))."""
    rows = x.reshape(x.shape[:-1].numel(), x.shape[-1]).contiguous()
    words = torch.empty(len(rows), PLANES, words_for(x.shape[-1]), dtype=torch.int64)
    arrays = rows.numpy(), words.numpy()
    _in_parts(
        lambda *part: sign_bits.planes(*arrays, *part), len(rows), BYTE * PLANES * rows.nbytes
    )
    return words.view(*x.shape[:-1], *words.shape[1:])


def _results(
    rows: int, n: int, thresholds: Tensor | None, out: Tensor | None
) -> tuple[Tensor, np.ndarray, np.ndarray, np.ndarray]:
    """What is returned, and for the kernel: bounds in whole tiles, sums (rows, n), words (rows, .).

    What is not asked for is empty.
    """
    if thresholds is None:
        sums = torch.empty((rows, n), dtype=torch.int32) if out is None else out.view(rows, n)
        return sums, NO_BOUNDS, sums.numpy(), NO_WORDS
    bounds = given = thresholds.contiguous().numpy()
    if n % COLUMNS:
        bounds = np.full(round_up(n, COLUMNS), xnor_product.NEVER, np.int32)
        bounds[:n] = given
    words = torch.empty((rows, words_for(n)), dtype=torch.int64)
    return words, bounds, NO_SUMS, words.numpy()


def _parts(rows: int, tiles: np.ndarray, planes: int) -> tuple[int, int, int]:
    """(pieces, blocks of rows, column parts): rows are cut first, columns too where rows are few.

    Weights that are read as quickly as rows may be read again for a few rows each. No thread should
    have a block more than another.
    """
    threads = torch.get_num_threads()
    wanted = PIECES * threads
    blocks = -(-rows // xnor_product.rows_at_a_time(tiles, planes))
    if tiles.nbytes <= xnor_product.PREPARED:
        blocks = max(blocks, min(wanted, -(-rows // ROWS)))
    if blocks >= threads:
        blocks = round_up(blocks, threads)
    blocks = max(1, min(blocks, -(-rows // WORD_ROWS)))
    across = min(len(tiles), -(-wanted // blocks)) if blocks < wanted else 1
    return blocks * across, blocks, across


def prepared_matmul(
    x: Tensor,
    w: list[Tensor],
    shape: tuple[int, int],
    thresholds: Tensor | None,
    out: Tensor | None = None,
) -> tuple[Tensor, tuple]:
    """What `xnor_matmul` returns for these, not filled yet, and the arguments of `share` that fill
    it, as often as it is called with them."""
    n, k = shape
    rows = x.contiguous().numpy()
    planes = rows.shape[1] if rows.ndim == 3 else 1
    rows = rows.reshape(len(rows), planes, rows.shape[-1]).view(np.uint64)
    tiles = w[0].contiguous().numpy()
    result, *written = _results(len(rows), n, thresholds, out)
    pieces, *cut = _parts(len(rows), tiles, planes)
    arrays = rows, tiles, k, DIFFERENCES, *written, *cut
    work = len(rows) * planes * n * k
    return result, (xnor_product.matmul, arrays, pieces, _threads(work))


def xnor_matmul(
    x: Tensor,
    w: list[Tensor],
    shape: tuple[int, int],
    thresholds: Tensor | None,
    out: Tensor | None = None,
) -> Tensor:
    """As `reference.xnor_matmul`; out: where the sums go, (M, N) int32 or float32."""
    result, call = prepared_matmul(x, w, shape, thresholds, out)
    share(*call)
    return result


def xnor_conv2d(
    x: Tensor,
    w: list[Tensor],
    shape: tuple[int, int, int, int],
    stride: int,
    padding: int,
    thresholds: Tensor | None,
    out: Tensor | None = None,
) -> Tensor:
    """As `reference.xnor_conv2d`; out: where the sums go, (B, Ho, Wo, N) int32 or float32."""
    n, channels, *kernel = shape
    images = x.contiguous().numpy().view(np.uint64)
    planes = images.shape[3] if images.ndim == 5 else 1
    images = images.reshape(*images.shape[:3], planes, images.shape[-1])
    sides = output_sides(images.shape[1:3], kernel, stride, padding)
    pixels = len(images) * sides[0] * sides[1]
    tiles, tap_sums = (part.contiguous().numpy() for part in w)
    result, *written = _results(pixels, n, thresholds, out)
    pieces, *cut = _parts(pixels, tiles, planes)
    geometry = (channels, *kernel, stride, padding, *images.shape[1:3], *sides)
    lines = _lines(images, channels, padding)
    arrays = lines, tiles, tap_sums, geometry, DIFFERENCES, *written, *cut
    work = pixels * planes * n * _inputs(shape)
    share(xnor_convolution.conv2d, arrays, pieces, _threads(work))
    return result.view(len(images), *sides, result.shape[-1])


def _lines(images: np.ndarray, channels: int, padding: int) -> np.ndarray:
    """(B, H, W, planes, words) uint64 -> lines of bits, padded: see `xnor_convolution.lines`."""
    count, height, width, planes, _ = images.shape
    words = words_for((width + 2 * padding) * channels)
    out = np.zeros((count, height + 2 * padding, words, planes), np.uint64)
    _in_parts(
        lambda *part: xnor_convolution.lines(images, channels, padding, out, *part),
        count,
        BYTE * images.nbytes,
    )
    return out
