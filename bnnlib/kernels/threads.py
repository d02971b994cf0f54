"""Run a kernel's parts side by side, on as many threads as torch may use.

Numba's own threading layers either abort when two Python threads enter them (workqueue) or kill
forked children (OpenMP); kernels here release the GIL instead and get plain Python threads.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

PIECES = 4  # for every thread


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="bnnlib")


if hasattr(os, "register_at_fork"):  # a forked child has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


def in_parts(kernel: Callable[[int, int], None], count: int, together: int = 1) -> None:
    """Call kernel(first, last) on consecutive pieces of range(count), on all threads; then return.

    Pieces hold a multiple of `together`, but the last. There are a few for every thread, and each
    takes the next one when it is free, because two processors are seldom equally fast.
    """
    threads = max(1, torch.get_num_threads())
    size = -(-count // (threads * PIECES * together)) * together
    starts = iter(range(0, count, size))

    def work() -> None:
        for first in starts:
            kernel(first, min(first + size, count))

    others = [_pool(threads - 1).submit(work) for _ in range(min(threads, -(-count // size)) - 1)]
    work()
    for other in others:
        other.result()
