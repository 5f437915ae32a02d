"""What a home in a bucket costs: requests and seconds of a chain of seven stages, against a server on loopback.

    python -m benchmarks.store.shared_home

The stages' work takes milliseconds, so what is measured is the store. The requests are exact; over a network a request
takes its round trip, which the last lines stand for.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ernie_pipeline.staleness.chain import Chain
from ernie_pipeline.staleness.plan import make_plan
from ernie_pipeline.store.shared.bucket import Bucket
from ernie_pipeline_tests.scenarios.homes import InBucket, in_a_bucket
from ernie_pipeline_tests.staleness.chains import chain_of, walk
from ernie_pipeline_tests.store.shared.machines import machine

LARGE = 200 * 2**20


def measure(homes: InBucket, what: str, work: Callable[[], object], round_trip_s: float = 0.0) -> None:
    """Print the requests that `work` makes and the seconds it takes, each request `round_trip_s` later."""
    slow = {"kind": "slow", "seconds": round_trip_s, "times": 10**6}
    homes.server.fail(*([slow] if round_trip_s else []))
    began = time.monotonic()
    work()
    seconds, requests = time.monotonic() - began, len(homes.server.requests())
    homes.server.fail()
    print(f"{what:<50} {requests:>4} requests  {seconds:6.2f} s", flush=True)


def main() -> None:
    with in_a_bucket() as homes, tempfile.TemporaryDirectory() as temporary:
        folder, bucket = Path(temporary), Bucket("s3://homes/benchmark")

        def store(name: str, fetch: bool = True) -> Chain:
            return chain_of(machine(folder / name, bucket, fetch))

        measure(homes, "build all", lambda: walk(store("first")))
        measure(homes, "reuse all", lambda: walk(store("first")))
        measure(homes, "reuse all on a second machine (downloads)", lambda: walk(store("second")))
        measure(homes, "plan", lambda: make_plan(store("first", fetch=False)))
        measure(homes, "plan on a third machine", lambda: make_plan(store("third", fetch=False)))
        for milliseconds in (20, 100):
            late = milliseconds / 1000
            measure(homes, f"plan at {milliseconds} ms a request", lambda: make_plan(store("first", False)), late)
        (folder / "large").write_bytes(bytes(LARGE))
        measure(homes, "200 MiB up", lambda: bucket.put("large", folder / "large"))
        measure(homes, "200 MiB down, hashed", lambda: bucket.download("large", folder / "copy"))


if __name__ == "__main__":
    main()
