"""Signs, bit planes and weights packed on a GPU, in Triton. CUDA.

Words are int64 as `reference` describes them, written here as pairs of int32. The caller has
checked operands.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from bnnlib.kernels.reference import PLANES, words_for

LIMIT = 2**31  # positions and sums are int32


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


def check_sizes(**sizes: int) -> None:
    """Raise ValueError, naming it, for a size that an int32 does not hold."""
    for name, size in sizes.items():
        if size >= LIMIT:
            raise ValueError(f"{size} {name.replace('_', ' ')}, but these kernels stop at {LIMIT}")


def halves(words: Tensor) -> Tensor:
    """(..., words) int64 -> (..., 2 words) int32, little endian."""
    return words.contiguous().view(torch.int32)


def columns(words: Tensor) -> Tensor:
    """(N, taps, words) int64 -> (taps, 2 words, N) int32."""
    return halves(words).permute(1, 2, 0).contiguous()


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
    return [columns(pack_signs(w.movedim(1, -1)).flatten(1, 2)), sums.flatten(1).t().contiguous()]


def _pack(x: Tensor, planes: int) -> Tensor:
    """x (..., K) -> (rows, planes, words)."""
    m = x.shape[:-1].numel()
    k = x.shape[-1]
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
