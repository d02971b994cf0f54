"""Kernels that torch.compile takes whole. Knows torch alone.

A kernel reads memory, and a tracer's tensors have none. So each kernel is also a torch op, which
tells a tracer the shape of its result. Everybody else calls the kernel itself, because going
through an op takes longer than a small kernel needs.
"""

from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor, nn

PLAIN = (Tensor, nn.Parameter)  # tensors with memory; a tracer's are of other types


def traced(schema: str, trace: Callable) -> Callable[[Callable], Callable]:
    """A decorator that makes a CPU kernel the op bnnlib::NAME as well.

    schema: the op's arguments and results, as torch.library.define has them; the first argument is
    a tensor. trace: takes the same arguments and returns uninitialized results with the strides
    that the kernel's have.
    """

    def register(kernel: Callable) -> Callable:
        name = kernel.__name__.lstrip("_")
        torch.library.define(f"bnnlib::{name}", schema, tags=(torch.Tag.needs_exact_strides,))
        torch.library.impl(f"bnnlib::{name}", "cpu")(kernel)
        torch.library.register_fake(f"bnnlib::{name}")(trace)
        op = getattr(torch.ops.bnnlib, name).default

        @wraps(kernel)
        def call(*arguments):
            direct = type(arguments[0]) in PLAIN and not torch.compiler.is_compiling()
            return kernel(*arguments) if direct else op(*arguments)

        return call

    return register
