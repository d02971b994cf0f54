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

from bnnlib.kernels.reference import PLANES, output_sides, words_for

FEW_ROWS = 8  # up to here tiles would be mostly empty, and the transposes not worth their launches
PROCESSORS = 132  # of an H100 or H200: below so many large tiles, small ones keep more of them busy
LIMIT = 2**31  # positions and sums are int32


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
    """Which pixel output pixels m see through a tap, and whether there is one."""
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


@triton.jit
def pack_kernel(x, out, M, K, CW, P: tl.constexpr, BM: tl.constexpr, BW: tl.constexpr):
    """x (M, K) -> out (M, CW) int32, bits [x >= 0]; P > 1: (M, P, CW), bit p of each number.

    Bits behind K are 0.
    """
    blocks = tl.cdiv(CW, BW)
    m = (tl.program_id(0) // blocks * BM + tl.arange(0, BM)).to(tl.int64)[:, None]
    k = (tl.program_id(0) % blocks * (BW * 32) + tl.arange(0, BW * 32))[None, :]
    inside = (m < M) & (k < K)
    numbers = tl.load(x + m * K + k, mask=inside, other=0)
    if numbers.dtype == tl.bfloat16:  # the interpreter would compare its bits as integers
        numbers = numbers.to(tl.float32)
    at = (tl.program_id(0) % blocks * BW + tl.arange(0, BW))[None, :]
    for plane in tl.static_range(P):
        one = (numbers >= 0) if P == 1 else ((numbers >> plane) & 1) != 0
        bits = tl.reshape((one & inside).to(tl.int32), (BM, BW, 32))
        words = tl.sum(bits << tl.arange(0, 32)[None, None, :], 2)
        tl.store(out + (m * P + plane) * CW + at, words, mask=(m < M) & (at < CW))


@triton.jit
def naive_kernel(a, b, out, M, N, K, TILE: tl.constexpr):
    """16 x 16 outputs, one a thread, from 16 x 16 tiles of both matrices in shared memory."""
    blocks = tl.cdiv(N, TILE)
    m = (tl.program_id(0) // blocks * TILE + tl.arange(0, TILE)).to(tl.int64)[:, None]
    n = (tl.program_id(0) % blocks * TILE + tl.arange(0, TILE)).to(tl.int64)[None, :]
    k = tl.arange(0, TILE)
    sums = tl.zeros((TILE, TILE), tl.float32)
    for start in range(0, K, TILE):
        within = start + k < K
        left = tl.load(a + m * K + (start + k)[None, :], (m < M) & within[None, :], other=0.0)
        right = tl.load(b + n * K + (start + k)[:, None], (n < N) & within[:, None], other=0.0)
        sums = tl.dot(left, right, sums, input_precision="ieee")  # float32 fused multiply-adds
    tl.store(out + m * N + n, sums, mask=(m < M) & (n < N))


def check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size >= LIMIT:
            raise ValueError(f"{size} {name.replace('_', ' ')}, but these kernels stop at {LIMIT}")


def halves(words: Tensor) -> Tensor:
    """(..., words) int64 -> (..., 2 words) int32, little endian."""
    return words.contiguous().view(torch.int32)


def new_output(shape: tuple[int, ...], thresholds: Tensor | None, like: Tensor) -> Tensor:
    """Room for sums int32 (..., N) = shape, or with thresholds for words (..., words of N)."""
    if thresholds is None:
        return like.new_empty(shape, dtype=torch.int32)
    return like.new_empty((*shape[:-1], words_for(shape[-1])), dtype=torch.int64)


def _columns(words: Tensor) -> Tensor:
    """(N, taps, words) int64 -> (taps, 2 words, N) int32."""
    return halves(words).permute(1, 2, 0).contiguous()


def _columns_of(w: Tensor) -> Tensor:
    """`_columns` of a dense layer's words, made once: weights are multiplied again and again."""
    kept = w.__dict__.get("columns")
    if kept is None or kept[1] != w._version:
        kept = w.columns = _columns(w[:, None]), w._version
    return kept[0]


def tile(outputs: int, n: int, matrix: bool, words: int) -> tuple[int, int]:
    """(rows of a tile, words of K at a time): as much as registers hold without spilling.

    A convolution keeps track of pixels and borders in as many registers as of sums.
    """
    if not matrix:
        return 32, 1
    large = outputs * words_for(n) >= 128 * PROCESSORS
    return 128 if large else 32, 2 if words % 4 else 4


def layout(
    shape: tuple[int, ...], planes: bool = False
) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """Shapes and dtypes of what `pack_weights` makes of weights of this shape."""
    n, k = shape[:2]
    if len(shape) == 2:
        return [((n, words_for(k)), torch.int64), ((n,), torch.int32)]
    taps = shape[2] * shape[3]
    return [((taps, 2 * words_for(k), n), torch.int32), ((taps, n), torch.int32)]


def pack_weights(w: Tensor, planes: bool = False) -> list[Tensor]:
    """(N, K) -> [words (N, .) of its rows, their sums (N,)]; (N, C, kh, kw) -> [columns, sums].

    Columns: (taps, halves of words, N) int32. Sums: int32, of signs, (taps, N).
    `planes` changes nothing.
    """
    sums = 2 * (w >= 0).sum(1, dtype=torch.int32) - w.shape[1]
    if w.dim() == 2:
        return [pack_signs(w), sums]
    return [_columns(pack_signs(w.movedim(1, -1)).flatten(1, 2)), sums.flatten(1).t().contiguous()]


def _pack(x: Tensor, planes: int) -> Tensor:
    """x (..., K) -> (rows, planes, words)."""
    m, k = x.shape[:-1].numel(), x.shape[-1]
    width = 2 * words_for(k)
    check_sizes(columns=k + 4095, rows=m + 3)
    out = x.new_empty((m, planes, width // 2), dtype=torch.int64)
    bm, bw = (1, 64) if width > 32 else (4, 16)
    if m:
        grid = (triton.cdiv(m, bm) * triton.cdiv(width, bw),)
        with torch.cuda.device_of(x):
            pack_kernel[grid](x.contiguous(), halves(out), m, k, width, P=planes, BM=bm, BW=bw)
    return out


def pack_signs(x: Tensor) -> Tensor:
    """(..., K) real -> (..., words): sign(0) = sign(-0.0) = +1; NaN counts as -1."""
    return _pack(x, 1).view(*x.shape[:-1], words_for(x.shape[-1]))


def pack_planes(x: Tensor) -> Tensor:
    """(..., K) uint8 -> (..., 8, words)."""
    return _pack(x, PLANES).view(*x.shape[:-1], PLANES, words_for(x.shape[-1]))


def xnor_matmul(
    x: Tensor, w: list[Tensor], shape: tuple[int, int], thresholds: Tensor | None
) -> Tensor:
    """x (M, words) or (M, 8, words), w = `pack_weights` of (N, K) = shape -> (M, N) int32.

    thresholds: None, or int32 (N,), then the result is (M, words of N): bits [sum >= threshold].
    Raises ValueError where a size or a sum could exceed 31 bits.
    """
    if x.shape[0] > FEW_ROWS:
        images, columns = x[:, None, None], [_columns_of(w[0]), w[1]]
        return xnor_conv2d(images, columns, (*shape, 1, 1), 1, 0, thresholds)[:, 0, 0]
    rows, (n, k), planes = x.shape[0], shape, x.shape[1] if x.dim() == 3 else 1
    check_sizes(columns=n + 63, as_the_largest_sum=k << planes)
    out = new_output((rows, n), thresholds, x)
    if rows:
        width, bits = 2 * x.shape[-1], thresholds is not None
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
    """x (B, H, W, words) or (B, H, W, 8, words), w = `pack_weights` of (N, C, kh, kw) = shape
    -> (B, Ho, Wo, N) int32, or words (B, Ho, Wo, words of N). The padding counts as 0.

    Raises ValueError where a size or a sum could exceed 31 bits.
    """
    (batch, height, width), (n, channels, kh, kw) = x.shape[:3], shape
    planes = x.shape[3] if x.dim() == 5 else 1
    ho, wo = output_sides((height, width), (kh, kw), stride, padding)
    pixels, outputs = batch * height * width, batch * ho * wo
    check_sizes(
        columns=n + 63,
        pixels=max(pixels, outputs + 127),
        as_the_largest_sum=kh * kw * channels << planes,
    )
    out = new_output((batch, ho, wo, n), thresholds, x)
    if outputs:
        images = _columns(x.reshape(pixels, planes, -1))
        halves_deep, bits = images.shape[1], thresholds is not None
        matrix = kh * kw * height * width == 1 and padding == 0
        bm, step = tile(outputs, n, matrix, halves_deep)
        with torch.cuda.device_of(x):
            tile_kernel[(triton.cdiv(outputs, bm) * words_for(n),)](
                images, *w, halves(out), thresholds if bits else out, outputs, n, halves_deep,
                channels, planes, pixels, height, width, ho, wo, kh, kw, stride, padding,
                BM=bm, BN=64, STEP=step, PADDED=padding > 0, BITS=bits,
            )  # fmt: skip
    return out


def naive_matmul(a: Tensor, b: Tensor) -> Tensor:
    """a (M, K), b (N, K) float32 -> a b^T as in the paper's baseline; only to compare with.

    No tensor cores, and as plain as `gemm` in BinaryNet's Run-time/binary_kernels.cu.
    """
    (m, k), n = a.shape, b.shape[0]
    out = a.new_empty((m, n))
    if out.numel():
        with torch.cuda.device_of(a):
            naive_kernel[(triton.cdiv(m, 16) * triton.cdiv(n, 16),)](
                a.contiguous(), b.contiguous(), out, m, n, k, TILE=16, num_warps=8, num_stages=1
            )
    return out
