"""Every buffer that CPU kernels are given, before or behind a page that nobody may touch.

A kernel that reads or writes one byte too many ends its process; so these are `trials`. What comes
out must equal the reference, whatever the shape, the path, the number of threads.
"""

import ctypes
import functools
import math
import mmap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from bnnlib import draws, functional, pooling
from bnnlib.kernels import cpu
from bnnlib.kernels.cpu import hamming_search, packing, sign_matmul
from study.bench import plain_kernels

PAGE, PROT_NONE = mmap.PAGESIZE, 0
LIBRARY = ctypes.CDLL(None, use_errno=True)
PATHS = (True, False)  # whether products look counts up


def guarded(shape: tuple[int, ...], dtype: torch.dtype, end: bool) -> Tensor:
    """Zeros whose last byte, or else whose first one, lies next to a page that can't be touched.

    Tiles of weights fill whole cache lines, and begin one in both places.
    """
    size = math.prod(shape) * dtype.itemsize
    if not size:
        return torch.empty(shape, dtype=dtype)
    pages = -(-size // PAGE)
    room = mmap.mmap(-1, (pages + 2) * PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(room))
    for page in (0, pages + 1):
        if LIBRARY.mprotect(ctypes.c_void_p(address + page * PAGE), PAGE, PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect failed")
    start = (pages + 1) * PAGE - size if end else PAGE
    memory = torch.frombuffer(room, dtype=dtype, count=math.prod(shape), offset=start)
    return memory.resize_(shape)  # a view would not do for what autograd's functions return


def copied(x: Tensor, end: bool) -> Tensor:
    """The same numbers in such memory."""
    return guarded(tuple(x.shape), x.dtype, end).copy_(x)


@functools.cache
def _torch(end: bool) -> SimpleNamespace:
    """torch, but for where new tensors lie."""

    def empty(*shape, dtype=torch.float32, memory_format=torch.contiguous_format) -> Tensor:
        shape = tuple(shape) if isinstance(shape[0], int) else tuple(shape[0])
        if memory_format == torch.channels_last:
            order = torch.empty(shape, memory_format=memory_format, device="meta").stride()
            return guarded(shape, dtype, end).as_strided_(shape, order)
        return guarded(shape, dtype, end)

    def ones(*shape, dtype=torch.float32) -> Tensor:
        return empty(*shape, dtype=dtype).fill_(1)

    return SimpleNamespace(**vars(torch) | {"empty": empty, "zeros": empty, "ones": ones})


@functools.cache
def compile_plain() -> None:
    """Numba compiles NumPy's own functions and no others: before they are replaced."""
    plain_kernels.multiply_float(np.ones((1, 1), np.float32), np.ones((1, 1), np.float32))
    plain_kernels.multiply_words(np.ones((1, 1), np.int64), np.ones((1, 1), np.int64), 64)


@functools.cache
def _numpy(end: bool) -> SimpleNamespace:
    """NumPy, likewise."""

    def empty(shape, dtype=float) -> np.ndarray:
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        size = math.prod(shape) * np.dtype(dtype).itemsize
        return guarded((size,), torch.uint8, end).numpy().view(dtype).reshape(shape)

    def full(shape, value, dtype) -> np.ndarray:
        filled = empty(shape, dtype)
        filled[...] = value
        return filled

    return SimpleNamespace(**vars(np) | {"empty": empty, "zeros": empty, "full": full})


@contextmanager
def surroundings(end: bool, looks_up: bool, threads: int) -> Iterator[None]:
    """Within, what the kernels are given by bnnlib's own modules is guarded, and all is split."""
    changes = {
        cpu: {"FEWEST_SIGNS_SHARED": 0},
        packing: {"looks_up": lambda planes=False: looks_up, "FEWEST_SIGNS_IN_PARTS": 0}
        | {"_in_lines": lambda shape, dtype: guarded(shape, dtype, end)},
        sign_matmul: {"_scratch": lambda size: guarded((size,), torch.uint8, end)},
        functional: {"FEWEST_PRODUCTS": 0, "FEWEST_CHANNELS": 0},
    }
    before = torch.get_num_threads()
    compile_plain()
    with ExitStack() as stack:
        for module, values in changes.items():
            stack.enter_context(patch.multiple(module, **values))
        for module in (cpu, packing, sign_matmul, hamming_search, pooling, functional):
            stack.enter_context(patch.object(module, "torch", _torch(end)))
        for module in (cpu, packing, draws, plain_kernels):
            stack.enter_context(patch.object(module, "np", _numpy(end)))
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@dataclass(frozen=True)
class Stress:
    """A trial: draw(chance) -> a shape; check(end, seed, **shape) asserts that all is equal."""

    draw: Callable[[Random], dict]
    check: Callable[..., None]
    together: int = 1  # so many Python threads do the same at once

    def shape(self, number: int) -> dict:
        return self.draw(Random(f"{self.check.__name__} {number}"))

    def told(self, number: int) -> str:
        return f"{number}, {self.shape(number)}, guarded {'behind' if number % 2 else 'before'}"

    def __call__(self, number: int, folder: Path) -> str:
        end, path, threads = bool(number % 2), PATHS[number // 2 % len(PATHS)], 1 + number % 3
        with surroundings(end, path, threads):
            if self.together == 1:
                self.check(end, number, **self.shape(number))
            else:
                self._at_once(end, range(number, number + self.together))
        return "equal"

    def _at_once(self, end: bool, numbers: range) -> None:
        def one(number: int) -> None:
            self.check(end, number, **self.shape(number))

        with ThreadPoolExecutor(self.together) as pool:
            list(pool.map(one, numbers))
