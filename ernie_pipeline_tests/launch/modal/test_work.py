"""Real work on Modal comes to the very bytes that the local launcher's comes to, by the whole pipeline's commands."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.store.shared.bucket import Bucket
from ernie_pipeline_tests.launch.modal.app import ROOT
from ernie_pipeline_tests.launch.modal.standin import StandIn
from ernie_pipeline_tests.scenarios.chain import IN_PROCESS, QUICK_RECIPE, Run, finish, materialize, start
from ernie_pipeline_tests.store.shared.server import serving

LONGER = QUICK_RECIPE.replace("max_steps = 4", "max_steps = 20").replace("eval_every = 2", "eval_every = 10")
RECIPE = LONGER + "[execution]\ncheckpoint_s = 0.000001\n"
CHAIN = "*adapter_evaluation"
"""A training and an evaluation, and all that they need."""
INSTALL = """
import os
if "STAND_IN" in os.environ:
    from pathlib import Path
    import pytest
    from ernie_pipeline_tests.launch.modal.standin import StandIn
    StandIn(Path(os.environ["STAND_IN"])).install(pytest.MonkeyPatch())
"""
"""As `sitecustomize.py`: every process of a run has the stand-in, and no container."""


class Machine:
    """A machine with Dagster, whose jobs run on Modal. The home is a bucket's, and MLflow's database a file."""

    def __init__(self, folder: Path, address: str, modal: StandIn, environment: dict[str, str]):
        self.home, self.address, self.modal = folder / "cache", address, modal
        self.recipe = folder.parent / "recipe.toml"
        self.recipe.write_text(RECIPE)
        self.ahead = folder.parent / "ahead"
        self.ahead.mkdir(exist_ok=True)
        (self.ahead / "sitecustomize.py").write_text(INSTALL)
        folder.mkdir()
        self.environment = {
            **environment,
            "ERNIE_PIPELINE_HOME": address,
            "ERNIE_PIPELINE_CACHE": str(self.home),
            "ERNIE_PIPELINE_LEASE_SECONDS": "10",
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder.parent}/mlflow.db",
            "STAND_IN": str(modal.folder),
            "PYTHONPATH": os.pathsep.join([str(self.ahead), str(ROOT)]),
        }

    def start(self, select: str = "*", **jobs: Any) -> Any:
        gpu = {"launcher": "modal", "modal": {"gpus": 0, **jobs}, "cpu_threads": 1}
        config = {**IN_PROCESS, "resources": {"gpu": {"config": gpu}}}
        return start(self.home, recipe=self.recipe, select=select, config=config, **self.environment)

    def run(self, select: str = "*", **jobs: Any) -> Run:
        return finish(self.start(select, **jobs))


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a run by the local launcher."""
    folder = tmp_path_factory.mktemp("local")
    (folder / "recipe.toml").write_text(RECIPE)
    gpu = {"resources": {"gpu": {"config": {"cpu_threads": 1}}}}
    run = materialize(folder / "home", recipe=folder / "recipe.toml", select=CHAIN, config={**IN_PROCESS, **gpu})
    assert run.status == 0, run.output[-3000:]
    return folder / "home" / "store"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Machine]]:
    """Machines before one bucket."""
    with serving() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        address = f"{server.make_bucket('team')}/home"
        modal = StandIn(tmp_path / "modal")
        modal.folder.mkdir()
        yield lambda name: Machine(tmp_path / name, address, modal, server.environment)
        modal.end()


def files(store: Path, stage: str) -> dict[str, bytes]:
    """Of the only artifact, without its reports and its manifest."""
    [folder] = (store / stage).glob("[!.]*")
    found = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    return {name: body for name, body in found.items() if not name.startswith(("reports/", "manifest"))}


def wait_for_checkpoint(machine: Machine, step: int) -> None:
    """Until one of that step or a later one is in the bucket."""
    bucket, deadline = Bucket(machine.address), time.monotonic() + 240
    while True:
        for name in bucket.list("jobs"):
            if name.endswith("/index") and "/checkpoints/" in name:
                stored = bucket.get(f"jobs/{name}")
                kept = json.loads(stored.body.partition(b"\n")[2]) if stored else {}
                if any(int(file.split("/")[1].rpartition("-")[2]) >= step for file in kept if "/checkpoint-" in file):
                    return
        assert time.monotonic() < deadline, [call.log for call in machine.modal.calls]
        time.sleep(0.1)


def resumed(store: Path) -> list[int]:
    [run] = (store / "qlora_adapter").glob("[!.]*/reports/run.json")
    return list(json.loads(run.read_text())["resumed_from"])


def test_a_preempted_training_whose_step_s_machine_is_lost_too_is_gone_on_with_by_another_to_the_same_bytes(
    local: Path, machine: Callable[[str], Machine]
) -> None:
    """And the evaluation's artifact is the local launcher's too."""
    one = machine("one")
    started = one.start(CHAIN)
    wait_for_checkpoint(one, 3)
    call = one.modal.calls[-1]
    call.preempt()
    containers = {process.pid for process in call.family()}
    for process in started.family:
        if process.pid not in containers:
            process.kill()
    finish(started)
    other = machine("other")
    run = other.run(CHAIN)
    assert run.status == 0, run.output[-5000:]
    assert sorted(run.built) == ["adapter_evaluation", "qlora_adapter"], "the data is in the bucket"
    assert "attached" in run.output or "was done when its step ended" in run.output
    assert len(other.modal.calls) == 2, "nothing is trained twice"
    for stage in ("qlora_adapter", "adapter_evaluation"):
        assert files(other.home / "store", stage) == files(local, stage), stage
    assert [step >= 3 for step in resumed(other.home / "store")] == [True]
    bucket = Bucket(other.address)
    assert bucket.list("jobs") == {}, "what was published needs no job any more"
    assert bucket.list("rows"), "answers are kept for every machine"
