"""Worker processes end with their pool's process, however that ends."""

import os
import subprocess
import sys
import time
from multiprocessing import active_children
from pathlib import Path

import psutil

from ernie_pipeline.utils.worker_pool import POLL_S, worker_pool

POOL = """
import time
from ernie_pipeline.utils.worker_pool import worker_pool
from ernie_pipeline_tests.utils.test_worker_pool import busy, nothing
if __name__ == "__main__":
    with worker_pool(100, 2, nothing) as pool:
        for answer in range(2):
            pool.schedule(busy, args=[120])
        time.sleep(120)
"""


def nothing() -> None:
    """A worker's warm-up."""


def busy(seconds: float) -> None:
    """An answer that takes a long time, and notes nothing of what happens around it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_a_busy_worker_ends_when_its_pool_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(POOL)
    root = str(Path(__file__).parents[2])
    pool = subprocess.Popen([sys.executable, str(program)], cwd=root, env={"PYTHONPATH": root})
    workers: list[psutil.Process] = []
    try:
        deadline = time.monotonic() + 60
        while len(workers) < 2 or min(sum(one.cpu_times()[:2]) for one in workers) < 1:
            assert time.monotonic() < deadline, "no worker is at work"
            time.sleep(0.2)
            children = psutil.Process(pool.pid).children()
            workers = [one for one in children if "spawn_main" in " ".join(one.cmdline())]
    finally:
        pool.kill()
        pool.wait()
    _, left = psutil.wait_procs(workers, timeout=10 * POLL_S)
    for one in left:
        one.kill()
    assert left == []


def test_no_worker_is_there_when_the_semaphores_go() -> None:
    """One that was still starting printed the first line of a traceback: it found no semaphores, and was killed."""
    before, left = set(active_children()), []
    with worker_pool(2, 2, os.getpid) as pool:
        pool.schedule(os.getpid).result()  # the other worker may not be there yet
        manager = pool._pool_manager.worker_manager
        close = manager.close_channels

        def close_channels() -> None:
            left.append(set(active_children()) - before)
            close()

        manager.close_channels = close_channels
    assert left == [set()]


def test_a_pool_that_nothing_was_given_ends() -> None:
    with worker_pool(2, 2, os.getpid):
        pass
