"""A home in a bucket that may only be read, on a machine that has nothing of it yet: what only reads works."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ernie_pipeline.cli.app import main
from ernie_pipeline.recipe.settings import Settings, sqlite_uri
from ernie_pipeline.registry.export.source import _held_against_record, find_source
from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline.store.history import recorded
from ernie_pipeline.store.shared import history
from ernie_pipeline.store.shared.bucket import Bucket
from ernie_pipeline.store.shared.publication import publish
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.cli.registered import RegisteredHome, make_home
from ernie_pipeline_tests.store.shared.server import Server, serving


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RegisteredHome]:
    """Published, and this process a machine that sees the bucket for the first time."""
    (tmp_path / "made").mkdir()
    made = make_home(tmp_path / "made")
    with serving() as server:
        for name, value in {**server.environment, **made.environment}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("ERNIE_PIPELINE_HOME", f"{server.make_bucket('bucket')}/home")
        monkeypatch.setenv("ERNIE_PIPELINE_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_uri(made.folder / "home" / "mlflow.db"))
        _upload(made, server)
        yield made


def _upload(made: RegisteredHome, server: Server) -> None:
    """All artifacts and what is known of their builds; from then on every write is refused."""
    bucket, store = Bucket("s3://bucket/home"), ArtifactStore(made.settings.store)
    for stage in store.stages():
        for fingerprint in store.fingerprints(stage):
            assert publish(bucket, (stage, fingerprint), store.folder(stage, fingerprint), 1, lambda: True, None)
        for build in recorded(store, stage):
            history.add_build(bucket, build)
    server.fail({"kind": "denied", "match": "^(PUT|POST|DELETE)", "times": 9999})


def test_what_is_registered_is_verified_and_held_against_its_record(
    home: RegisteredHome, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["verify", "models:/quick/1", "--json"]) == 0
    steps = {step["name"]: step["outcome"] for step in json.loads(capsys.readouterr().out)["steps"]}
    assert steps["chain qlora_adapter"] == steps["files"] == "passed"
    settings = Settings.from_environment()
    assert _held_against_record(settings, "quick", "1").startswith("every file has the hash that was recorded")
    fingerprint = home.artifact("qlora_adapter").name
    with pytest.raises(PipelineError, match="does not say its base model"):
        find_source(settings, fingerprint, tmp_path)  # it has no model in it, but it was found
    assert (settings.store / "qlora_adapter" / fingerprint).is_dir()
    (home.files("1") / "MLmodel").write_text("version 2\n")
    with pytest.raises(PipelineError, match="is damaged in"):
        _held_against_record(settings, "quick", "1")


@pytest.mark.usefixtures("home")
def test_a_build_is_refused_in_a_sentence_before_anything_is_done(tmp_path: Path) -> None:
    from ernie_pipeline.staleness.stages import open_chain

    with pytest.raises(PipelineError, match="can be read with the credentials in the environment, but not written"):
        open_chain(Settings.from_environment(), run="a-run")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
