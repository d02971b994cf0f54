"""Products of packed signs on the binary tensor cores of NVIDIA's Hopper, out of Triton.

The kernel here is an int8 product over packed bytes that `ptx_b1` turns into one of bits. With 1
for +1 and 0 for -1, and popcounts of K bits, zeros behind them:
a . b = 4 pop(a & b) - 2 pop(a) - 2 pop(b) + K = 4 pop(a & b) - 2 pop(a) - (sum of b's signs).

Compiled for sm_80, 86, 89 and 90; never run on a GPU so far. `tensor_cores` says where it is used.
3x3 convolutions are `gpu_b1_convolution`'s. The caller has checked operands.
"""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from bnnlib.kernels import gpu
from bnnlib.kernels.gpu_packing import check_sizes, halves, pack_signs, pack_weights
from bnnlib.kernels.ptx_b1 import EMULATED, REWRITTEN, require_b1, rewriting

# BM, BN, bytes of K at a time, warps, stages of the pipeline
LARGE = (128, 256, 128, 8, 3)  # of 64 KiB int32: half of a processor's registers
MEDIUM = (64, 64, 128, 4, 4)
SMALL = (16, 32, 256, 2, 4)  # too few rows for wgmma: mma.sync
SMALL_ROWS = 32
GROUP = 8  # rows of tiles that go together: their operands stay in the second-level cache
COMPARED = (200, 300, 13_000)  # rows, columns, signs of a row in `compare`

@triton.jit
def product_b1(
    a, b, out, counts, sums, thresholds, M, N, KB,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUPED: tl.constexpr,
    BITS: tl.constexpr, FORM: tl.constexpr,
):  # fmt: skip
    """a (M, KB), b (N, KB) int8: packed bytes. counts (M,): ones in a; sums (N,): of b's signs."""
    # Map the program to its tile, in bands of GROUPED tiles of rows
    across = tl.cdiv(tl.cdiv(N, 64) * 64, BN)  # all of the words of bits
    band = tl.program_id(0) // (GROUPED * across) * GROUPED
    high = min(tl.cdiv(M, BM) - band, GROUPED)
    within = tl.program_id(0) % (GROUPED * across)
    m = (band + within % high) * BM + tl.arange(0, BM)
    block = within // high
    n = block * BN + tl.arange(0, BN)
    # Pointers: rows outside repeat others, and are not stored
    k = tl.arange(0, BK)
    a_at = a + (m % M).to(tl.int64)[:, None] * KB + k[None, :]
    b_at = b + (n % N).to(tl.int64)[None, :] * KB + k[:, None]
    # Loop
    both = tl.zeros((BM, BN), tl.int32)
    for start in range(0, KB, BK):
        left = tl.load(a_at, mask=(k < KB - start)[None, :], other=0)
        right = tl.load(b_at, mask=(k < KB - start)[:, None], other=0)
        if FORM == "emulated":  # for the interpreter, which has no PTX to rewrite
            for bit in tl.static_range(8):
                both = tl.dot((left >> bit) & 1, (right >> bit) & 1, both, out_dtype=tl.int32)
        else:
            both = tl.dot(left, right, both, out_dtype=tl.int32)
        a_at += BK
        b_at += BK
    # Store
    count = tl.load(counts + m, mask=m < M, other=0)[:, None]
    column_sums = tl.load(sums + n, mask=n < N, other=0)[None, :]
    products = 4 * both - 2 * count - column_sums
    gpu.store_sums(products, m, block, out, thresholds, M, N, BM, BN, BITS)


@triton.jit
def count_kernel(x, counts, M, CW, BM: tl.constexpr, BK: tl.constexpr):
    """x (M, CW) int32 -> counts (M,): ones in each row."""
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    k = tl.arange(0, BK)
    x_at = x + m.to(tl.int64)[:, None] * CW + k[None, :]
    ones = tl.zeros((BM, BK), tl.int32)
    for start in range(0, CW, BK):
        mask = (m < M)[:, None] & (k < CW - start)[None, :]
        ones += gpu.popcount(tl.load(x_at + start, mask=mask, other=0))
    tl.store(counts + m, tl.sum(ones, 1), mask=m < M)


def tile_for(rows: int, columns: int) -> tuple[int, ...]:
    """The tile for an output of this size."""
    if rows <= SMALL_ROWS:
        return SMALL
    tiles = triton.cdiv(rows, LARGE[0]) * triton.cdiv(columns, LARGE[1])
    return LARGE if tiles >= gpu.PROCESSORS else MEDIUM


def in_sixteens(words: Tensor) -> Tensor:
    """The words, with rows that start at multiples of 16 bytes: Triton copies others by bytes."""
    if words.shape[1] % 2:
        words = F.pad(words, (0, 1))
    words = words.contiguous()
    return words if words.data_ptr() % 16 == 0 else words.clone()


def multiply(
    x: Tensor, w: list[Tensor], out: Tensor, thresholds: Tensor | None, tile: tuple[int, ...]
) -> Tensor:
    """Fill out, (M, N) int32 or with thresholds (M, words of N) int64, and return it."""
    rows = len(x)
    n = len(w[0])
    check_sizes(rows=rows + 127, columns=n + 255, bytes_in_a_row=8 * x.shape[1] + 255)
    if not rows:
        return out
    bm, bn, bk, warps, stages = tile
    bits = thresholds is not None
    x = in_sixteens(x)
    columns = in_sixteens(w[0])
    counts = x.new_empty(rows, dtype=torch.int32)
    width = 2 * x.shape[1]
    grid = (triton.cdiv(rows, bm) * triton.cdiv(64 * gpu.words_for(n), bn),)
    target = halves(out) if bits else out
    with torch.cuda.device_of(x), rewriting():
        count_kernel[(triton.cdiv(rows, 4),)](halves(x), counts, rows, width, BM=4, BK=128)
        kernel = product_b1[grid](
            x.view(torch.int8), columns.view(torch.int8), target, counts, w[1],
            thresholds if bits else w[1], rows, n, 4 * width, BM=bm, BN=bn, BK=bk, GROUPED=GROUP,
            BITS=bits, FORM=REWRITTEN if x.is_cuda else EMULATED,
            num_warps=warps, num_stages=stages,
        )  # fmt: skip
    if x.is_cuda:
        require_b1(kernel)
    return out


def matmul(x: Tensor, w: list[Tensor], shape: tuple[int, int]) -> Tensor:
    """x (M, words), w = `gpu.pack_weights` of (N, K) = shape -> (M, N) int32, exact."""
    out = gpu.new_output((len(x), shape[0]), None, x)
    return multiply(x, w, out, None, tile_for(*out.shape))


def matmul_signs(x: Tensor, w: list[Tensor], shape: tuple[int, int], thresholds: Tensor) -> Tensor:
    """The bits [sum >= threshold], thresholds int32 (N,), as words (M, words of N)."""
    out = gpu.new_output((len(x), shape[0]), thresholds, x)
    return multiply(x, w, out, thresholds, tile_for(len(x), shape[0]))


def compare(device: torch.device) -> None:
    """Raise RuntimeError where a tile's results differ from the popcount kernel's.

    Ragged tiles, and more steps of K than the pipeline has stages, the last one ragged.
    """
    generator = torch.Generator().manual_seed(0)
    m, n, k = COMPARED
    x, w = (torch.randn(rows, k, generator=generator).to(device) for rows in (m, n))
    x = pack_signs(x)
    w = pack_weights(w)
    limits = torch.randint(-99, 99, (n,), generator=generator, dtype=torch.int32).to(device)
    for thresholds in (None, limits):
        wanted = gpu.xnor_matmul(x, w, (n, k), thresholds)
        for tile in (SMALL, MEDIUM, LARGE):
            out = gpu.new_output((m, n), thresholds, x)
            if not torch.equal(multiply(x, w, out, thresholds, tile), wanted):
                raise RuntimeError(f"tile {tile} differs from the popcount kernel")
