"""Scenario 18, with Dagster's real daemon: the schedule's ticks, the sensor's ticks, and the runs that they launch."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.scheduler.instigation import TickStatus

from ernie_pipeline_tests.scenarios.chain import ASSETS, finish, row, start_python, write_rows
from ernie_pipeline_tests.scenarios.staleness.workplace import ROWS, Workplace

ENDED = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
LOCATION = ["-m", "ernie_pipeline.definitions"]


@dataclass(frozen=True)
class Site:
    """A built home whose rows come from `rows`, and the instance whose daemon looks at it every few seconds."""

    rows: Path
    instance: dg.DagsterInstance

    def runs(self) -> list[dg.DagsterRun]:
        """All runs, the oldest first."""
        return list(self.instance.get_runs(ascending=True))

    def ticks(self, name: str) -> list[tuple[str, str]]:
        """The status of each tick that ended of the schedule or sensor, oldest first, and why it skipped."""
        [state] = [s for s in self.instance.all_instigator_state() if s.name == name]
        ticks = self.instance.get_ticks(state.instigator_origin_id, state.selector_id)
        ended = [tick for tick in reversed(ticks) if tick.status != TickStatus.STARTED]
        return [(tick.status.value, tick.skip_reason or "") for tick in ended]

    def reported(self, run: dg.DagsterRun) -> dict[str, bool]:
        """What the run materialized, and whether it was reused."""
        events = self.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        found = [event.asset_materialization for event in events]
        return {m.asset_key.to_user_string(): bool(m.metadata["reused"].value) for m in found if m}


@pytest.fixture
def site(built: Workplace, tmp_path: Path) -> Iterator[Site]:
    """The file holds the rows that the home was built from, and one that the filters drop."""
    rows = tmp_path / "rows.jsonl"
    write_rows(rows, [*ROWS, row("1 + 1 = ?", "2")])
    folder = tmp_path / "dagster"
    folder.mkdir()
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    environment = {
        "DAGSTER_HOME": str(folder),
        "ERNIE_PIPELINE_SOURCE": str(rows),
        "ERNIE_PIPELINE_CRON": "* * * * *",
        "ERNIE_PIPELINE_SENSOR_SECONDS": "5",
    }

    def command(*arguments: str) -> list[str]:
        return ["-m", *arguments, *LOCATION]

    place = (built.home, built.recipe, built.code, environment)
    for kind in ("schedule", "sensor"):
        run = finish(start_python(command("dagster", kind, "start", "--start-all"), *place))
        assert run.status == 0, run.output
    daemon = start_python(command("dagster._daemon", "run"), *place)
    try:
        yield Site(rows, dg.DagsterInstance.from_config(str(folder)))
    finally:
        daemon.process.terminate()
        finish(daemon)


def test_the_daemon_builds_what_is_stale_once_and_leaves_a_failed_refresh_alone(site: Site) -> None:
    _until(lambda: bool(site.runs()) and "raw_nemotron" in site.reported(site.runs()[0]))
    with site.rows.open("a") as rows:  # while that run is under way: it does not concern it
        rows.write('{"question": "cut o\n')
    _until(lambda: any("is STARTED: the next evaluation" in reason for _, reason in site.ticks("source_changed")))
    _until(lambda: len(site.runs()) >= 2 and all(run.status in ENDED for run in site.runs()))
    before = {name: len(site.ticks(name)) for name in ("source_changed", "ernie_refresh")}
    _until(lambda: all(len(site.ticks(name)) > count for name, count in before.items()))
    first, second = site.runs()

    assert (first.job_name, first.status) == ("refresh", dg.DagsterRunStatus.SUCCESS)
    assert {key.to_user_string() for key in first.asset_selection or ()} == set(ASSETS)
    assert site.reported(first) == {name: name not in ("raw_nemotron", "math_split") for name in ASSETS}
    assert (second.job_name, second.status) == ("refresh", dg.DagsterRunStatus.FAILURE)
    after = {name: site.ticks(name)[-1] for name in before}
    assert {status for status, _ in after.values()} == {"SKIPPED"}
    assert "the sources are as they were" in after["source_changed"][1]
    assert f"run {second.run_id} for the same recipe, code and sources ended" in after["ernie_refresh"][1]


def _until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 180
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.2)
