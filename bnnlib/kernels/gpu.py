"""The paper's kernel in Triton: products of packed signs by XOR and popcount. CUDA.

Of K signs in two rows of bits a and b, those that differ count -1 and the rest +1:
a . b = K - 2 popcount(a ^ b). Words are int64 as `reference` describes them, read here as pairs of
int32; padding bits are 0 on both sides and never differ.

A matrix product is the convolution of M images of one pixel, so two kernels share the work: tiles
of rows and columns, and, for few rows, a row of x with some rows of w. The popcount is written out
in shifts and additions: LLVM sees one `popc` instruction in them, and Triton's interpreter
(TRITON_INTERPRET=1, tensors on the CPU) runs them as they stand. Interpreted, and compiled for
sm_90; never run on a GPU so far. The caller has checked operands.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from bnnlib.kernels.gpu_packing import (
    check_sizes,
    columns,
    halves,
    layout,
    pack_planes,
    pack_signs,
    pack_weights,
)
from bnnlib.kernels.reference import output_sides, words_for

__all__ = ["layout", "pack_planes", "pack_signs", "pack_weights", "xnor_conv2d", "xnor_matmul"]

FEW_ROWS = 8  # up to here tiles would be mostly empty, and the transposes not worth their launches
PROCESSORS = 132  # of an H100 or H200: below as many large tiles, small ones keep more of them busy


@triton.jit
def popcount(x):
    """int32 of any shape -> its number of ones (Hacker's Delight, 5-1)."""
    x = x.to(tl.uint32, bitcast=True)  # shifts must not copy the sign
    x = x - ((x >> 1) & 0x55555555)
    x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
    x = (x + (x >> 4)) & 0x0F0F0F0F
    return ((x * 0x01010101) >> 24).to(tl.int32)


@triton.jit
def store_sums(
    sums, rows, block, out, thresholds, M, N, BM: tl.constexpr, BN: tl.constexpr, BITS: tl.constexpr
):
    """Write a tile (BM, BN) of sums, columns from block * BN: numbers of out's type, or bits.

    BITS: out is int32 (M, 2 ceil(N / 64)), its bits [sum >= threshold], and 0 behind column N.
    Offsets are 64 bits wide: M * N may exceed 32.
    """
    rows = rows.to(tl.int64)[:, None]
    columns = block * BN + tl.arange(0, BN)
    if BITS:
        limit = tl.load(thresholds + columns, mask=columns < N, other=0)
        bits = ((sums >= limit[None, :]) & (columns < N)[None, :]).to(tl.int32)
        places = tl.arange(0, 32)[None, None, :]
        words = tl.sum(tl.reshape(bits, (BM, BN // 32, 32)) << places, 2)
        width = 2 * tl.cdiv(N, 64)
        at = (block * (BN // 32) + tl.arange(0, BN // 32))[None, :]
        tl.store(out + rows * width + at, words, mask=(rows < M) & (at < width))
    else:
        mask = (rows < M) & (columns < N)[None, :]
        tl.store(out + rows * N + columns[None, :], sums.to(out.dtype.element_ty), mask=mask)


@triton.jit
def source(m, tap, M, H, W, HO, WO, KW, STRIDE, PADDING):
    """The pixel that output pixels m see through a tap, and whether there is one."""
    y = m // WO % HO * STRIDE - PADDING + tap // KW
    x = m % WO * STRIDE - PADDING + tap % KW
    return m // (HO * WO) * (H * W) + y * W + x, (m < M) & (y >= 0) & (y < H) & (x >= 0) & (x < W)


@triton.jit
def tile_kernel(
    x, w, tap_sums, out, thresholds,
    M, N, CW, C, P, PIXELS, H, W, HO, WO, KH, KW, STRIDE, PADDING,
    BM: tl.constexpr, BN: tl.constexpr, STEP: tl.constexpr,
    PADDED: tl.constexpr, BITS: tl.constexpr,
):  # fmt: skip
    """BM output pixels times BN filters, one word of each at a time: an outer product of words.

    x (P, CW, PIXELS) and w (KH * KW, CW, N) int32: neighbours in a load are neighbours in memory.
    tap_sums (KH * KW, N): of the signs. C: channels. CW is a multiple of STEP.
    """
    # Map the program to its tile
    block = tl.program_id(0) % tl.cdiv(N, BN)
    m = tl.program_id(0) // tl.cdiv(N, BN) * BM + tl.arange(0, BM)
    n = block * BN + tl.arange(0, BN)
    # Pointers: they advance row by row, so that no offset exceeds 32 bits
    plane = tl.cast(CW, tl.int64) * PIXELS
    x += (P - 1) * plane
    # Loop
    differing = tl.zeros((BM, BN), tl.int32)
    for _ in range(P):  # highest plane first: Horner's rule
        differing *= 2
        w_at = w + n
        for tap in range(KH * KW):
            pixel, inside = source(m, tap, M, H, W, HO, WO, KW, STRIDE, PADDING)
            x_at = x + pixel
            for _ in range(0, CW, STEP):
                for _ in tl.static_range(STEP):
                    a = tl.load(x_at, mask=inside, other=0)
                    b = tl.load(w_at, mask=n < N, other=0)
                    differing += popcount(a[:, None] ^ b[None, :])
                    x_at += PIXELS
                    w_at += N
        x -= plane
    weight = (1 << P) - 1
    sums = KH * KW * C * weight - 2 * differing
    if PADDED:  # a padded tap was read as all -1, but is 0 and counts nowhere
        for tap in range(KH * KW):
            pixel, inside = source(m, tap, M, H, W, HO, WO, KW, STRIDE, PADDING)
            signs = tl.load(tap_sums + tap * N + n, mask=n < N, other=0) * weight
            sums += tl.where(inside[:, None], 0, signs[None, :])
    # Store
    store_sums(sums, m, block, out, thresholds, M, N, BM, BN, BITS)


@triton.jit
def row_kernel(
    x, w, out, thresholds, M, N, CW, K, P: tl.constexpr,
    BN: tl.constexpr, BK: tl.constexpr, BITS: tl.constexpr,
):  # fmt: skip
    """One row of x (M, P, CW) int32 times BN rows of w (N, CW) int32, as they lie in memory."""
    # Map the program to its row and rows
    blocks = 2 * tl.cdiv(N, 64)
    block = tl.program_id(0) % blocks
    m = tl.program_id(0) // blocks
    n = block * BN + tl.arange(0, BN)
    # Pointers
    k = tl.arange(0, BK)
    x_at = x + m * P * CW + k
    w_at = w + n.to(tl.int64)[:, None] * CW + k[None, :]
    # Loop, highest plane first: Horner's rule
    differing = tl.zeros((BN, BK), tl.int32)
    for plane in tl.static_range(P):
        differing *= 2
        for start in range(0, CW, BK):
            within = start + k < CW
            a = tl.load(x_at + ((P - 1 - plane) * CW + start), mask=within, other=0)
            b = tl.load(w_at + start, mask=(n < N)[:, None] & within[None, :], other=0)
            differing += popcount(a[None, :] ^ b)
    # Store
    sums = ((1 << P) - 1) * K - 2 * tl.sum(differing, 1)[None, :]
    store_sums(sums, m + tl.arange(0, 1), block, out, thresholds, M, N, 1, BN, BITS)


def new_output(shape: tuple[int, ...], thresholds: Tensor | None, like: Tensor) -> Tensor:
    """Uninitialized sums int32 (..., N) = shape, or with thresholds words (..., words of N)."""
    if thresholds is None:
        return like.new_empty(shape, dtype=torch.int32)
    return like.new_empty((*shape[:-1], words_for(shape[-1])), dtype=torch.int64)


def _columns_of(w: Tensor) -> Tensor:
    """The `columns` of a dense layer's words, made once: weights are multiplied again and again."""
    kept = w.__dict__.get("columns")
    if kept is None or kept[1] != w._version:
        kept = w.columns = columns(w[:, None]), w._version
    return kept[0]


def tile(outputs: int, n: int, matrix: bool, words: int) -> tuple[int, int]:
    """(rows of a tile, words of K at a time): as much as registers hold without spilling.

    A convolution keeps track of pixels and borders in as many registers as of sums.
    """
    if not matrix:
        return 32, 1
    large = outputs * words_for(n) >= 128 * PROCESSORS
    return 128 if large else 32, 2 if words % 4 else 4


def xnor_matmul(
    x: Tensor, w: list[Tensor], shape: tuple[int, int], thresholds: Tensor | None
) -> Tensor:
    """x (M, words) or (M, 8, words), w = `pack_weights` of (N, K) = shape -> (M, N) int32.

    thresholds: None, or int32 (N,), then the result is (M, words of N): bits [sum >= threshold].
    Raises ValueError where a size or a sum could exceed 31 bits.
    """
    if x.shape[0] > FEW_ROWS:
        weights = [_columns_of(w[0]), w[1]]
        return xnor_conv2d(x[:, None, None], weights, (*shape, 1, 1), 1, 0, thresholds)[:, 0, 0]
    rows = x.shape[0]
    n, k = shape
    planes = x.shape[1] if x.dim() == 3 else 1
    check_sizes(columns=n + 63, as_the_largest_sum=k << planes)
    out = new_output((rows, n), thresholds, x)
    if rows:
        width = 2 * x.shape[-1]
        bits = thresholds is not None
        with torch.cuda.device_of(x):
            row_kernel[(rows * 2 * words_for(n),)](
                halves(x), halves(w[0]), halves(out), thresholds if bits else out, rows, n, width,
                k, P=planes, BN=32, BK=128 if width > 64 else 64, BITS=bits,
            )  # fmt: skip
    return out


def xnor_conv2d(
    x: Tensor,
    w: list[Tensor],
    shape: tuple[int, int, int, int],
    stride: int,
    padding: int,
    thresholds: Tensor | None,
) -> Tensor:
    """x (B, H, W, words) or (B, H, W, 8, words) -> (B, Ho, Wo, N) int32.

    w = `pack_weights` of (N, C, kh, kw) = shape. With thresholds the result is words
    (B, Ho, Wo, words of N). The padding counts as 0.

    Raises ValueError where a size or a sum could exceed 31 bits.
    """
    batch, height, width = x.shape[:3]
    n, channels, kh, kw = shape
    planes = x.shape[3] if x.dim() == 5 else 1
    ho, wo = output_sides((height, width), (kh, kw), stride, padding)
    pixels = batch * height * width
    outputs = batch * ho * wo
    check_sizes(
        columns=n + 63,
        pixels=max(pixels, outputs + 127),
        as_the_largest_sum=kh * kw * channels << planes,
    )
    out = new_output((batch, ho, wo, n), thresholds, x)
    if outputs:
        images = columns(x.reshape(pixels, planes, -1))
        halves_deep = images.shape[1]
        bits = thresholds is not None
        matrix = kh * kw * height * width == 1 and padding == 0
        bm, step = tile(outputs, n, matrix, halves_deep)
        with torch.cuda.device_of(x):
            tile_kernel[(triton.cdiv(outputs, bm) * words_for(n),)](
                images, *w, halves(out), thresholds if bits else out, outputs, n, halves_deep,
                channels, planes, pixels, height, width, ho, wo, kh, kw, stride, padding,
                BM=bm, BN=64, STEP=step, PADDED=padding > 0, BITS=bits,
            )  # fmt: skip
    return out
