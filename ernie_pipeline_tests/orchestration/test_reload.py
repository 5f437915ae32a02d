"""Runs of assets that the recipe asked for when Dagster's server opened it, and asks for no more: one sentence."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ernie_pipeline_tests.deploy.cluster import free_ports
from ernie_pipeline_tests.deploy.webserver import ENDED, LOCATION, Webserver, until
from ernie_pipeline_tests.scenarios.chain import QUICK_RECIPE

ROOT = Path(__file__).parents[2]
SUITE = '\n[suites.mine]\nsource = {{ path = "{path}" }}\nanswer = "solution"\n'
PUBLISH = '\n[publish]\nrepo = "me/model"\n'
AT_ONCE = "run_coordinator: {module: dagster.core.run_coordinator, class: DefaultRunCoordinator}\n"
FAILURES = """query($run: ID!) { runOrError(runId: $run) { ... on Run { eventConnection { events {
  __typename ... on ExecutionStepFailureEvent { stepKey failureMetadata { description } }
  ... on RunFailureEvent { message error { message } } } } } } }"""
RELOAD = "mutation($name: String!) { reloadRepositoryLocation(repositoryLocationName: $name) { __typename } }"
GONE = "the recipe does not ask for {asset} any more; reload the code location"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reload")
    (folder / "set.jsonl").write_text('{"question": "What is 1 + 1?", "solution": "2"}\n')
    (folder / "mine.toml").write_text(QUICK_RECIPE + SUITE.format(path=folder / "set.jsonl") + PUBLISH)
    return folder / "mine.toml"


@pytest.fixture(scope="module")
def server(recipe: Path) -> Iterator[Webserver]:
    """Dagster's web server, which has opened the recipe; then the suite and the repository are taken out of it."""
    [port], kept = free_ports(1), {k: v for k, v in os.environ.items() if not k.startswith(("ERNIE_", "DAGSTER_"))}
    (recipe.parent / "dagster").mkdir()
    (recipe.parent / "dagster" / "dagster.yaml").write_text(AT_ONCE)
    process = subprocess.Popen(
        [sys.executable, "-m", "dagster_webserver", "-w", str(ROOT / "workspace.yaml"), "-p", str(port)],
        env={
            **kept,
            "DAGSTER_HOME": str(recipe.parent / "dagster"),
            "ERNIE_PIPELINE_HOME": str(recipe.parent / "home"),
            "ERNIE_PIPELINE_RECIPE": str(recipe),
        },
        cwd=recipe.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        web = Webserver(f"http://127.0.0.1:{port}")
        until(lambda: answers(web), "the web server answers", seconds=120)
        recipe.write_text(QUICK_RECIPE)
        yield web
    finally:
        process.terminate()
        process.wait()


def answers(web: Webserver) -> bool:
    try:
        return bool(web.ask("{ repositoriesOrError { __typename } }"))
    except OSError:
        return False


def failures(web: Webserver, run: str) -> dict[str, str]:
    """Why each step failed, and the run itself."""
    until(lambda: {*web.statuses([run])} & ENDED, "the run ends", seconds=90)
    events = web.ask(FAILURES, run=run)["runOrError"]["eventConnection"]["events"]
    steps = {e["stepKey"]: e["failureMetadata"]["description"] for e in events if "stepKey" in e}
    return steps or {"": str([e for e in events if e["__typename"] == "RunFailureEvent"])}


@pytest.mark.parametrize("asset", ["suite_mine_problems", "published_model"])
def test_what_the_recipe_asks_for_no_more_is_told_by_its_step(server: Webserver, asset: str) -> None:
    assert failures(server, server.launch([asset])) == {asset: GONE.format(asset=asset)}


def test_what_it_still_asks_for_is_built_and_the_reloaded_location_is_without_the_rest(server: Webserver) -> None:
    run = server.launch(["raw_nemotron"])
    until(lambda: {*server.statuses([run])} & ENDED, "the run ends", seconds=90)
    assert server.statuses([run]) == ["SUCCESS"]
    name = LOCATION["repositoryLocationName"]
    server.ask(RELOAD, name=name)
    nodes = server.ask("{ assetNodes { assetKey { path } } }")["assetNodes"]
    names = {node["assetKey"]["path"][-1] for node in nodes}
    assert "raw_nemotron" in names
    assert not [each for each in names if each.startswith(("suite_", "published"))]
