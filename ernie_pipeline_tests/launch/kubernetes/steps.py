"""Steps of one build in a home of their own, one after the other, whose jobs are pods of the stand-in."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg

from ernie_pipeline.launch.detached.followed import Patience
from ernie_pipeline.launch.detached.launcher import FOLDER, DetachedLauncher
from ernie_pipeline.launch.kubernetes.api import Api
from ernie_pipeline.launch.kubernetes.engine import KubernetesEngine
from ernie_pipeline.launch.kubernetes.pod import PodSettings
from ernie_pipeline.launch.launcher import Launch, OnProgress, ignore_progress
from ernie_pipeline_tests.launch.children import work_in
from ernie_pipeline_tests.launch.following import killed_step, step_with
from ernie_pipeline_tests.launch.kubernetes.counting import CountJob


class Steps:
    """Of the work in the module `work`, in the folder `place`."""

    def __init__(self, place: Path, kubeconfig: Path, work: str):
        self.place, self.kubeconfig, self.work = place, kubeconfig, work
        self.state, self.counted = place / "unfinished", place / "counted"

    def engine(self, pending_s: float = 60.0, **pods: Any) -> KubernetesEngine:
        """On the stand-in."""
        given = {"image": "ernie", "volume_claim": "home", "mount_path": str(self.place), "python": sys.executable}
        return KubernetesEngine(Api(str(self.kubeconfig)), PodSettings(**{**given, **pods}), pending_s)

    def launch(self, **changes: Any) -> Launch:
        """The job, into a folder of this step's own."""
        out = self.place / f"out-{time.monotonic_ns()}"
        out.mkdir()
        work = work_in(self.work).model_copy(update={"job": f"{CountJob.__module__}:{CountJob.__qualname__}"})
        job = CountJob(out=out, number_file=self.counted)
        given = {"threads": 1, "key": self.place.name, "state": self.state, "stop_grace_s": 20, **changes}
        return Launch(work=work, job=job, **given)

    def run(
        self,
        launch: Launch,
        on_progress: OnProgress = ignore_progress,
        engine: KubernetesEngine | None = None,
        **patience: Any,
    ) -> tuple[dg.ExecuteInProcessResult, list[str]]:
        """A step in this process; what its log says."""
        launcher = DetachedLauncher(engine or self.engine(), Patience(**patience))
        return step_with(launcher, launch, on_progress)

    def killed_step(self, when: Callable[[], bool]) -> None:
        """A step in a process of its own, killed outright then."""
        code = (
            "import sys\nfrom pathlib import Path\n"
            "from ernie_pipeline_tests.launch.kubernetes.steps import Steps\n"
            "steps = Steps(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])\nsteps.run(steps.launch())\n"
        )
        arguments = [str(self.place), str(self.kubeconfig), self.work]
        killed_step(code, arguments, self.place / "killed.log", when)

    @property
    def steps(self) -> list[int]:
        """The steps that were made, in their order."""
        return [int(step) for step in self.counted.read_text().split()] if self.counted.exists() else []

    @property
    def job_folder(self) -> Path:
        """Of the one job."""
        return self.state / FOLDER / self.work
