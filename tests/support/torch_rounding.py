"""How torch rounds on this processor, which decides the last bits of what it adds up."""

import pytest
import torch


def rounds_once() -> bool:
    """Whether `addcmul` rounds a product together with its sum, as our kernels do everywhere.

    Torch does so where it uses AVX2 or AVX-512; elsewhere on x86 it rounds the product, too.
    """
    x = torch.full((64,), 1 + 2**-12)
    return bool((torch.addcmul(-(x * x), x, x) != 0).all())


NEEDS_TORCH_TO_ROUND_ONCE = pytest.mark.skipif(
    not rounds_once(), reason="torch rounds products before it adds them on this processor"
)
