"""`export` of what is registered, and of a finished adapter's artifact, by the command line."""

import json
from pathlib import Path

import pytest

from ernie_pipeline.cli.app import main
from ernie_pipeline.demo.problems import INSTRUCTION
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.registry.export.source import find_source
from ernie_pipeline.registry.registration import Registration, RegistrationRequest
from ernie_pipeline.utils.errors import PipelineError


@pytest.fixture
def home(registered: Registration, make_request: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings that name the registry of `registered`, and a home of their own."""
    request: RegistrationRequest = make_request()  # type: ignore[operator]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", request.tracking_uri)
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_registered_version_is_exported_by_its_alias(
    home: Path, registered: Registration, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    pytest.importorskip("gguf")  # the form that takes no process of its own
    assert main(["export", "gguf", str(out), "--model", f"models:/{registered.name}@champion", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["loaded_back"] is True
    assert found["answers_alike"] == found["answers"] == 3
    told = json.loads((out / "export.json").read_text())
    assert (told["model"], told["onto"]) == (f"models:/{registered.name}/{registered.version}", "quantized")
    readme = (out / "README.md").read_text()
    assert "\nlicense: " in readme.partition("\n---\n")[0]
    assert "library_name: gguf\n" in readme
    assert f"\n# models:/{registered.name}/{registered.version} (gguf)\n" in readme
    assert readme.count("\n## Results\n") == 1
    assert "plain PEFT drops most" not in readme
    assert f"trained with this instruction, a JSON string: `{json.dumps(INSTRUCTION)}`" in readme
    assert not home.exists()  # nothing is made by reading a registry that is elsewhere
    assert len({file.stat().st_mode for file in out.iterdir()}) == 1  # safetensors writes for the user alone

    assert main(["export", "merged", str(out), "--model", f"models:/{registered.name}/99"]) == 1
    assert "exists already" in capsys.readouterr().err


def test_a_version_whose_files_are_altered_or_gone_is_refused(
    home: Path, registered: Registration, tmp_path: Path
) -> None:
    with pytest.raises(PipelineError, match="with the number 99 in the registry"):
        find_source(Settings.from_environment(), f"models:/{registered.name}/99", tmp_path)
    source = find_source(Settings.from_environment(), f"models:/{registered.name}/{registered.version}", tmp_path)
    assert source.checked == "this home has no record of its registration to hold its files against"
    assert source.max_new_tokens == 24
    assert source.spec.adapter
    assert source.spec.adapter.is_dir()
