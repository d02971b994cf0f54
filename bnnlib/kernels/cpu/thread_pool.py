"""Threads that share a kernel's work, even if it takes no longer than to wake a thread.

Those that help look out for a while before they sleep; each calls the kernel once, and pieces are
drawn and counted in memory that all share:

    @njit(nogil=True)
    def kernel(array, pieces):
        begin(pieces)
        piece = draw(pieces)
        while piece >= 0:
            ...
            finish(pieces)
            piece = draw(pieces)

A helper that comes too late finds no piece left and is not waited for. Nothing between `draw` and
`finish` may raise, because the caller waits until all pieces are finished.
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
DRAWN, FINISHED, INSIDE, COUNT, CALLS = (LINE * i for i in range(5))  # where in `pieces`
LOOKS = 500  # before a helper sleeps: a fraction of a millisecond

sched_yield = types.ExternalFunction("sched_yield", types.int32())
inner = njit(nogil=True, cache=True, _nrt=False)


@intrinsic
def add(typing, address, number):
    """Add to the int64 at an address, undivided by other threads; -> what it was."""

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
def begin(pieces):
    """Call the helpers: the kernel does it, because the caller held the GIL until now."""
    add(at(pieces, INSIDE), 1)
    if pieces[CALLS]:
        add(pieces[CALLS], 1)
        pieces[CALLS] = 0


@inner
def draw(pieces):
    """The number of a piece that nobody else has, or -1 if none is left."""
    piece = add(at(pieces, DRAWN), 1)
    return piece if piece < pieces[COUNT] else -1


@inner
def finish(pieces):
    """A piece that was drawn is done."""
    add(at(pieces, FINISHED), 1)


# Helpers


@njit(nogil=True, cache=True)
def look_out(calls, left):
    """Leave the pieces `left`, then wait for the next call; -> whether it came before long."""
    if len(left):
        add(at(left, INSIDE), -1)
    seen = read(at(calls, 0))
    for _ in range(LOOKS):
        if read(at(calls, 0)) != seen:
            return True
        sched_yield()
    return False


@njit(nogil=True, cache=True)
def wait(pieces):
    """Until all are finished, and helpers look out again, if that is soon: a thread that waits for
    the GIL sleeps, so they may have it before the caller."""
    while read(at(pieces, FINISHED)) < pieces[COUNT]:
        sched_yield()
    for _ in range(LOOKS):
        if read(at(pieces, INSIDE)) <= 1:
            break
        sched_yield()


class Helper:
    """A thread that does what it is asked to."""

    def __init__(self):
        self._asked: SimpleQueue[tuple | None] = SimpleQueue()  # whoever gets it has it
        self._thread = threading.Thread(target=self._serve, name="bnnlib", daemon=True)
        self._thread.start()
        self._away_from = NOWHERE

    def keep_away_from(self, processor: int) -> None:
        """Let it run on every processor that the caller may use but this; if there are any.

        Linux may place a woken thread on its waker's processor and leave it there: then it would
        begin when the caller is done.
        """
        if processor == self._away_from:
            return
        with suppress(OSError):  # none of them is left, or the system forbids it
            if others := os.sched_getaffinity(0) - {processor}:
                os.sched_setaffinity(self._thread.native_id, others)
                self._away_from = processor

    def ask(self, kernel: Callable, arguments: tuple, pieces: np.ndarray) -> None:
        self._asked.put((kernel, arguments, pieces))

    def excuse(self) -> bool:
        """Whether it had not begun what it was asked to do, and now will not."""
        try:
            self._asked.get_nowait()
        except Empty:
            return False
        return True

    def dismiss(self) -> None:
        self._asked.put(None)
        self._thread.join()

    def _serve(self) -> None:
        left = NOTHING
        while True:
            called = look_out(_calls, left)
            left = NOTHING
            try:
                asked = self._asked.get(block=not called)
            except Empty:  # somebody else was called
                continue
            if asked is None:
                return
            left = self._work(*asked)
            del asked  # and its arrays

    def _work(self, kernel: Callable, arguments: tuple, pieces: np.ndarray) -> np.ndarray:
        """-> pieces."""
        with suppress(Exception):  # the caller, who calls the same, meets it or does what is left
            kernel(*arguments, pieces)
        _free.append(self)
        return pieces


NOTHING = np.empty(0, np.int64)
NOWHERE = -1
_calls = np.zeros(2 * LINE, np.int64)  # the first of them: how often helpers were called
_all: list[Helper] = []
_free: list[Helper] = []


if hasattr(os, "sched_setaffinity"):
    _processor = ctypes.PyDLL(None).sched_getcpu  # the one that this thread runs on
else:  # this system cannot bind threads to processors

    def _processor() -> int:
        return NOWHERE


def _take(count: int) -> list[Helper]:
    """Up to so many that are free; new ones where there are fewer in all."""
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
    _all.clear()
    _free.clear()


def _dismiss() -> None:
    """A thread that looks out while the interpreter ends would be cut off in the midst of it."""
    for helper in _all:
        helper.dismiss()


if hasattr(os, "register_at_fork"):  # a forked child has none of its parent's threads
    os.register_at_fork(after_in_child=_forget)
atexit.register(_dismiss)


def share(kernel: Callable, arguments: tuple, count: int, threads: int) -> None:
    """kernel(*arguments, pieces) on so many threads, until all of `count` pieces are finished.

    pieces: (5 LINE,) int64, for `begin`, `draw` and `finish` alone. What a kernel raises outside of
    pieces is raised if it was this thread's.
    """
    pieces = np.zeros(5 * LINE, np.int64)
    pieces[COUNT] = count
    helpers = _take(min(threads, count) - 1)
    if helpers:
        pieces[CALLS] = _calls.ctypes.data
        here = _processor()
    try:
        for helper in helpers:
            helper.keep_away_from(here)
            helper.ask(kernel, arguments, pieces)
        kernel(*arguments, pieces)
        if helpers:
            wait(pieces)
    finally:
        _free.extend([helper for helper in helpers if helper.excuse()])
