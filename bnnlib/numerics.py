"""The arithmetic of CUDA's libraries: settled in one place, and told in every record.

Tensor cores multiply float32 as TF32: both operands are rounded to 11 significant bits, sums stay
float32. Signs lose nothing by that, so the forward sums of a hidden layer are exact; in its
backward pass the incoming gradient is rounded. All else, such as first layers and the float twins,
is float32 throughout.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def set_up(device: str) -> None:
    """Settle what cuDNN and cuBLAS may do; without effect for a CPU."""
    if device != "cuda":
        return
    _allow_tf32(False)  # torch allows it to convolutions, but not to matrix products
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cudnn.benchmark = True  # shapes never change within a run
    torch.backends.cudnn.deterministic = True  # else sums of gradients may differ from run to run


@contextmanager
def tensor_cores() -> Iterator[None]:
    """A context in which products are launched in TF32."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    _allow_tf32(True)
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def described() -> str:
    """The arithmetic in force on CUDA, for run records."""
    allowed = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
    others = "TF32 where libraries choose it" if allowed else "float32"
    return f"hidden products TF32 (sums of signs are exact in it), others {others}"


def _allow_tf32(allowed: bool) -> None:
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed
