"""The format of a home in a bucket: said by the first run, and a newer one is left alone."""

from pathlib import Path

import pytest

from ernie_pipeline.recipe import home_format
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.staleness.plan import make_plan
from ernie_pipeline.staleness.stages import open_chain
from ernie_pipeline.store.shared.bucket import Bucket
from ernie_pipeline.store.shared.format import KEY, write_format
from ernie_pipeline.store.shared.settled import open_store
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.store.shared.machines import KEY as ARTIFACT
from ernie_pipeline_tests.store.shared.machines import build
from ernie_pipeline_tests.store.shared.server import Server

REFUSED = "/format says that this home is of format 7, which a newer version"


@pytest.fixture
def settings(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.delenv("ERNIE_PIPELINE_RECIPE", raising=False)
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", address)
    monkeypatch.setenv("ERNIE_PIPELINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return Settings.from_environment()


def said(bucket: Bucket) -> bytes | None:
    there = bucket.get(KEY)
    return there.body if there else None


def test_the_first_run_lets_a_bucket_say_its_format(settings: Settings, bucket: Bucket) -> None:
    open_store(settings, for_run=False).find(*ARTIFACT)
    assert said(bucket) is None, "to look writes nothing"
    open_store(settings, for_run=True)
    assert said(bucket) == b"1\n"
    assert home_format.check_format(settings.store) == 1, "the cache says it too"


def test_a_bucket_of_before_says_it_from_the_next_run_on(settings: Settings, bucket: Bucket) -> None:
    open_store(settings, for_run=True)
    bucket.delete([KEY])
    open_store(settings, for_run=True)
    assert said(bucket) == b"1\n"


def test_a_newer_one_is_refused_before_anything_is_written(
    settings: Settings, bucket: Bucket, server: Server, tmp_path: Path
) -> None:
    bucket.put(KEY, b"7\n")
    server.fail()
    with pytest.raises(PipelineError, match=REFUSED):
        open_chain(settings, run="a-run")
    chain = open_chain(settings)
    with pytest.raises(PipelineError, match=REFUSED):
        make_plan(chain)
    with pytest.raises(PipelineError, match=REFUSED):
        open_store(settings, for_run=False).known_builds("math_split")
    assert {request.partition(" ")[0] for request in server.requests()} == {"GET"}
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_it_is_raised_with_what_is_built_and_older_artifacts_are_reused(
    settings: Settings, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = build(open_store(settings, for_run=True))  # type: ignore[arg-type]
    monkeypatch.setattr(home_format, "FORMAT", 2)
    monkeypatch.setattr("ernie_pipeline.store.shared.format.FORMAT", 2)
    found, _ = open_store(settings, for_run=False, fetch=True).find(*ARTIFACT)
    assert found
    assert found.manifest == built.manifest
    assert said(bucket) == b"1\n"
    open_store(settings, for_run=True)
    assert said(bucket) == b"2\n"


def test_one_that_is_raised_meanwhile_is_looked_at_again(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    create = bucket.create

    def first_another(key: str, body: bytes) -> object:
        bucket.put(key, b"7\n")
        return create(key, body)

    monkeypatch.setattr(bucket, "create", first_another)
    with pytest.raises(PipelineError, match=REFUSED):
        write_format(bucket)
    assert said(bucket) == b"7\n"
