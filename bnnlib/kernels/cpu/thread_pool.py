"""Threads that share a kernel's work, even if it takes no longer than to wake a thread.

Helpers spin for a while before they sleep. Each calls the kernel once, and tasks are taken and
counted in memory that all share:

    @njit(nogil=True)
    def kernel(array, tasks):
        begin(tasks)
        task = next_task(tasks)
        while task >= 0:
            ...
            finish(tasks)
            task = next_task(tasks)

A helper that comes too late finds no task left and is not waited for. Nothing between `next_task`
and `finish` may raise, because the caller waits until all tasks are finished.
"""

import atexit
import ctypes
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

LINE = 8  # int64 in a line of a cache: what several threads write has lines of its own
TAKEN, FINISHED, INSIDE, COUNT, CALLS = (LINE * i for i in range(5))  # places in `tasks`
SPINS = 500  # before a helper sleeps: a fraction of a millisecond

sched_yield = types.ExternalFunction("sched_yield", types.int32())
inner = njit(nogil=True, cache=True, _nrt=False)


@intrinsic
def add(typing, address, number):
    """Add to the int64 at an address, undivided by other threads, and return what it was."""

    def emit(context, b, signature, arguments):
        pointer = b.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return b.atomic_rmw("add", pointer, arguments[1], "acq_rel")

    return types.int64(types.intp, types.int64), emit


@intrinsic
def read(typing, address):
    """The int64 at an address, which other threads change."""

    def emit(context, b, signature, arguments):
        pointer = b.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return b.load_atomic(pointer, "acquire", 8)

    return types.int64(types.intp), emit


@inner
def at(array, index):
    """The address of an item."""
    return array.ctypes.data + array.itemsize * index


# For kernels


@inner
def begin(tasks):
    """Call the helpers: the kernel does it, because the caller held the GIL until now."""
    add(at(tasks, INSIDE), 1)
    if tasks[CALLS]:
        add(tasks[CALLS], 1)
        tasks[CALLS] = 0


@inner
def next_task(tasks):
    """The number of a task that nobody else has, or -1 if none is left."""
    task = add(at(tasks, TAKEN), 1)
    return task if task < tasks[COUNT] else -1


@inner
def finish(tasks):
    """Count one more task as done."""
    add(at(tasks, FINISHED), 1)


# Helpers


@njit(nogil=True, cache=True)
def spin(calls, left):
    """Leave the tasks `left`, then spin until the next call; return whether it came before long."""
    if len(left):
        add(at(left, INSIDE), -1)
    seen = read(at(calls, 0))
    for _ in range(SPINS):
        if read(at(calls, 0)) != seen:
            return True
        sched_yield()
    return False


@njit(nogil=True, cache=True)
def wait(tasks):
    """Wait until all tasks are finished, and a little longer for helpers to spin again.

    A thread that waits for the GIL sleeps, so helpers may have it before the caller.
    """
    while read(at(tasks, FINISHED)) < tasks[COUNT]:
        sched_yield()
    for _ in range(SPINS):
        if read(at(tasks, INSIDE)) <= 1:
            break
        sched_yield()


class Helper:
    """A thread that runs the kernels submitted to it."""

    def __init__(self):
        self._submitted: SimpleQueue[tuple | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="bnnlib", daemon=True)
        self._thread.start()
        self._away_from = NO_PROCESSOR

    def keep_away_from(self, processor: int) -> None:
        """Let it run on every processor that the caller may use but this one, if there are any.

        Linux may place a woken thread on its waker's processor and leave it there: then it would
        begin when the caller is done.
        """
        if processor == self._away_from:
            return
        with suppress(OSError):  # none of them is left, or the system forbids it
            if others := os.sched_getaffinity(0) - {processor}:
                os.sched_setaffinity(self._thread.native_id, others)
                self._away_from = processor

    def submit(self, kernel: Callable, arguments: tuple, tasks: np.ndarray) -> None:
        self._submitted.put((kernel, arguments, tasks))

    def cancel(self) -> bool:
        """Withdraw what was submitted; return whether the helper had not begun it."""
        try:
            self._submitted.get_nowait()
        except Empty:
            return False
        return True

    def stop(self) -> None:
        """End the thread, and wait for its end."""
        self._submitted.put(None)
        self._thread.join()

    def _serve(self) -> None:
        left = NOTHING
        while True:
            called = spin(_calls, left)
            left = NOTHING
            try:
                submitted = self._submitted.get(block=not called)
            except Empty:  # somebody else was called
                continue
            if submitted is None:
                return
            left = self._work(*submitted)
            del submitted  # and its arrays

    def _work(self, kernel: Callable, arguments: tuple, tasks: np.ndarray) -> np.ndarray:
        """Run a kernel, and return the tasks that are left when it ends."""
        with suppress(Exception):  # the caller, who calls the same, meets it or does what is left
            kernel(*arguments, tasks)
        _free.append(self)
        return tasks


NOTHING = np.empty(0, np.int64)
NO_PROCESSOR = -1
_calls = np.zeros(2 * LINE, np.int64)  # the first of them: how often helpers were called
_all: list[Helper] = []
_free: list[Helper] = []


if hasattr(os, "sched_setaffinity"):
    _processor = ctypes.PyDLL(None).sched_getcpu  # the one that this thread runs on
else:  # this system cannot bind threads to processors

    def _processor() -> int:
        return NO_PROCESSOR


def _free_helpers(count: int) -> list[Helper]:
    """Up to `count` helpers that are free; new ones where there are fewer in all."""
    taken = []
    while len(taken) < count:
        try:
            taken.append(_free.pop())
        except IndexError:
            if len(_all) >= count:
                break
            _all.append(Helper())
            taken.append(_all[-1])
    return taken


def _forget() -> None:
    """Forget all helpers, as a forked child must, which has none of its parent's threads."""
    _all.clear()
    _free.clear()


def _stop_all() -> None:
    """Stop the helpers: one that spins while the interpreter ends would be cut off in its midst."""
    for helper in _all:
        helper.stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
atexit.register(_stop_all)


def share(kernel: Callable, arguments: tuple, count: int, threads: int) -> None:
    """Call kernel(*arguments, tasks) on `threads` threads, until all of `count` tasks are finished.

    tasks: (5 LINE,) int64, for `begin`, `next_task` and `finish` alone. What a kernel raises
    outside of tasks is raised if it was this thread's.
    """
    tasks = np.zeros(5 * LINE, np.int64)
    tasks[COUNT] = count
    helpers = _free_helpers(min(threads, count) - 1)
    if helpers:
        tasks[CALLS] = _calls.ctypes.data
        caller = _processor()
    try:
        for helper in helpers:
            helper.keep_away_from(caller)
            helper.submit(kernel, arguments, tasks)
        kernel(*arguments, tasks)
        if helpers:
            wait(tasks)
    finally:
        _free.extend([helper for helper in helpers if helper.cancel()])
