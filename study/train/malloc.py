"""Memory that a training step frees is kept for the next one, where the C library can do that.

glibc gives large blocks back to the system as soon as they are free, and the next step, which wants
as many, waits until the system has filled them with zeros. `benchmarks.bench_training` times both.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

TRIM_THRESHOLD = -1  # as in malloc.h
MMAP_THRESHOLD = -3
MMAP_MAX = -4
NEVER = -1  # mallopt(3): disables trimming
# The thresholds that glibc comes to by itself after the largest blocks (mallopt(3)). They replace
# what the environment may have said, and stay.
USUAL = {TRIM_THRESHOLD: 64 * 2**20, MMAP_THRESHOLD: 32 * 2**20, MMAP_MAX: 65536}


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Keep freed memory with the process in this context, and give it back at the end.

    Changes no result. Only the memory of the thread which began the process is kept: others, such
    as a Dask worker's, have heaps of their own, from which glibc gives large blocks back all the
    same. Contexts must not be nested: the inner one would end the outer one early.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "malloc_trim"):  # macOS, musl, Android
        yield
        return
    library.mallopt(MMAP_MAX, 0)
    library.mallopt(TRIM_THRESHOLD, NEVER)
    try:
        yield
    finally:
        for parameter, value in USUAL.items():
            library.mallopt(parameter, value)
        library.malloc_trim(0)
