"""Worker processes that can be killed, for what an answer can make cost any time and memory."""

import multiprocessing
import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pebble import ProcessPool

MAX_WORKERS = 8
"""Unless told otherwise: two of these grade thousands of answers in a second, and each costs CPU to start."""

WORKER_MEMORY = 2 * 2**30
"""Bytes of address space that an answer may take beyond what its worker took at start; Linux only."""


@contextmanager
def worker_pool(answers: int, workers: int | None, warm_up: Callable[[], object]) -> "Iterator[ProcessPool]":
    """A pool of `workers` processes (None: as many as cores, at most `MAX_WORKERS`), no more than there are `answers`.

    Each is made ready outside every answer's time: it calls `warm_up`, with all that it imports. None outlives the
    context.
    """
    from pebble import ProcessPool  # not needed to open the code location

    count = min(workers or min(os.cpu_count() or 1, MAX_WORKERS), answers)
    # spawn: a fork would copy the locks of the caller's threads (torch, Polars), and its CUDA context
    context = multiprocessing.get_context("spawn")
    pool = ProcessPool(count, initializer=prepare_worker, initargs=[warm_up], context=context)
    try:
        yield pool
    finally:
        _end(pool)


def _end(pool: "ProcessPool") -> None:
    """End the workers, then the semaphores that they share.

    Pebble's own order is the other way round: a worker that is still starting finds no semaphores, and prints a
    traceback.
    """
    pool.stop()  # type: ignore[no-untyped-call]
    if loop := pool._pool_manager_loop:  # starts the workers; none where no answer was ever given
        loop.join()
        pool._pool_manager.worker_manager.force_stop_workers()
    pool.join()


def prepare_worker(warm_up: Callable[[], object]) -> None:
    """Make this process ready, as `worker_pool` says; runs once in each worker, outside every answer's time."""
    # gmpy2 aborts the process where Python's integers raise MemoryError: keep sympy and mpmath off it, if it is there
    os.environ.update(SYMPY_GROUND_TYPES="python", MPMATH_NOGMPY="1")
    warnings.simplefilter("ignore")
    warm_up()
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + WORKER_MEMORY
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))


def end_if_orphaned(timeout_s: float) -> None:
    """Should the parent die, nobody would end this worker: after twice the time, as CPU time, the kernel does."""
    signal.setitimer(signal.ITIMER_PROF, 2 * timeout_s + 1)
