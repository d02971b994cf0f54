"""A float32 product as plain as the paper's baseline, in Triton; only to compare with. CUDA."""

import torch
import triton
import triton.language as tl
from torch import Tensor


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


def naive_matmul(a: Tensor, b: Tensor) -> Tensor:
    """a (M, K), b (N, K) float32 -> a b^T, as the paper's baseline computes it.

    No tensor cores, and as plain as `gemm` in BinaryNet's Run-time/binary_kernels.cu.
    """
    m, k = a.shape
    n = b.shape[0]
    out = a.new_empty((m, n))
    if out.numel():
        with torch.cuda.device_of(a):
            naive_kernel[(triton.cdiv(m, 16) * triton.cdiv(n, 16),)](
                a.contiguous(), b.contiguous(), out, m, n, k, TILE=16, num_warps=8, num_stages=1
            )
    return out
