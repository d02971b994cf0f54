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

    Pieces begin at multiples of `together`. There are a few for every thread, about equally large,
    and each takes the next one when it is free, because two processors are seldom equally fast.
    """
    threads, units = max(1, torch.get_num_threads()), -(-count // together)
    pieces = min(units, threads * PIECES)
    numbers = iter(range(pieces))

    def work() -> None:
        for i in numbers:
            last = units * (i + 1) // pieces * together
            kernel(units * i // pieces * together, min(last, count))

    others = [_pool(threads - 1).submit(work) for _ in range(min(threads, pieces) - 1)]
    work()
    for other in others:
        other.result()
