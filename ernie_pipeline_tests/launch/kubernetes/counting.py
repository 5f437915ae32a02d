"""Work of the tests that a pod does: twenty steps, each written down as a checkpoint is."""

from pathlib import Path

from ernie_pipeline_tests.launch.children import ChildJob

COUNTING = """
import os, sys, time
from pathlib import Path
from ernie_pipeline.training.stop import StopSignals
from ernie_pipeline.utils.errors import Stopped

def work(job, report):
    place = Path(job.number_file)
    with StopSignals() as stop:
        first = len(place.read_text().split()) if place.exists() else 0
        report(f"going on after step {first}", {})
        print("the last line that it says is f\u00fcnf \U0001f600", file=sys.stderr, flush=True)
        for step in range(first, 20):
            with place.open("a") as done:
                done.write(f"{step}\\n")
            report(f"step {step}", {"step": step, "pid": os.getpid()})
            while step == 5 and not (place.parent / "go").exists() and not stop.requested:
                time.sleep(0.05)
            if stop.requested:
                (place.parent / "saved").touch()
                raise Stopped(f"stopped by {stop.requested} after step {step}")
    (job.out / "made").write_text(f"{first}")
"""
"""After the sixth it waits for the file `go`."""


class CountJob(ChildJob):
    """Where the steps are written down."""

    number_file: Path
