"""Run a kernel's parts side by side, on as many threads as torch may use.

Numba's own threading layers either abort when two Python threads enter them (workqueue) or kill
forked children (OpenMP); kernels here release the GIL instead and get plain Python threads.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="bnnlib")


if hasattr(os, "register_at_fork"):  # a forked child has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


def in_parts(kernel: Callable[[int, int], None], count: int) -> None:
    """Call kernel(first, last) on consecutive parts of range(count), all at once; wait for all."""
    parts = max(1, min(torch.get_num_threads(), count))
    cuts = [count * i // parts for i in range(parts + 1)]
    if parts == 1:
        return kernel(0, count)
    pool = _pool(parts - 1)
    others = [pool.submit(kernel, cuts[i], cuts[i + 1]) for i in range(1, parts)]
    kernel(0, cuts[1])
    for other in others:
        other.result()
