"""What `up` needs before it starts anything; that it starts, shows and ends all of it is in `ui/test_ui.py`."""

import socket
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from ernie_pipeline.orchestration.left_slots import free_left_slots
from ernie_pipeline.orchestration.renewed_links import renew_mlflow_links
from ernie_pipeline.orchestration.report import DATA
from ernie_pipeline.orchestration.up import check_dagster_yaml, dagster_home, of_another_home, up
from ernie_pipeline.recipe.settings import Settings, sqlite_uri
from ernie_pipeline.utils.errors import PipelineError

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    return Settings(tmp_path / "home", "demo", None, sqlite_uri(tmp_path / "home" / "mlflow.db"))


def test_dagster_s_home_is_in_the_home_with_the_project_s_settings_unless_another_is_named(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = dagster_home(settings)
    assert folder == settings.home / "dagster"
    assert (folder / "dagster.yaml").read_text() == (DEPLOY / "dagster.yaml").read_text()
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    assert (dagster_home(settings) / "dagster.yaml").read_text() == "telemetry: {enabled: false}\n", "it is its user's"
    (settings.home / "store").mkdir()
    other = replace(settings, home=tmp_path / "other")
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    told = f"DAGSTER_HOME belongs to the home {settings.home}, and this is {other.home}: "
    assert (of_another_home(settings), of_another_home(other)[: len(told)]) == ("", told)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    assert dagster_home(settings) == tmp_path
    assert of_another_home(settings) == "", "one may serve many homes"
    for place in (tmp_path / "nowhere", "relative"):
        monkeypatch.setenv("DAGSTER_HOME", str(place))
        with pytest.raises(PipelineError, match="is no folder that is there, by its whole path; make it with mkdir -p"):
            dagster_home(settings)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("storag: {x: 1}\n", 'Received unexpected config entry "storag" at the root'),
        ("a: [", "it is not YAML"),
        ("words\n", 'Expected YAML from file {file} to parse to dictionary, instead got: "words"'),
        (
            "instance_class: {module: nope, class: X}",
            "Couldn't import module nope when attempting to load the class nope.X",
        ),
    ],
)
def test_a_dagster_yaml_that_dagster_does_not_take_is_told_in_a_sentence(
    tmp_path: Path, text: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "dagster.yaml"
    file.write_text(text)
    told = f"{file} is not one that Dagster takes ({said.format(file=file)}); correct it, or "
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    with pytest.raises(PipelineError) as error:
        free_left_slots(tmp_path)
    assert str(error.value) == f"{told}remove it, and it is made anew"
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with pytest.raises(PipelineError) as error:
        check_dagster_yaml(tmp_path)
    assert str(error.value) == f"{told}unset DAGSTER_HOME"


def test_a_port_that_is_taken_is_told_before_anything_is_started(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PipelineError, match=f"port {port} of 127.0.0.1, for Dagster, is taken; end what listens"):
            up(settings, port=port)
    assert not list((settings.home / "dagster").glob("*.log"))


def test_one_port_for_both_is_told_before_anything_is_started(settings: Settings) -> None:
    with pytest.raises(PipelineError, match="port 3977 cannot be both Dagster's and MLflow's; give one of them"):
        up(settings, port=3977, mlflow_port=3977)
    assert not settings.home.exists()


def test_a_page_that_led_to_another_address_of_mlflow_is_written_once_more_with_what_its_gate_said() -> None:
    key, before = dg.AssetKey(["mine", "registered_model"]), "http://127.0.0.1:5000/#/"
    told = {
        "version in MLflow": dg.MetadataValue.url(f"{before}models/quick/versions/1"),
        "and there": dg.MetadataValue.md(f"[the run]({before}experiments/1/runs/ae32)"),
        "gate": "not passed",
    }
    with dg.DagsterInstance.ephemeral() as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization(key, metadata=told, tags={DATA: "beef"}))
        said = dg.AssetCheckEvaluation(key, "gate", passed=False, severity=dg.AssetCheckSeverity.WARN)
        instance.report_runless_asset_event(said)
        assert renew_mlflow_links(instance, "http://127.0.0.1:5055") == [key]
        assert renew_mlflow_links(instance, "http://127.0.0.1:5055/") == []
        [last, _] = instance.fetch_materializations(key, limit=9).records
        page = last.asset_materialization
        assert page
        assert [str(value.value) for value in page.metadata.values()] == [
            "http://127.0.0.1:5055/#/models/quick/versions/1",
            "[the run](http://127.0.0.1:5055/#/experiments/1/runs/ae32)",
            "not passed",
        ]
        assert (page.tags or {})[DATA] == "beef", "or Dagster would mark it as stale"
        [again, _] = instance.event_log_storage.get_asset_check_execution_history(dg.AssetCheckKey(key, "gate"), 9)
        assert again.event
        evaluated = again.event.get_dagster_event().asset_check_evaluation_data
        assert (evaluated.passed, evaluated.severity) == (False, dg.AssetCheckSeverity.WARN)
        assert evaluated.target_materialization_data
        assert evaluated.target_materialization_data.storage_id == last.storage_id
