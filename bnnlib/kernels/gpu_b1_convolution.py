"""3x3 convolutions of packed signs on the binary tensor cores of NVIDIA's Hopper, out of Triton.

`ptx_b1` says how an int8 product over packed bytes becomes one of bits. Here the rows of its left
matrix are what a filter sees of the image, read where it lies: nothing is copied nine times. Tap by
tap, bits of pixels outside are loaded as 0, and so count nowhere in popcount(a & b). With V the
taps inside, the sum over signs is exact with zeros around:
4 pop(a & b) - 2 (ones of a in V) - (sum of w's signs in V). Which taps those are depends on the
borders that a pixel touches: up to four of them, so that 16 rows of sums serve all pixels.

Interpreted and compiled; never run on a GPU so far. The caller has checked operands.
"""

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from bnnlib.kernels import gpu, gpu_b1
from bnnlib.kernels.gpu_packing import check_sizes, halves, pack_signs, pack_weights
from bnnlib.kernels.ptx_b1 import EMULATED, REWRITTEN, require_b1, rewriting

BM = 128  # pixels of a tile
BN = 128  # and its filters
WARPS = 8
STAGES = 3  # of the pipeline
TAPS = tl.constexpr(9)
TOP, BOTTOM, LEFT, RIGHT = (1 << border for border in range(4))  # that a pixel may touch


@triton.jit
def convolution_b1(
    x, w, out, counts, borders, thresholds, M, N, H, W,
    CB: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    BITS: tl.constexpr, FORM: tl.constexpr,
):  # fmt: skip
    """x (M, CB), w (N, 9 CB) int8: packed bytes. counts (M,): ones in x; borders (16, N): sums.

    M pixels of images H by W, row by row.
    """
    # Map the program to its tile
    block = tl.program_id(0) % tl.cdiv(tl.cdiv(N, 64) * 64, BN)
    m = tl.program_id(0) // tl.cdiv(tl.cdiv(N, 64) * 64, BN) * BM + tl.arange(0, BM)
    n = block * BN + tl.arange(0, BN)
    row = m // W % H
    column = m % W
    # Pointers: filters outside repeat others, and are not stored
    k = tl.arange(0, BK)
    b_at = w + (n % N).to(tl.int64)[None, :] * (TAPS * CB) + k[:, None]
    # Loop
    both = tl.zeros((BM, BN), tl.int32)
    for start in range(0, TAPS * CB, BK):
        tap = (start + k) // CB
        down = (tap // 3 - 1)[None, :]
        right = (tap % 3 - 1)[None, :]
        y = row[:, None] + down
        z = column[:, None] + right
        inside = (m < M)[:, None] & (y >= 0) & (y < H) & (z >= 0) & (z < W) & (tap < TAPS)[None, :]
        pixel = (m[:, None] + (down * W + right)).to(tl.int64)
        a = tl.load(x + pixel * CB + ((start + k) % CB)[None, :], mask=inside, other=0)
        b = tl.load(b_at, mask=(k < TAPS * CB - start)[:, None], other=0)
        if FORM == "emulated":  # for the interpreter, which has no PTX to rewrite
            for bit in tl.static_range(8):
                both = tl.dot((a >> bit) & 1, (b >> bit) & 1, both, out_dtype=tl.int32)
        else:
            both = tl.dot(a, b, both, out_dtype=tl.int32)
        b_at += BK
    # Ones that the filter sees of x, and the sums of its signs there
    ones = tl.zeros((BM,), tl.int32)
    for tap in range(TAPS):
        y = row + tap // 3 - 1
        z = column + tap % 3 - 1
        seen = (m < M) & (y >= 0) & (y < H) & (z >= 0) & (z < W)
        ones += tl.load(counts + m + (tap // 3 - 1) * W + tap % 3 - 1, mask=seen, other=0)
    touched = (row == 0) * 1 + (row == H - 1) * 2 + (column == 0) * 4 + (column == W - 1) * 8
    at = borders + touched[:, None] * N + n[None, :]
    signs = tl.load(at, mask=(n < N)[None, :], other=0)
    # Store
    sums = 4 * both - 2 * ones[:, None] - signs
    gpu.store_sums(sums, m, block, out, thresholds, M, N, BM, BN, BITS)


def fits(x: Tensor, shape: tuple[int, ...], stride: int, padding: int) -> bool:
    """Whether this is a convolution that the kernel makes: 3x3, zeros around, whole 16 bytes.

    x: words (B, H, W, words), not planes.
    """
    words = x.shape[-1]
    powers = words >= 2 and words & (words - 1) == 0
    return x.dim() == 4 and shape[2:] == (3, 3) and stride == padding == 1 and powers


def border_sums(taps: Tensor) -> Tensor:
    """(9, N) sums of signs by tap -> (16, N): by touched borders, of the taps that lie inside."""
    n = taps.shape[1]
    grid = taps.view(3, 3, n)
    rows = []
    for touched in range(16):
        top = int(touched & TOP > 0)
        bottom = 3 - int(touched & BOTTOM > 0)
        left = int(touched & LEFT > 0)
        right = 3 - int(touched & RIGHT > 0)
        rows.append(grid[top:bottom, left:right].sum((0, 1), dtype=torch.int32))
    return torch.stack(rows)


def _once(source: Tensor, name: str, make: Callable[[Tensor], Tensor]) -> Tensor:
    """make(source), made once for each version of packed weights, and kept with them by name."""
    kept = source.__dict__.get(name)
    if kept is None or kept[1] != source._version:
        kept = make(source), source._version
        setattr(source, name, kept)
    return kept[0]


def _rows(columns: Tensor) -> Tensor:
    """(9, halves of words, N) int32 -> (N, 9 bytes of words) int8."""
    return columns.permute(2, 0, 1).contiguous().flatten(1).view(torch.int8)


def xnor_conv2d(
    x: Tensor, w: list[Tensor], shape: tuple[int, ...], thresholds: Tensor | None
) -> Tensor:
    """x (B, H, W, words), w = `gpu.pack_weights` of (N, C, 3, 3) = shape -> (B, H, W, N) int32.

    With thresholds words (B, H, W, words of N). Padded with zeros by 1.
    """
    batch, height, width, words = x.shape
    n = shape[0]
    pixels = batch * height * width
    size = 8 * words
    bits = thresholds is not None
    check_sizes(pixels=pixels + BM, columns=n + BN - 1)
    out = gpu.new_output((batch, height, width, n), thresholds, x)
    if not pixels:
        return out
    x = gpu_b1.in_sixteens(x.reshape(pixels, words))
    rows = _once(w[0], "rows", _rows)
    borders = _once(w[1], "borders", border_sums)
    counts = x.new_empty(pixels, dtype=torch.int32)
    target = halves(out) if bits else out
    grid = (triton.cdiv(pixels, BM) * triton.cdiv(64 * gpu.words_for(n), BN),)
    with torch.cuda.device_of(x), rewriting():
        gpu_b1.count_kernel[(triton.cdiv(pixels, 4),)](
            halves(x), counts, pixels, 2 * words, BM=4, BK=min(128, max(16, 2 * words))
        )
        kernel = convolution_b1[grid](
            x.view(torch.int8), rows, target, counts, borders, thresholds if bits else borders,
            pixels, n, height, width, CB=size, BM=BM, BN=BN, BK=step(size), BITS=bits,
            FORM=REWRITTEN if x.is_cuda else EMULATED,
            num_warps=WARPS, num_stages=STAGES,
        )  # fmt: skip
    if x.is_cuda:
        require_b1(kernel)
    return out


def step(size: int) -> int:
    """Bytes of K at a time, for pixels of `size` bytes: the instruction wants 32 or more."""
    return min(64, max(32, size))


def compare(device: torch.device) -> None:
    """Raise RuntimeError where results differ from the popcount kernel's."""
    generator = torch.Generator().manual_seed(0)
    for channels, n, sides in ((128, 70, (5, 7)), (512, 130, (9, 1)), (256, 64, (2, 2))):
        x = torch.randn(3, *sides, channels, generator=generator).to(device)
        w = torch.randn(n, channels, 3, 3, generator=generator).to(device)
        x = pack_signs(x)
        weights = pack_weights(w)
        shape = tuple(w.shape)
        limits = torch.randint(-99, 99, (n,), generator=generator, dtype=torch.int32).to(device)
        for thresholds in (None, limits):
            wanted = gpu.xnor_conv2d(x, weights, shape, 1, 1, thresholds)
            if not torch.equal(xnor_conv2d(x, weights, shape, thresholds), wanted):
                raise RuntimeError(f"convolutions of {channels} channels differ from popcount's")
