"""compose.yaml's services at work on PostgreSQL: schedule, sensor, a queue of runs, and what is killed among them."""

import os
import re
import signal
from itertools import pairwise

import pytest

from ernie_pipeline_tests.deploy.compose import Services
from ernie_pipeline_tests.deploy.webserver import ENDED, Webserver, until
from ernie_pipeline_tests.scenarios.chain import QUICK_RECIPE, builds

QUEUED = 20
GPU_STEP = "qlora_adapter"
UP_TO_IT = ["raw_nemotron", "math_split", "verified_solutions", GPU_STEP]
STALE = {"raw_nemotron", "math_split", "qlora_adapter", "base_evaluation", "adapter_evaluation", "registered_model"}


@pytest.fixture(scope="module")
def services(services: Services) -> Services:
    """All of Dagster's, healthy; the schedule may tick every minute, the sensor every 15 seconds."""
    write_recipe(services, steps=12)
    services.extra = {"ERNIE_PIPELINE_CRON": "* * * * *", "ERNIE_PIPELINE_SENSOR_SECONDS": "15"}
    services.start("code")
    services.wait_healthy("code")
    for then in ("webserver", "daemon"):
        services.start(then)
    for then in ("webserver", "daemon"):
        services.wait_healthy(then)
    return services


@pytest.fixture(scope="module")
def webserver(services: Services) -> Webserver:
    return Webserver(services.url("3000"))


def write_recipe(services: Services, steps: int) -> None:
    """Another number of training steps makes the adapter stale, and nothing above it."""
    recipe = QUICK_RECIPE.replace("max_steps = 2", f"max_steps = {steps}").replace("rows = 12", "rows = 4")
    (services.folder / "recipe.toml").write_text(recipe)


def events(services: Services, kind: str, step: str = "") -> list[tuple[str, float]]:
    """Run id and second of each event of a kind, the oldest first."""
    of_step = f"AND step_key = '{step}'" if step else ""
    found = services.cluster.sql(
        "SELECT run_id, extract(epoch FROM timestamp) FROM event_logs "
        f"WHERE dagster_event_type = '{kind}' {of_step} ORDER BY timestamp",
        "dagster",
    )
    return [(line.split("|")[0], float(line.split("|")[1])) for line in found.splitlines()]


def test_a_refresh_outlives_a_restart_of_postgresql(services: Services, webserver: Webserver) -> None:
    """The sensor asks for it; the schedule then finds nothing stale. MLflow is on the same PostgreSQL."""
    services.start("mlflow")
    switched_on = webserver.switch_on(sensor="source_changed", schedule="ernie_refresh")
    until(lambda: len(events(services, "ASSET_OBSERVATION", GPU_STEP)) > 2, "the training's progress is reported")
    services.cluster.stop()
    services.cluster.start()
    until(lambda: webserver.runs()[0]["status"] in ENDED, "the refresh ended")
    first = webserver.runs()[0]
    assert (first["jobName"], first["status"]) == ("refresh", "SUCCESS"), services.log("code").read_text()[-3000:]
    built = {line.split("|")[0] for line in events_by_step(services, first["runId"])}
    assert built - {"verified_solutions"} == STALE
    assert services.cluster.sql("SELECT name, version FROM model_versions", "mlflow") == "quick|1"
    until(lambda: any("nothing is stale" in why for _, why in webserver.ticks("ernie_refresh")), "the next tick")
    assert len(webserver.runs()) == 1
    assert [alive for alive in services.running.values() if alive.poll() is not None] == [], "no service ended"
    webserver.switch_off(switched_on)  # they would ask for runs among those of the other tests


def events_by_step(services: Services, run: str) -> list[str]:
    """The steps of the run that succeeded."""
    statement = f"SELECT step_key FROM event_logs WHERE run_id = '{run}' AND dagster_event_type = 'STEP_SUCCESS'"
    return services.cluster.sql(statement, "dagster").splitlines()


def test_20_runs_in_the_queue_end_once_each_though_the_daemon_is_killed(
    services: Services, webserver: Webserver
) -> None:
    """All of them want the one GPU; the first to get it builds the adapter, the others reuse it.

    The daemon is killed while the first one works and so no other is launched. One that it was about to launch would
    stay STARTING, without a process, until `start_timeout_seconds` have passed; then it is failed, and retried.
    """
    write_recipe(services, steps=2)
    before = builds(services.folder / "ernie").get(GPU_STEP, 0)
    ours = [webserver.launch([GPU_STEP]) for _ in range(QUEUED)]
    until(lambda: ours[0] in dict(events(services, "STEP_START", GPU_STEP)), "the first one works")
    services.kill("daemon")
    assert webserver.statuses(ours) == ["STARTED"] + ["QUEUED"] * (QUEUED - 1), "it was killed while runs waited"
    services.start("daemon")
    until(lambda: ENDED.issuperset(webserver.statuses(ours)), "all ended")
    assert webserver.statuses(ours) == ["SUCCESS"] * QUEUED
    started = [run for run, _ in events(services, "PIPELINE_START") if run in ours]
    assert sorted(started) == sorted(ours), "each began once"
    begun, done = (dict(events(services, kind, GPU_STEP)) for kind in ("STEP_START", "STEP_SUCCESS"))
    spans = sorted((begun[run], done[run]) for run in ours)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans)), "two at once on one GPU"
    built = builds(services.folder / "ernie")
    assert built[GPU_STEP] == before + 1
    assert (built["raw_nemotron"], built["math_split"]) == (1, 1)


def test_a_run_whose_process_was_killed_fails_and_is_retried(services: Services, webserver: Webserver) -> None:
    write_recipe(services, steps=13)
    built = builds(services.folder / "ernie").get(GPU_STEP, 0)
    killed = webserver.launch(UP_TO_IT)
    until(lambda: killed in dict(events(services, "STEP_START", GPU_STEP)), "the training began")
    said = services.cluster.sql(f"SELECT event FROM event_logs WHERE run_id = '{killed}'", "dagster")
    found = re.search(r"Started process for run \(pid: (\d+)\)", said)
    assert found, "the log names the run's process"
    os.kill(int(found[1]), signal.SIGKILL)
    until(lambda: any(run["parentRunId"] == killed for run in webserver.runs()), "it is launched again")
    [again] = [run for run in webserver.runs() if run["parentRunId"] == killed]
    until(lambda: webserver.statuses([again["runId"]])[0] in ENDED, "the retry ended")
    assert webserver.statuses([killed, again["runId"]]) == ["FAILURE", "SUCCESS"]
    assert builds(services.folder / "ernie")[GPU_STEP] == built + 1
