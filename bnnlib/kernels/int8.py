"""torch's int8 matrix product on a GPU, and the padding that it wants of its operands."""

import torch
import torch.nn.functional as F
from torch import Tensor


def int8_rows(x: Tensor) -> Tensor:
    """x (M, K) int8 as torch's int8 product wants it on a GPU: 32 rows or more, K in sixteens.

    Zeros are added for it, once and not with every product; without need x itself is returned.
    """
    added = (0, -x.shape[1] % 16, 0, max(0, 32 - x.shape[0]))
    return F.pad(x, added) if any(added) else x


def int8_columns(w: Tensor) -> Tensor:
    """w (N, K) int8 likewise, as the right side of the product: N in eights, K in sixteens."""
    added = (0, -w.shape[1] % 16, 0, -w.shape[0] % 8)
    return F.pad(w, added) if any(added) else w


def int8_matmul(x: Tensor, w: Tensor) -> Tensor:
    """x (M, K), w (N, K) int8 -> x w^T (M, N) int32 by torch's own int8 product.

    Copies nothing where `int8_rows` and `int8_columns` would add nothing.
    """
    m = len(x)
    n = len(w)
    return torch._int_mm(int8_rows(x), int8_columns(w).t())[:m, :n]
