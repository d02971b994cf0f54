"""Run a kernel's parts side by side, on as many threads as torch may use.

Numba's own threading layers either abort when two Python threads enter them (workqueue) or kill
forked children (OpenMP); kernels here release the GIL instead and get the threads of `thread_pool`.
"""

from collections.abc import Callable

import numpy as np
import torch

from bnnlib.kernels import compiles
from bnnlib.kernels.cpu.thread_pool import begin, finish, next_task, share

TASKS_PER_THREAD = 4


def in_parts(kernel: Callable[[int, int], None], count: int, multiple: int = 1) -> None:
    """Call kernel(first, last) on consecutive pieces of range(count), on all threads; then return.

    Pieces begin at multiples of `multiple`. There are a few for every thread, about equally large,
    larger ones first, and each takes the next one when it is free, because two processors are
    seldom equally fast. What a piece raises is raised when all are done. Raises RuntimeError where
    Numba may not compile.
    """
    if not compiles():
        raise RuntimeError("this needs kernels that Numba compiles: unset NUMBA_DISABLE_JIT")
    threads = max(1, torch.get_num_threads())
    units = -(-count // multiple)
    parts = min(units, threads * TASKS_PER_THREAD)
    size, larger = divmod(units, max(parts, 1))
    failures: list[BaseException] = []

    def work(tasks: np.ndarray) -> None:
        begin(tasks)
        while (i := next_task(tasks)) >= 0:
            try:
                first, last = (size * j + min(j, larger) for j in (i, i + 1))
                kernel(first * multiple, min(last * multiple, count))
            except BaseException as failure:
                failures.append(failure)
            finish(tasks)

    share(work, (), parts, threads)
    if failures:
        raise failures[0]
