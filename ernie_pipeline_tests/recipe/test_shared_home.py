"""A home in a bucket: where its cache is, and what is said of an address that cannot work."""

from pathlib import Path

import pytest

from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.staleness.stages import open_chain
from ernie_pipeline.store.shared.settled import open_store
from ernie_pipeline.store.shared.store import SharedStore
from ernie_pipeline.utils.errors import PipelineError

ADDRESS = "s3://bucket/team/home"


@pytest.fixture
def _shared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("ERNIE_PIPELINE_CACHE", "ERNIE_PIPELINE_LEASE_SECONDS", "ERNIE_PIPELINE_RECIPE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", f"{ADDRESS}/")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.usefixtures("_shared")
def test_each_bucket_has_a_cache_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = Settings.from_environment()
    assert (settings.address, settings.lease_seconds) == (ADDRESS, 60)
    assert settings.home.parent == tmp_path / "cache" / "ernie_pipeline" / "homes"
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", "gs://bucket/team/home")
    assert Settings.from_environment().home != settings.home
    monkeypatch.setenv("ERNIE_PIPELINE_CACHE", str(tmp_path / "here"))
    assert Settings.from_environment().home == tmp_path / "here"
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", str(tmp_path))
    settings = Settings.from_environment()
    assert (settings.address, settings.home) == (None, tmp_path)


@pytest.mark.usefixtures("_shared")
def test_to_open_a_store_that_is_only_looked_at_asks_the_bucket_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that other ones are forked from opens it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    store = open_store(Settings.from_environment(), for_run=False)
    assert isinstance(store, SharedStore)
    assert store.bucket._opened is None


@pytest.mark.usefixtures("_shared")
@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"MLFLOW_TRACKING_URI": ""}, "MLflow's database cannot be in a bucket; set MLFLOW_TRACKING_URI to a server"),
        ({"ERNIE_PIPELINE_HOME": "s3://"}, "is neither a folder nor a bucket's address"),
        ({"ERNIE_PIPELINE_HOME": "ftp://host/folder"}, "is neither a folder nor a bucket's address"),
        ({"ERNIE_PIPELINE_HOME": "file:///tmp/home"}, "is neither a folder nor a bucket's address"),
        ({"ERNIE_PIPELINE_HOME": "s3://key:hush@bucket/home"}, "set credentials in the environment"),
        ({"ERNIE_PIPELINE_HOME": "s3://bucket/home?secret=hush"}, "set credentials in the environment"),
        ({"ERNIE_PIPELINE_CACHE": "/dev/null"}, "ERNIE_PIPELINE_CACHE = '/dev/null' cannot be a folder"),
        (
            {"ERNIE_PIPELINE_CACHE": "s3://bucket/cache"},
            "ERNIE_PIPELINE_CACHE begins with 's3:/', so it names no folder",
        ),
        ({"ERNIE_PIPELINE_HOME": "s3:/key:hush@bucket/home"}, "ERNIE_PIPELINE_HOME begins with 's3:/', so it names no"),
        ({"ERNIE_PIPELINE_LEASE_SECONDS": "9" * 400}, "is more than a week; set 604800 or less"),
        ({"ERNIE_PIPELINE_LEASE_SECONDS": "soon"}, "ERNIE_PIPELINE_LEASE_SECONDS = 'soon' is not a whole number"),
    ],
)
def test_a_home_that_cannot_work_is_told_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(PipelineError) as caught:
        open_chain(Settings.from_environment())
    sentence = str(caught.value)
    assert said in sentence
    assert "\n" not in sentence
    assert "hush" not in sentence


@pytest.mark.usefixtures("_shared")
def test_a_bucket_that_is_away_stops_a_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("ernie_pipeline.store.shared.bucket.FIRST_S", 1.0)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with pytest.raises(PipelineError, match=f"{ADDRESS} cannot be reached"):
        open_chain(Settings.from_environment(), run="run")
