import os
from multiprocessing import active_children

from ernie_pipeline.utils.worker_pool import worker_pool


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
