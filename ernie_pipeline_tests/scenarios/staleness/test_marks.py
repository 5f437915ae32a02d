"""Scenario 19: Dagster's own stale marks, asked of its web server, equal the plan."""

import json
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline_tests.scenarios.chain import IN_PROCESS, finish, start_python, write_rows
from ernie_pipeline_tests.scenarios.staleness.workplace import ROWS, Workplace

SEEN_AS = {"fresh": "FRESH", "waiting": "FRESH", "failed": "FRESH", "stale": "STALE", "missing": "MISSING"}
"""What Dagster calls the plan's states. It does not mark what waits: it compares with the last version above."""

MARKS = "{assetNodes {assetKey {path} staleStatus isMaterializable}}"
RELOAD = 'mutation {reloadRepositoryLocation(repositoryLocationName: "ernie_pipeline.definitions") {__typename}}'
TICK = (
    "import dagster as dg, ernie_pipeline.orchestration.automation as a; "
    "a.evaluate(dg.DagsterInstance.get(), by='a test')"
)


@dataclass(frozen=True)
class Site:
    """A workplace with an instance of Dagster and its web server."""

    place: Workplace
    port: int
    environment: dict[str, str]

    def ask(self, query: str) -> Any:
        """The answer of the server's GraphQL."""
        body = json.dumps({"query": query}).encode()
        address = f"http://127.0.0.1:{self.port}/graphql"
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as response:
            return json.loads(response.read())["data"]

    def marks(self) -> dict[str, str]:
        """What the UI shows of each built asset: FRESH, STALE or MISSING."""
        nodes = self.ask(MARKS)["assetNodes"]
        return {n["assetKey"]["path"][0]: n["staleStatus"] for n in nodes if n["isMaterializable"]}

    def reload(self) -> None:
        """The UI's button "Reload definitions": code and recipe are read anew."""
        assert self.ask(RELOAD)["reloadRepositoryLocation"]["__typename"] == "WorkspaceLocationEntry"

    def tick(self) -> None:
        """What the schedule and the sensor do at each evaluation."""
        self.python(["-c", TICK])

    def python(self, arguments: list[str]) -> None:
        """A command on this instance."""
        place = self.place
        run = finish(start_python(arguments, place.home, place.recipe, place.code, self.environment))
        assert run.status == 0, run.output[-3000:]

    def agreed(self) -> dict[str, str]:
        """What the plan says of all that is not fresh; the marks agree with it, or this fails."""
        planned = self.place.plan(**self.environment).values["assets"]
        assert self.marks() == {asset["asset"]: SEEN_AS[asset["state"]] for asset in planned}
        return {asset["asset"]: asset["state"] for asset in planned if asset["state"] != "fresh"}


@pytest.fixture
def site(built_with_code: Workplace, tmp_path: Path) -> Iterator[Site]:
    """The built home with a file of its own rows, all of it recorded by one run of this instance."""
    place = built_with_code
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    source = write_rows(tmp_path / "rows.jsonl", ROWS)
    site = Site(place, port, {"DAGSTER_HOME": str(tmp_path / "dagster"), "ERNIE_PIPELINE_SOURCE": source})
    materialize = ["-m", "dagster", "asset", "materialize", "--select", "*", "-m", "ernie_pipeline.definitions"]
    site.python([*materialize, "--config-json", json.dumps(IN_PROCESS)])
    serve = ["-m", "dagster_webserver", "-m", "ernie_pipeline.definitions", "-h", "127.0.0.1", "-p", str(port)]
    server = start_python(serve, place.home, place.recipe, place.code, site.environment)
    try:
        _until(lambda: _listens(port) or server.process.poll() is not None)
        yield site
    finally:
        server.process.terminate()
        finish(server)


def test_the_ui_s_marks_equal_the_plan(site: Site) -> None:
    place = site.place
    assert site.agreed() == {}, "after a run, without any evaluation of the schedule or the sensor"

    artifact = place.artifact("base_evaluation")
    curve = place.artifact("qlora_adapter") / "curve.json"
    whole = curve.read_bytes()
    curve.write_bytes(whole.replace(b"0", b"1", 1))
    artifact.rename(place.home / "elsewhere")
    site.tick()
    lost = {"qlora_adapter": "stale", "base_evaluation": "stale"}
    assert site.agreed() == {**lost, "adapter_evaluation": "waiting", "registered_model": "waiting"}

    (place.home / "elsewhere").rename(artifact)
    curve.write_bytes(whole)
    site.tick()
    assert site.agreed() == {}

    place.edit_recipe("learning_rate = 3e-3", "learning_rate = 2e-3")
    place.edit_code("data/normalize/answers.py", "import re\n", "import re\n\nCHANGED = 1\n")
    site.reload()
    below = {"adapter_evaluation": "waiting", "base_evaluation": "waiting", "registered_model": "waiting"}
    assert site.agreed() == {"math_split": "stale", "qlora_adapter": "stale", **below}

    place.edit_recipe("learning_rate = 2e-3", "learning_rate = 3e-3")
    place.edit_code("data/normalize/answers.py", "import re\n\nCHANGED = 1\n", "import re\n")
    site.reload()
    assert site.agreed() == {}

    write_rows(Path(site.environment["ERNIE_PIPELINE_SOURCE"]), ROWS[1:])
    site.tick()
    split_and_below = ("math_split", "qlora_adapter", "base_evaluation", "adapter_evaluation", "registered_model")
    assert site.agreed() == {"raw_nemotron": "stale", **dict.fromkeys(split_and_below, "waiting")}


def _until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
