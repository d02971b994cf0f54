"""Tasks that threads share: each is done once, whoever helps, and nobody is waited for in vain."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import numpy as np
import pytest
import torch

NAME = "bnnlib.kernels.cpu.thread_pool"
thread_pool = pytest.importorskip(NAME, reason="needs Numba", exc_type=ImportError)
numba = pytest.importorskip("numba")

from bnnlib.kernels.cpu.parallel_for import in_parts  # noqa: E402
from study import ROOT  # noqa: E402

SECONDS = 300  # after which a thread or process counts as stuck
SLEEP = 0.05  # long after a helper has gone to sleep


@numba.njit(nogil=True)
def count_up(times, work, tasks):
    """Add 1 to times[task], after as much work as is said."""
    begin(tasks)
    task = next_task(tasks)
    while task >= 0:
        total = 0
        for i in range(work):
            total += i ^ (total >> 1)
        times[task] += 1 + (total & 0)
        finish(tasks)
        task = next_task(tasks)


begin = thread_pool.begin
next_task = thread_pool.next_task
finish = thread_pool.finish


def share(count: int, threads: int, work: int = 1000) -> list[int]:
    """How often each task was done."""
    times = np.zeros(count, np.int64)
    thread_pool.share(count_up, (times, work), count, threads)
    return times.tolist()


@pytest.fixture(autouse=True)
def alone():
    """Begin without helpers."""
    thread_pool._stop_all()
    thread_pool._forget()


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 1000])
def test_each_task_is_done_once(count, threads):
    for _ in range(20):
        assert share(count, threads) == [1] * count
    assert len(thread_pool._all) == max(0, min(threads, count) - 1)


def test_helpers_help():
    """No thread is done with its task before all three have one."""
    doers, all_have_one = set(), threading.Barrier(3)

    def kernel(shared):
        do_tasks(shared, lambda: (doers.add(threading.get_ident()), all_have_one.wait(SECONDS)))

    thread_pool.share(kernel, (), 3, 3)
    assert len(doers) == 3


def do_tasks(shared: np.ndarray, act) -> None:
    """What a kernel does, in Python."""
    begin(shared)
    while next_task(shared) >= 0:
        act()
        finish(shared)


def test_a_helper_that_sleeps_is_woken():
    share(4, 2)
    time.sleep(SLEEP)
    test_helpers_help()


@pytest.fixture
def never_woken():
    """A helper that is given tasks, but sleeps on."""
    share(4, 2)
    time.sleep(SLEEP)
    helper = thread_pool._all[0]
    listens, helper._submitted = helper._submitted, SimpleQueue()
    yield helper
    helper._submitted = listens


def test_who_comes_too_late_is_not_waited_for(never_woken):
    for _ in range(3):
        assert share(4, 2) == [1] * 4
        assert thread_pool._free == [never_woken]


def test_what_the_caller_raises_is_raised_and_the_helpers_are_free_again(never_woken):
    def kernel(shared):
        raise OverflowError

    with pytest.raises(OverflowError):
        thread_pool.share(kernel, (), 2, 2)
    assert thread_pool._free == [never_woken]


def test_many_threads_share_the_helpers():
    """Who finds none free works alone."""
    with ThreadPoolExecutor(6) as pool:
        futures = [pool.submit(share, 5, 3) for _ in range(600)]
        assert all(future.result(SECONDS) == [1] * 5 for future in futures)


def test_a_helper_that_fails_leaves_it_to_the_caller():
    caller = threading.get_ident()
    times = []

    def kernel(shared):
        if threading.get_ident() != caller:
            begin(shared)
            raise MemoryError
        do_tasks(shared, lambda: (times.append(1), time.sleep(SLEEP / 4)))

    for _ in range(2):
        thread_pool.share(kernel, (), 4, 2)
        assert len(times) == 4
        times.clear()


@pytest.mark.parametrize("threads", [1, 3])
def test_parts_cover_everything_and_what_one_raises_is_raised_when_all_are_done(threads):
    done = np.zeros(50, np.int64)

    def part(first: int, last: int) -> None:
        assert first % 4 == 0
        done[first:last] += 1
        if first == 0:
            raise OverflowError

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    with pytest.raises(OverflowError):
        in_parts(part, len(done), multiple=4)
    torch.set_num_threads(before)
    assert done.tolist() == [1] * len(done)


def in_a_child() -> None:
    os._exit(share(7, 3) != [1] * 7)


def test_a_forked_child_has_helpers_of_its_own():
    assert share(7, 3) == [1] * 7
    child = multiprocessing.get_context("fork").Process(target=in_a_child)
    child.start()
    child.join(SECONDS)
    assert child.exitcode == 0
    assert share(7, 3) == [1] * 7


def test_a_process_ends_while_helpers_spin():
    code = """
import torch
torch.set_num_threads(3)
from bnnlib.kernels import cpu
cpu.FEWEST_SIGNS_SHARED = 0
from bnnlib.xnor import pack_signs, pack_weights, xnor_matmul
x = torch.ones(3, 70)
xnor_matmul(pack_signs(x), pack_weights(torch.ones(500, 70)))
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, timeout=SECONDS, capture_output=True
        )
        assert (done.returncode, done.stderr) == (0, b"")


@pytest.fixture
def processors():
    """Those that this thread may use, and may use again afterwards."""
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("there is nothing to choose")
    allowed = os.sched_getaffinity(0)
    yield allowed
    os.sched_setaffinity(0, allowed)


def test_a_thread_knows_its_processor(processors):
    for processor in processors:
        os.sched_setaffinity(0, {processor})
        assert thread_pool._processor() == processor


def test_a_helper_keeps_off_the_processor_of_its_caller(processors):
    assert share(4, 2) == [1] * 4
    helper = thread_pool._all[0]
    for processor in sorted(processors) * 2:
        helper.keep_away_from(processor)
        assert os.sched_getaffinity(helper._thread.native_id) == processors - {processor}


def test_callers_with_one_processor_leave_helpers_where_they_are(processors):
    assert share(4, 2) == [1] * 4
    helper, first = thread_pool._all[0], min(processors)
    helper.keep_away_from(first)
    elsewhere = os.sched_getaffinity(helper._thread.native_id)
    other = min(elsewhere)
    os.sched_setaffinity(0, {other})
    helper.keep_away_from(other)  # who has no other processor
    assert os.sched_getaffinity(helper._thread.native_id) == elsewhere
    os.sched_setaffinity(0, processors)
    helper.keep_away_from(other)
    assert os.sched_getaffinity(helper._thread.native_id) == processors - {other}


def test_what_was_done_is_not_held():
    """A helper that sleeps keeps no array of its last work."""
    times = np.zeros(4, np.int64)
    before = sys.getrefcount(times)
    thread_pool.share(count_up, (times, 1000), 4, 2)
    time.sleep(SLEEP)
    assert sys.getrefcount(times) == before
