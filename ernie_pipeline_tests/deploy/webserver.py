"""What the tests ask of Dagster's webserver, by GraphQL as its own pages do."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ernie_pipeline_tests.scenarios.chain import IN_PROCESS

LOCATION = {"repositoryLocationName": "ernie_pipeline", "repositoryName": "__repository__"}
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}

LAUNCH = """mutation($params: ExecutionParams!) { launchPipelineExecution(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
RUNS = """{ runsOrError { ... on Runs { results { runId status parentRunId jobName
  assetSelection { path } } } } }"""
TICKS = """query($of: InstigationSelector!) { instigationStateOrError(instigationSelector: $of) {
  ... on InstigationState { ticks { status skipReason } } } }"""
STOP = """mutation($sensor: String!, $schedule: String!) { stopSensor(id: $sensor) { __typename }
  stopRunningSchedule(id: $schedule) { __typename } }"""
START = """mutation($sensor: SensorSelector!, $schedule: ScheduleSelector!) {
  startSensor(sensorSelector: $sensor) { __typename ... on Sensor { id } }
  startSchedule(scheduleSelector: $schedule) { __typename ... on ScheduleStateResult { scheduleState { id } } } }"""


@dataclass(frozen=True)
class Webserver:
    """At an address. A run that is told of is a dictionary of GraphQL's own names."""

    url: str

    def ask(self, query: str, **variables: Any) -> Any:
        """The answer's data. Asked again where it keeps a connection to a PostgreSQL that was restarted."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        for last in (False, False, False, True):
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    told = json.load(answer)
            except urllib.error.HTTPError:
                if last:
                    raise
                continue
            if "errors" not in told or last:
                break
        assert "errors" not in told, told["errors"]
        return told["data"]

    def launch(self, assets: Sequence[str]) -> str:
        """The id of a run of these, put into the queue; all its steps in one process, which saves seconds for each."""
        selector = {**LOCATION, "pipelineName": "__ASSET_JOB", "assetSelection": [{"path": [a]} for a in assets]}
        params = {"selector": selector, "mode": "default", "runConfigData": IN_PROCESS}
        answer = self.ask(LAUNCH, params=params)["launchPipelineExecution"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])

    def switch_on(self, sensor: str, schedule: str) -> dict[str, str]:
        """What `switch_off` asks for."""
        names = {"sensor": {**LOCATION, "sensorName": sensor}, "schedule": {**LOCATION, "scheduleName": schedule}}
        answer = self.ask(START, **names)
        assert {told["__typename"] for told in answer.values()} == {"Sensor", "ScheduleStateResult"}, answer
        return {"sensor": answer["startSensor"]["id"], "schedule": answer["startSchedule"]["scheduleState"]["id"]}

    def switch_off(self, ids: dict[str, str]) -> None:
        answer = self.ask(STOP, **ids)
        stopped = {"StopSensorMutationResult", "ScheduleStateResult"}
        assert {told["__typename"] for told in answer.values()} == stopped, answer

    def runs(self) -> list[dict[str, Any]]:
        """All of them, the oldest first."""
        return list(reversed(self.ask(RUNS)["runsOrError"]["results"]))

    def statuses(self, among: Sequence[str]) -> list[str]:
        return [run["status"] for run in self.runs() if run["runId"] in among]

    def ticks(self, name: str) -> list[tuple[str, str]]:
        """Status, and why it skipped, of each tick of a sensor or schedule, the newest first."""
        told = self.ask(TICKS, of={**LOCATION, "name": name})["instigationStateOrError"]
        return [(tick["status"], tick["skipReason"] or "") for tick in told["ticks"]]


def until(reached: Callable[[], Any], what: str, seconds: float = 600) -> None:
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(1)
