"""Dagster's pages as a person sees and clicks them: a fresh home, a browser, the whole chain of a small recipe.

With ERNIE_PIPELINE_TEST_IMAGES=FOLDER the pictures of the pages are kept there, to be looked at.
"""

import json
import os
import re
import signal
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline_tests.orchestration.ui.browser import Page, browser, find_chromium
from ernie_pipeline_tests.scenarios.chain import ASSETS, QUICK_RECIPE, finish, start_python

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)")

RUNS = "{runsOrError {... on Runs {results {runId status}}}}"
PICTURES = """[...document.querySelectorAll("img[src^='data:image']")].map(e => e.naturalWidth)"""
RUN_S = 240.0


@dataclass(frozen=True)
class Site:
    """The pages of a home's code location, and the recipe that they are of."""

    page: Page
    url: str
    mlflow: str
    recipe: Path
    images: Path

    def runs(self) -> list[dict[str, str]]:
        """The newest first."""
        request = urllib.request.Request(
            f"{self.url}/graphql", json.dumps({"query": RUNS}).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found: list[dict[str, str]] = json.loads(answer.read())["data"]["runsOrError"]["results"]
        return found

    def materialize_all(self) -> str:
        """Press the button on the lineage, and wait until that run has ended: its id."""
        before = len(self.runs())
        self.page.open(f"{self.url}/asset-groups", until="Materialize all")
        self.page.click("Materialize all")
        until(lambda: len(self.runs()) > before, 60, "the run is launched")
        until(lambda: self.runs()[0]["status"] in ("SUCCESS", "FAILURE", "CANCELED"), RUN_S, "the run ends")
        assert self.runs()[0]["status"] == "SUCCESS"
        return self.runs()[0]["runId"]

    def asset(self, name: str) -> str:
        """What the asset's page says, once its table of metadata is there."""
        self.page.open(f"{self.url}/assets/{name}", until="Metadata")
        self.page.wait_for("fingerprint")
        return self.page.text()

    def keep(self, name: str) -> None:
        self.page.screenshot(self.images / f"{name}.png")


def until(reached: Callable[[], Any], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.5)


UP = "import sys; from ernie_pipeline.orchestration.up import up; from ernie_pipeline.recipe.settings import Settings; "
UP += "sys.exit(up(Settings.from_environment(), {port}, {mlflow_port}, lambda words: print(words, flush=True)))"


def free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A fresh home with all that `up` starts, which is ended by one interrupt."""
    folder = tmp_path_factory.mktemp("ui")
    home, recipe = folder / "home", folder / "recipe.toml"
    recipe.write_text(QUICK_RECIPE)
    port, mlflow_port = free_ports()
    command = ["-c", UP.format(port=port, mlflow_port=mlflow_port)]
    started = start_python(command, home, recipe, None, {})
    images = Path(os.environ.get("ERNIE_PIPELINE_TEST_IMAGES") or folder)
    family: list[Any] = []
    try:
        ended = started.process.poll
        until(lambda: (listens(port) and listens(mlflow_port)) or ended() is not None, 180, "both listen")
        assert ended() is None, finish(started).output
        family = started.family
        with browser(CHROMIUM or "") as page:
            yield Site(page, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{mlflow_port}", recipe, images)
    finally:
        started.process.send_signal(signal.SIGINT)
        run = finish(started)
    assert (run.status, run.output.count("http://127.0.0.1:")) == (0, 3), run.output
    assert not [each for each in family if each.is_running() and each.status() != "zombie"]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def first(site: Site) -> str:
    """The first run, by a click: its id."""
    return site.materialize_all()


def test_no_dialog_stands_before_the_pages(site: Site) -> None:
    site.page.open(f"{site.url}/asset-groups", until="Materialize all")
    assert "Join the Dagster community" not in site.page.text()


def test_after_a_click_each_page_says_why_it_was_built_and_shows_its_pictures(site: Site, first: str) -> None:
    pictures = {"adapter_evaluation": 1, "qlora_adapter": 1, "registered_model": 1}
    for name in ASSETS:
        text = site.asset(name)
        assert re.search(r"why\s+.*?\s+not built yet", text, re.DOTALL), text
        assert not re.findall(r"\d\.\d{6,}", text)
        widths = site.page.run(PICTURES)
        assert len(widths) >= pictures.get(name, 0)
        assert all(width > 100 for width in widths), "a picture that is broken has no width"
        site.keep(name)


def test_a_refused_gate_is_seen_as_a_warning(site: Site, first: str) -> None:
    text = site.asset("registered_model")
    assert re.search(r"warning\s+.*?gate: The gain", text, re.DOTALL)
    site.page.open(f"{site.url}/assets/registered_model?view=checks", until="Latest execution")
    site.page.wait_for("Warning" if "Warning" in site.page.text() else "Failed")


def test_the_link_to_mlflow_leads_to_the_version(site: Site, first: str) -> None:
    site.asset("registered_model")
    address = site.page.run("document.querySelector(\"a[href*='/#/models/quick/versions/1']\").href")
    assert address == f"{site.mlflow}/#/models/quick/versions/1?workflowType=machine_learning"
    site.page.open(address, until="Version 1")
    site.page.wait_for("Intended use and limits")
    assert "Model registry" in site.page.text(), "MLflow's mode for agents has none"
    assert "library_name" not in site.page.text(), "the card's header is the hub's"
    site.keep("mlflow-version")


def test_the_links_to_mlflow_show_base_and_adapter_side_by_side(site: Site, first: str) -> None:
    site.asset("registered_model")
    [charts, tables, run] = [
        site.page.run(f"document.querySelector(\"a[href*='{part}']\").href")
        for part in ("compareRunsMode=CHART", "compareRunsMode=ARTIFACT", "#/experiments/1/runs/")
    ]
    site.page.open(charts, until="Add chart")
    site.page.wait_for("demo (base model)")
    assert "Model training" in site.page.text()
    site.keep("mlflow-charts")
    site.page.open(tables, until="answers.json")
    site.page.wait_for("Compare:")
    assert "demo (base model)" in site.page.text()
    assert "\\boxed" in site.page.text(), "the answers themselves"
    assert "(empty)" not in site.page.text(), "both runs have the table"
    site.keep("mlflow-answers")
    site.page.open(run.replace("?", "/artifacts/model_card.md?"), until="Intended use and limits")
    assert "library_name" not in site.page.text()
    site.keep("mlflow-card")


def test_the_run_s_log_says_why(site: Site, first: str) -> None:
    site.page.open(f"{site.url}/runs/{first}?logs=building", until="Events")
    site.page.wait_for("building raw_nemotron: not built yet")
    site.keep("run")


def test_a_second_click_reuses_everything_and_says_so(site: Site, first: str) -> None:
    site.materialize_all()
    for name in ("raw_nemotron", "qlora_adapter", "registered_model"):
        text = site.asset(name)
        assert "reused, no work was done: nothing that it depends on has changed since" in text
        assert "it was the first build" in text


def test_a_changed_recipe_is_marked_after_a_reload_and_then_is_the_reason(site: Site, first: str) -> None:
    site.recipe.write_text(QUICK_RECIPE.replace("learning_rate = 3e-3", "learning_rate = 2e-3"))
    site.page.open(f"{site.url}/asset-groups", until="Reload definitions")
    site.page.click("Reload definitions")
    until(
        lambda: (
            site.page.open(f"{site.url}/assets/qlora_adapter", until="Metadata")
            or "Unsynced" in site.page.text()
            or "Code version" in site.page.text()
        ),
        60,
        "the adapter is marked",
    )
    site.keep("marked")
    site.materialize_all()
    assert "recipe training.learning_rate 0.003 -> 0.002" in site.asset("qlora_adapter")
    assert "reused, no work was done" in site.asset("base_evaluation")
