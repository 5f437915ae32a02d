"""Leases: of processes on several machines one holds it; a dead or paused owner loses it; clocks need not agree."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ernie_pipeline.store.shared.bucket import Bucket
from ernie_pipeline.store.shared.lease import Lease
from ernie_pipeline.store.shared.records import packed, unpacked
from ernie_pipeline_tests.store.shared.server import Server

KEY = "leases/stage-f00d"
OWNER = """
import sys
from ernie_pipeline.store.shared.bucket import Bucket
from ernie_pipeline.store.shared.lease import Lease

lease = Lease(Bucket(sys.argv[1]), sys.argv[2], seconds=float(sys.argv[3]))
lease.acquire(print)
print("holds", lease.token, flush=True)
sys.stdin.readline()
print("still holds" if lease.confirm() else "lost", flush=True)
lease.release()
"""


@contextmanager
def owner(bucket: Bucket, seconds: int = 1) -> "Iterator[subprocess.Popen[str]]":
    """A process that holds the lease, for so long at a time, until it hears a line."""
    pipe, root = subprocess.PIPE, Path(__file__).parents[3]
    command = [sys.executable, "-c", OWNER, bucket.address, KEY, str(seconds)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=root) as process:
        try:
            assert heard(process) == "holds 1"
            yield process
        finally:
            process.kill()


def heard(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_second_one_waits_until_the_first_gives_it_up_and_its_token_is_larger(bucket: Bucket) -> None:
    first, second, said = Lease(bucket, KEY, 30), Lease(bucket, KEY, 1), list[str]()
    first.acquire(said.append)
    waiter = threading.Thread(target=second.acquire, args=(said.append,))
    waiter.start()
    time.sleep(1.5)
    assert waiter.is_alive()
    assert first.confirm()
    first.release()
    waiter.join(5)
    assert not waiter.is_alive()
    assert second.token == first.token + 1 == 2
    assert [line.startswith(f"process {os.getpid()} on ") for line in said] == [True]
    assert not first.confirm()
    assert second.confirm()
    second.release()


def test_an_owner_that_lives_keeps_it_far_longer_than_it_lasts(bucket: Bucket) -> None:
    with owner(bucket, seconds=3) as process:
        waiting = Lease(bucket, KEY, 1)
        waiter = threading.Thread(target=waiting.acquire, args=(print,), daemon=True)
        waiter.start()
        time.sleep(7)
        assert waiter.is_alive()
        process.communicate("go on\n")
        waiter.join(5)
    assert waiting.token == 2
    waiting.release()


def test_a_paused_owner_loses_it_and_learns_so(bucket: Bucket) -> None:
    with owner(bucket) as process:
        process.send_signal(signal.SIGSTOP)
        successor, began = Lease(bucket, KEY, 60), time.monotonic()
        successor.acquire(print)
        assert 1 <= time.monotonic() - began < 4
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate("go on\n")
        assert out.split("\n")[0] == "lost"
    assert (successor.token, successor.confirm()) == (2, True)
    successor.release()


def test_a_killed_owner_loses_it(bucket: Bucket) -> None:
    with owner(bucket) as process:
        process.kill()
        successor = Lease(bucket, KEY, 60)
        successor.acquire(print)
    assert successor.token == 2
    successor.release()


def test_of_many_that_wait_for_a_dead_owner_one_takes_it(bucket: Bucket) -> None:
    bucket.create(KEY, packed({"pid": 1, "host": "gone", "since": "", "token": 7, "seconds": 1.0, "free": False}))
    leases = [Lease(bucket, KEY, 5) for _ in range(4)]
    for lease in leases:
        threading.Thread(target=lease.acquire, args=(lambda _: None,), daemon=True).start()
    time.sleep(2.5)
    assert sorted(lease.token for lease in leases) == [0, 0, 0, 8]
    for _ in range(3):  # and each gets it once
        next(lease for lease in leases if lease.confirm()).release()
        time.sleep(1.2)
    assert sorted(lease.token for lease in leases) == [8, 9, 10, 11]
    next(lease for lease in leases if lease.confirm()).release()


def test_an_altered_lease_is_taken_over_with_a_token_above_all_others(bucket: Bucket) -> None:
    bucket.put(KEY, b"garbage")
    lease = Lease(bucket, KEY, 30)
    lease.acquire(print)
    assert lease.token > 10**9
    lease.release()
    stored = bucket.get(KEY)
    assert stored
    values = unpacked(stored.body)
    assert values
    assert (values["free"], values["token"]) == (True, lease.token)


def test_requests_that_fail_for_a_while_lose_no_lease(server: Server, bucket: Bucket) -> None:
    lease = Lease(bucket, KEY, 1)
    lease.acquire(print)
    kinds = ("failing", "lost", "repeated", "slow", "lost", "failing")
    server.fail(*({"kind": kind, "match": "PUT", "seconds": 0.3} for kind in kinds))
    time.sleep(3)
    assert lease.confirm()
    assert len([line for line in server.requests() if line.split()[-1] in kinds]) == len(kinds)
    lease.release()
