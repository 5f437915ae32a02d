"""Worker processes that can be killed, for what an answer can make cost any time and memory."""

import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
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

POLL_S = 1.0
"""How often a worker looks whether its pool's process is still there."""


@contextmanager
def worker_pool(answers: int, workers: int | None, warm_up: Callable[[], object]) -> "Iterator[ProcessPool]":
    """A pool of `workers` processes (None: as many as cores, at most `MAX_WORKERS`), no more than there are `answers`.

    Each is made ready outside every answer's time: it calls `warm_up`, with all that it imports. None outlives the
    context, nor this process, however it ends.
    """
    from pebble import ProcessPool  # not needed to open the code location

    count = min(workers or min(os.cpu_count() or 1, MAX_WORKERS), answers)
    # spawn: a fork would copy the locks of the caller's threads (torch, Polars), and its CUDA context
    context = multiprocessing.get_context("spawn")
    pool = ProcessPool(count, initializer=prepare_worker, initargs=[warm_up, os.getpid()], context=context)
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


def prepare_worker(warm_up: Callable[[], object], parent: int) -> None:
    """Make this process ready, as `worker_pool` says; runs once in each worker, outside every answer's time.

    `parent`: the process whose worker it is. A pool that is killed ends no worker that is busy.
    """
    threading.Thread(target=_end_with, args=(parent,), name="ends with the pool", daemon=True).start()
    # gmpy2 aborts the process where Python's integers raise MemoryError: keep sympy and mpmath off it, if it is there
    os.environ.update(SYMPY_GROUND_TYPES="python", MPMATH_NOGMPY="1")
    warnings.simplefilter("ignore")
    warm_up()
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + WORKER_MEMORY
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_S)
    os._exit(1)


def end_if_orphaned(timeout_s: float) -> None:
    """Should the parent die while this worker's interpreter is stuck in one long operation, so that its own thread
    cannot end it: after twice the time, as CPU time, the kernel does."""
    signal.setitimer(signal.ITIMER_PROF, 2 * timeout_s + 1)
