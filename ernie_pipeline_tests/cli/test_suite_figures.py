"""A registered version's figures on suites: logged in either order, once; `verify` holds them against their answers."""

import json
from pathlib import Path
from typing import Any, cast

import pytest

from ernie_pipeline.cli.verification import _suites
from ernie_pipeline.orchestration.suite_figures import log_suite, log_suites
from ernie_pipeline.recipe.load import parse_recipe
from ernie_pipeline.registry.tracking import connected
from ernie_pipeline.registry.verification.step import Step
from ernie_pipeline.registry.verification.version import find_version
from ernie_pipeline.store.artifacts import Artifact, ArtifactStore, Provenance
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.cli.registered import RegisteredHome, make_home

ADAPTER, BASE, COMPARISON = (f"suite_comparison_{part}" for part in ("adapter", "base", "comparison"))
"""Of a suite with a name that other figures have too."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RegisteredHome:
    return make_home(tmp_path_factory.mktemp("registered"), versions=1)


@pytest.fixture
def home(made: RegisteredHome, tmp_path: Path) -> RegisteredHome:
    return made.copy(tmp_path)


def nothing(warning: str) -> None:
    raise AssertionError(warning)


def built(home: RegisteredHome, stage: str, inputs: dict[str, str], shares: dict[str, float]) -> Artifact:
    """An artifact of a suite; `shares`: greedy and avg@2."""
    pattern = json.loads((home.artifact("adapter_evaluation") / "manifest.json").read_text())
    fields = {name: pattern[name] for name in Provenance.__dataclass_fields__}
    seed = json.dumps([stage, inputs, shares]).encode().hex()[:8] + f"{abs(hash(json.dumps([inputs, shares]))):08x}"[:8]
    fields |= {"stage": stage, "inputs": inputs, "fingerprint": seed}
    each = {key: {"value": share, "low": 0.0, "high": 1.0} for key, share in shares.items()}
    metrics = {"greedy": each["greedy"], "greedy_strict": each["greedy"], "avg_at": {"2": each["avg"]}}

    def write(out: Path) -> None:
        (out / "metrics.json").write_text(json.dumps({**metrics, "pass_at": {}, "maj_at": {}}))

    return ArtifactStore(home.settings.store).build(Provenance(**fields), write)


def compared(home: RegisteredHome, greedy: float = 0.5) -> Artifact:
    """The suite's comparison of the registered adapter."""
    inputs = json.loads((home.artifact("registered_model") / "manifest.json").read_text())["inputs"]
    base = built(home, BASE, {}, {"greedy": 0.25, "avg": 0.125})
    adapter = built(home, ADAPTER, {"qlora_adapter": inputs["qlora_adapter"]}, {"greedy": greedy, "avg": 0.75})
    above = {BASE: base.data_version, ADAPTER: adapter.data_version}
    return built(home, COMPARISON, above, {"greedy": 0, "avg": 0})


def registered(home: RegisteredHome) -> Artifact:
    """With the id of its run, which the home's maker does not write."""
    store, folder = ArtifactStore(home.settings.store), home.artifact("registered_model")
    artifact, _ = store.find("registered_model", folder.name)
    assert artifact
    said = artifact.json("registration.json")
    with connected(home.settings.tracking_uri) as client:
        said["run_id"] = client.get_model_version("quick", "1").run_id
    manifest = artifact.manifest
    fields = {name: manifest[name] for name in Provenance.__dataclass_fields__}

    def write(out: Path) -> None:
        (out / "registration.json").write_text(json.dumps(said))
        (out / "comparison.json").write_text("{}")

    return store.build(Provenance(**fields), write)


class Asked:
    """A chain whose recipe names two suites, of which one was compared."""

    def __init__(self, home: RegisteredHome, suite: Artifact):
        self.suite, self.store = suite, ArtifactStore(home.settings.store)
        self.recipe = parse_recipe(
            {"suites": {name: {"source": {"path": "a"}} for name in ("comparison", "new")}}, "test"
        )

    def artifact(self, name: str) -> Artifact:
        if name != COMPARISON:
            raise PipelineError(f"{name} is not built yet")
        return self.suite


def checked(home: RegisteredHome) -> Step | None:
    with connected(home.settings.tracking_uri) as client:
        return _suites(client, find_version(client, "1", "quick"), ArtifactStore(home.settings.store))


def points(home: RegisteredHome) -> dict[str, list[tuple[str, float]]]:
    """Every value ever logged of the suite's figures, by the run's side."""
    with connected(home.settings.tracking_uri) as client:
        experiment = client.get_experiment_by_name("quick").experiment_id
        runs = {run.data.tags["model"]: run for run in client.search_runs([experiment])}
        return {
            side: [
                (name, point.value)
                for name in run.data.metrics
                if name.startswith("suite_")
                for point in client.get_metric_history(run.info.run_id, name)
            ]
            for side, run in runs.items()
        }


@pytest.mark.parametrize("suite_first", [True, False])
def test_figures_land_on_both_runs_and_models_once_in_either_order(home: RegisteredHome, suite_first: bool) -> None:
    assert checked(home) is None
    version, suite = registered(home), compared(home)
    for _ in range(2):
        if suite_first:
            log_suites(home.settings, cast(Any, Asked(home, suite)), version, nothing)
        else:
            log_suite(home.settings, "comparison", suite, nothing)
    found = points(home)
    assert {side: dict(told)["suite_comparison/accuracy"] for side, told in found.items()} == {
        "base": 0.25,
        "adapter": 0.5,
    }
    assert {side: len(told) for side, told in found.items()} == {"base": 3, "adapter": 3}, "each once"
    step = checked(home)
    assert step
    assert (step.outcome, step.said) == ("passed", "18 figures are those of 2 artifacts with answers")


def test_a_suite_that_is_answered_again_is_logged_again_and_the_last_figures_count(home: RegisteredHome) -> None:
    registered(home)
    for greedy in (0.5, 0.625):
        log_suite(home.settings, "comparison", compared(home, greedy), nothing)
    step = checked(home)
    assert step
    assert step.outcome == "passed"
    assert len(points(home)["base"]) == 3
    assert len(points(home)["adapter"]) == 6


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE latest_metrics SET value = 0.9 WHERE key = 'suite_comparison/accuracy'",
        "UPDATE logged_model_metrics SET metric_value = 0.9 WHERE metric_name = 'suite_comparison/accuracy'",
    ],
)
def test_an_edited_figure_is_found_and_one_whose_answers_were_pruned_is_told(home: RegisteredHome, edit: str) -> None:
    registered(home)
    log_suite(home.settings, "comparison", compared(home), nothing)
    home.sql(edit)
    step = checked(home)
    assert step
    assert step.outcome == "differs"
    assert "suite_comparison/accuracy is 0.9 in the registry, and 0." in step.said
    for stage in (BASE, ADAPTER):
        for folder in (home.settings.store / stage).glob("[!.]*"):
            (folder / "metrics.json").unlink()
    step = checked(home)
    assert step
    assert (step.outcome, step.asked) == ("unchecked", False)


def test_where_mlflow_does_not_answer_there_is_a_warning_and_nothing_more(
    home: RegisteredHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    registered(home)
    warnings: list[str] = []
    away: Any = replace(home.settings, tracking_uri="http://127.0.0.1:9")
    log_suite(away, "comparison", compared(home), warnings.append)
    assert len(warnings) == 1
    assert warnings[0].startswith("the figures of comparison are not in MLflow: MLflow at http://127.0.0.1:9")


def test_before_anything_is_registered_nothing_is_logged(home: RegisteredHome) -> None:
    suite = compared(home)
    (home.artifact("registered_model") / "registration.json").unlink()
    log_suite(home.settings, "comparison", suite, nothing)
    assert points(home) == {"base": [], "adapter": []}
