"""Tensors that one-pass CPU kernels take, and the call of those of `kernels.cpu.elementwise`.

They take float32 on the CPU, laid out alike and without gaps; `pooling` asks here, too.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from bnnlib.kernels import compiles

AVAILABLE = compiles()
ELEMENTS_PER_PIECE = 1 << 15  # fewer are not worth a second thread


def fits(*tensors: Tensor) -> bool:
    """Whether the kernels take these tensors."""
    first = tensors[0]
    return (
        AVAILABLE
        and first.numel() > 0
        and all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)
        and all(t.stride() == first.stride() for t in tensors)
        and _has_no_gaps(first)
    )


def _has_no_gaps(tensor: Tensor) -> bool:
    """Whether its elements fill a stretch of memory, in whatever order of axes."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride != expected:
            return False
        expected *= size
    return True


def flat(tensor: Tensor) -> np.ndarray:
    """The memory of a tensor without gaps as a line: (numel,), shared with it."""
    return tensor.detach().as_strided((tensor.numel(),), (1,)).numpy()


def run(kernel: Callable, arrays: list[np.ndarray], *numbers: float) -> None:
    """Call an elementwise kernel on flat arrays of one length, with float32 numbers."""
    from bnnlib.kernels.cpu.parallel_for import in_parts

    scalars = [np.float32(number) for number in numbers]
    in_parts(lambda *part: kernel(*arrays, *scalars, *part), len(arrays[0]), ELEMENTS_PER_PIECE)
