"""Run a kernel's parts side by side, on as many threads as torch may use.

Numba's own threading layers either abort when two Python threads enter them (workqueue) or kill
forked children (OpenMP); kernels here release the GIL instead and get the threads of `pieces`.
"""

from collections.abc import Callable

import numpy as np
import torch

from bnnlib.kernels import compiles
from bnnlib.kernels.cpu.thread_pool import begin, draw, finish, share

PIECES = 4  # for every thread


def in_parts(kernel: Callable[[int, int], None], count: int, together: int = 1) -> None:
    """Call kernel(first, last) on consecutive pieces of range(count), on all threads; then return.

    Pieces begin at multiples of `together`. There are a few for every thread, about equally large,
    larger ones first, and each takes the next one when it is free, because two processors are
    seldom equally fast. What a piece raises is raised when all are done. Raises RuntimeError where
    Numba may not compile.
    """
    if not compiles():
        raise RuntimeError("this needs kernels that Numba compiles: unset NUMBA_DISABLE_JIT")
    threads, units = max(1, torch.get_num_threads()), -(-count // together)
    parts = min(units, threads * PIECES)
    size, larger = divmod(units, max(parts, 1))
    failures: list[BaseException] = []

    def work(pieces: np.ndarray) -> None:
        begin(pieces)
        while (i := draw(pieces)) >= 0:
            try:
                first, last = (size * j + min(j, larger) for j in (i, i + 1))
                kernel(first * together, min(last * together, count))
            except BaseException as failure:
                failures.append(failure)
            finish(pieces)

    share(work, (), parts, threads)
    if failures:
        raise failures[0]
