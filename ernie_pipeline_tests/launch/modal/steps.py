"""Steps of one build on Modal, and the work that most tests give them."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg

from ernie_pipeline.launch.detached.followed import Patience
from ernie_pipeline.launch.detached.launcher import DetachedLauncher
from ernie_pipeline.launch.launcher import Launch, OnProgress, ignore_progress
from ernie_pipeline.launch.modal.engine import ModalEngine
from ernie_pipeline.store.shared.bucket import Bucket
from ernie_pipeline_tests.launch.children import ChildJob, work_in
from ernie_pipeline_tests.launch.following import killed_step, step_with
from ernie_pipeline_tests.launch.modal.standin import StandIn

WORK = "modal_work_of_test"
KEY = ("stage", "f00d")

COUNTING = """
import os, time
from pathlib import Path
from ernie_pipeline.store.shared.bucket import Bucket
from ernie_pipeline.training.stop import StopSignals
from ernie_pipeline.utils.errors import PipelineError

def work(job, report):
    place, bucket = Path(job.counted), Bucket(job.home)
    place.parent.mkdir(parents=True, exist_ok=True)
    bucket.list("go")  # one that has answered is waited for
    with StopSignals() as stop:
        first = len(place.read_text().split()) if place.exists() else 0
        report(f"going on after step {first}", {})
        for step in range(first, 20):
            with place.open("a") as done:
                done.write(f"{step}\\n")
            report(f"step {step}", {"step": step, "pid": os.getpid()})
            while step >= 5 and not bucket.get("go") and not stop.requested:
                time.sleep(0.1)
            if stop.requested:
                raise PipelineError(f"stopped by {stop.requested} after step {step}")
    (job.out / "made").write_text(place.read_text())
    (job.out / "reports").mkdir()
    (job.out / "reports" / "first").write_text(f"{first}")
"""
"""Twenty steps, each written down as a checkpoint is; from the sixth on it waits for the bucket's object `go`."""


class CountJob(ChildJob):
    """Where the steps are written down, and the bucket."""

    counted: Path
    home: str


class Steps:
    """One after the other, each with a launcher of its own. `home`: the cache of the home in the bucket `address`."""

    def __init__(self, home: Path, address: str, modal: StandIn, image: Path):
        self.home, self.address, self.modal, self.image = home, address, modal, image
        self.bucket = Bucket(address)
        self.state = home / "store" / ".unfinished" / KEY[0] / KEY[1]
        self.work(COUNTING)

    def work(self, code: str) -> None:
        """What the function's image has for it."""
        (self.image / f"{WORK}.py").write_text(code)

    def launch(self, **changes: Any) -> Launch:
        """The job, into a folder of this step's own."""
        out = self.home / "store" / KEY[0] / f".{KEY[1]}.{time.monotonic_ns():x}"
        out.mkdir(parents=True)
        work = work_in(WORK).model_copy(update={"job": f"{CountJob.__module__}:{CountJob.__qualname__}"})
        job = CountJob(out=out, counted=self.state / "checkpoints" / "counted", home=self.address)
        given = {"threads": 1, "key": "-".join(KEY), "state": self.state, "stop_grace_s": 20, **changes}
        return Launch(**{"work": work, "job": job, **given})

    def run(
        self, launch: Launch, on_progress: OnProgress = ignore_progress, **patience: Any
    ) -> tuple[dg.ExecuteInProcessResult, list[str]]:
        """A step in this process; what its log says."""
        engine = ModalEngine("app", self.address, self.home)
        launcher = DetachedLauncher(engine, Patience(**patience), 1, engine.place)
        return step_with(launcher, launch, on_progress)

    def killed_step(self, when: Callable[[], bool], changes: str = "") -> None:
        """A step in a process of its own, killed outright then. `changes`: what is given to `launch`, as code."""
        self.launch()  # the folders
        code = (
            "import sys, pytest\nfrom pathlib import Path\n"
            "from ernie_pipeline_tests.launch.modal.standin import StandIn\n"
            "from ernie_pipeline_tests.launch.modal.steps import Steps\n"
            "home, address, modal, image = sys.argv[1:]\n"
            "standin = StandIn(Path(modal)).install(pytest.MonkeyPatch())\n"
            "steps = Steps(Path(home), address, standin, Path(image))\n"
            f"print(steps.run(steps.launch({changes})))\n"
        )
        arguments = [str(self.home), self.address, str(self.modal.folder), str(self.image)]
        killed_step(code, arguments, self.home / "killed.log", when, start_new_session=True)

    def go(self) -> None:
        """The work need not wait any more."""
        self.bucket.put("go", b"go")

    def said(self, words: str) -> bool:
        """Whether the job's messages in the bucket have the words."""
        listed = self.bucket.list("jobs/stage-f00d")
        stored = [self.bucket.get(f"jobs/stage-f00d/{name}") for name in listed if "/messages." in name]
        return any(words.encode() in each.body for each in stored if each)

    def saved(self) -> bool:
        """Whether a checkpoint has been sent by the latest start."""
        return any(name.endswith("/index") for name in self.bucket.list(f"jobs/stage-f00d/{WORK}/checkpoints"))


def made(launch: Launch) -> list[int]:
    """The steps as the job's file has them, in their order."""
    return [int(step) for step in (launch.job.out / "made").read_text().split()]  # type: ignore[attr-defined]
