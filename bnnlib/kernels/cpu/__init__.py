"""The binary kernels on a CPU: `xnor_product` and `sign_bits`, over torch tensors and all threads.

Same functions as in `reference`, but for the layout of packed weights, which `packing` makes.
"""

import math
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

if find_spec("numba") is None:
    raise ModuleNotFoundError("these kernels need Numba: pip install 'bnnlib[fast]'", name="numba")

from bnnlib.kernels.cpu import processor, xnor_convolution, xnor_product, xnor_rows
from bnnlib.kernels.cpu.packing import (
    SIGNS_PER_BYTE,
    layout,
    looks_up,
    pack_planes,
    pack_signs,
    pack_weights,
    round_up,
    run_in_parts,
)
from bnnlib.kernels.cpu.processor import Path
from bnnlib.kernels.cpu.thread_pool import share
from bnnlib.kernels.cpu.xnor_convolution import Geometry
from bnnlib.kernels.cpu.xnor_product import DIFFERENCES
from bnnlib.kernels.cpu.xnor_tables import COLUMNS
from bnnlib.kernels.cpu.xnor_tiles import WORD_ROWS
from bnnlib.kernels.reference import output_sides, words_for

__all__ = [
    "layout",
    "looks_up",
    "pack_planes",
    "pack_signs",
    "pack_weights",
    "path",
    "prepared_matmul",
    "round_up",
    "xnor_conv2d",
    "xnor_matmul",
]

FEWEST_SIGNS_SHARED = 2**24  # multiplied in the time that `share` takes to call helpers
TASKS_PER_THREAD = 2  # at least, where there are rows and columns enough
NO_BOUNDS = np.empty(0, np.int32)
NO_SUMS = np.empty((0, 0), np.int32)
NO_WORDS = np.empty((0, 0), np.int64)

PATHS = {
    Path.AVX512: "AVX-512 population count (VPOPCNTQ)",
    Path.AVX2: "AVX2 table look-up (VPSHUFB)",
    Path.NEON: "NEON population count (CNT)",
    Path.GENERIC: "population count, as LLVM lowers it",
}


def path() -> str:
    """The instructions of which products are made here, for people."""
    return PATHS[processor.path()]


def _threads(work: int) -> int:
    """The number of threads that a product of `work` signs should take."""
    return 1 if work < FEWEST_SIGNS_SHARED else torch.get_num_threads()


def _results(
    rows: int, n: int, thresholds: Tensor | None, out: Tensor | None
) -> tuple[Tensor, np.ndarray, np.ndarray, np.ndarray]:
    """The result, and for the kernel: bounds in whole tiles, sums (rows, n), words (rows, .).

    An array that is not asked for is empty.
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
    """(tasks, blocks of rows, column parts): rows are cut first, columns too where rows are few.

    Weights that are read as quickly as rows may be read again for a few rows each. No thread should
    have a block more than another.
    """
    threads = torch.get_num_threads()
    wanted = TASKS_PER_THREAD * threads
    blocks = -(-rows // xnor_rows.rows_at_a_time(tiles, planes))
    if tiles.nbytes <= xnor_rows.PREPARED_BYTES:
        blocks = max(blocks, min(wanted, -(-rows // xnor_rows.ROWS_PER_PASS)))
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
    """The result of `xnor_matmul`, not filled yet, and the arguments with which `share` fills it.

    It does so as often as it is called with them.
    """
    n, k = shape
    rows = x.contiguous().numpy()
    planes = rows.shape[1] if rows.ndim == 3 else 1
    rows = rows.reshape(len(rows), planes, rows.shape[-1]).view(np.uint64)
    tiles = w[0].contiguous().numpy()
    result, *written = _results(len(rows), n, thresholds, out)
    tasks, *cut = _parts(len(rows), tiles, planes)
    arrays = rows, tiles, k, DIFFERENCES, *written, *cut
    work = len(rows) * planes * n * k
    return result, (xnor_product.matmul, arrays, tasks, _threads(work))


def xnor_matmul(
    x: Tensor,
    w: list[Tensor],
    shape: tuple[int, int],
    thresholds: Tensor | None,
    out: Tensor | None = None,
) -> Tensor:
    """`reference.xnor_matmul` of tiles; out: memory for the sums, (M, N) int32 or float32."""
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
    """`reference.xnor_conv2d` of tiles; out: memory for the sums, (B, Ho, Wo, N) likewise."""
    n, channels, *kernel = shape
    images = x.contiguous().numpy().view(np.uint64)
    planes = images.shape[3] if images.ndim == 5 else 1
    images = images.reshape(*images.shape[:3], planes, images.shape[-1])
    sides = output_sides(images.shape[1:3], kernel, stride, padding)
    pixels = len(images) * sides[0] * sides[1]
    tiles, tap_sums = (part.contiguous().numpy() for part in w)
    result, *written = _results(pixels, n, thresholds, out)
    tasks, *cut = _parts(pixels, tiles, planes)
    geometry = Geometry(channels, *kernel, stride, padding, *images.shape[1:3], *sides)
    lines = _lines(images, channels, padding)
    arrays = lines, tiles, tap_sums, geometry, DIFFERENCES, *written, *cut
    work = pixels * planes * n * math.prod(shape[1:])
    share(xnor_convolution.conv2d, arrays, tasks, _threads(work))
    return result.view(len(images), *sides, result.shape[-1])


def _lines(images: np.ndarray, channels: int, padding: int) -> np.ndarray:
    """(B, H, W, planes, words) uint64 -> lines of bits, padded: see `xnor_convolution.lines`."""
    count, height, width, planes, _ = images.shape
    words = words_for((width + 2 * padding) * channels)
    out = np.zeros((count, height + 2 * padding, words, planes), np.uint64)
    run_in_parts(
        lambda *part: xnor_convolution.lines(images, channels, padding, out, *part),
        count,
        SIGNS_PER_BYTE * images.nbytes,
    )
    return out
