"""What Dagster's real daemon does with a built home: watched in a thread beside other tests, as it mostly waits."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import dagster as dg
from dagster._core.scheduler.instigation import TickStatus

from ernie_pipeline_tests.scenarios.chain import finish, start_python, write_rows
from ernie_pipeline_tests.scenarios.staleness.workplace import DROPPED, ROWS, Workplace

ENDED = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
LOCATION = ["-m", "ernie_pipeline.definitions"]
WAIT_S = 180


@dataclass(frozen=True)
class Watched:
    """All runs, the oldest first; what each materialized, and whether it was reused; the last tick of each automation.

    A tick: its status, and why it skipped.
    """

    runs: list[dg.DagsterRun]
    reported: list[dict[str, bool]]
    ticks: dict[str, tuple[str, str]]


@dataclass(frozen=True)
class WatchedHome:
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


@contextmanager
def daemon_of(place: Workplace) -> Iterator[WatchedHome]:
    """The file holds the rows that the home was built from, and one that the filters drop."""
    rows, folder = place.home.parent / "rows.jsonl", place.home.parent / "dagster"
    write_rows(rows, [*ROWS, DROPPED])
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

    started_in = (place.home, place.recipe, place.code, environment)
    for kind in ("schedule", "sensor"):
        run = finish(start_python(command("dagster", kind, "start", "--start-all"), *started_in))
        assert run.status == 0, run.output
    daemon = start_python(command("dagster._daemon", "run"), *started_in)
    try:
        yield WatchedHome(rows, dg.DagsterInstance.from_config(str(folder)))
    finally:
        daemon.process.terminate()
        finish(daemon)


def watch(place: Workplace, stop: Event) -> Watched:
    """Its daemon builds what is stale; then a broken row comes, and another evaluation of each after that failed."""

    def until(reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not reached():
            assert time.monotonic() < deadline
            assert not stop.wait(0.2), "the tests ended before it"

    with daemon_of(place) as site:
        until(lambda: bool(site.runs()) and "raw_nemotron" in site.reported(site.runs()[0]))
        with site.rows.open("a") as rows:  # while that run is under way: it does not concern it
            rows.write('{"question": "cut o\n')
        until(lambda: any("is STARTED: the next evaluation" in reason for _, reason in site.ticks("source_changed")))
        until(lambda: len(site.runs()) >= 2 and all(run.status in ENDED for run in site.runs()))
        before = {name: len(site.ticks(name)) for name in ("source_changed", "ernie_refresh")}
        until(lambda: all(len(site.ticks(name)) > count for name, count in before.items()))
        runs = site.runs()
        return Watched(runs, [site.reported(run) for run in runs], {name: site.ticks(name)[-1] for name in before})
