import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from ernie_pipeline.registry.register import register
from ernie_pipeline.registry.registration import RegistrationRequest
from ernie_pipeline.registry.tracking import connected, ensure_experiment
from ernie_pipeline.utils.address import public_uri
from ernie_pipeline.utils.errors import PipelineError


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://me:s3cret@host:5000/base", "http://host:5000/base"),
        ("https://token@host", "https://host"),
        ("https://me:s3/c@ret@host/x?key=s3cret", "https://host/x"),
        ("https://me:s3/c@r#et@host/x?key=s3cret", "https://***"),  # the "#" may as well begin what follows a path
        ("postgresql://me:s3cret@db/mlflow?password=s3cret", "postgresql://db/mlflow"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("mlruns", "mlruns"),
    ],
)
def test_no_login_is_shown(uri: str, shown: str) -> None:
    assert public_uri(uri) == shown


def test_a_first_opening_that_is_interrupted_leaves_nothing_half_made(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path}/mlflow.db"

    def interrupt(connection: object, cursor: object, statement: str, *_: object) -> None:
        if statement.strip().startswith("CREATE TABLE _alembic_tmp_"):
            raise KeyboardInterrupt

    event.listen(Engine, "after_cursor_execute", interrupt)
    try:
        with pytest.raises(KeyboardInterrupt), connected(address):
            pass
    finally:
        event.remove(Engine, "after_cursor_execute", interrupt)
    with connected(address) as client:
        assert client.search_registered_models() == []
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


@pytest.mark.parametrize(
    "uri", ["http://me:s3cret@127.0.0.1:9", "nosuchdialect://me:s3cret@127.0.0.1:9/db", "mysql+x://me:s3cret@h/db"]
)
def test_a_login_is_in_no_error_and_no_traceback(
    uri: str, monkeypatch: pytest.MonkeyPatch, make_request: Callable[..., RegistrationRequest]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(PipelineError, match=r"^MLflow at ") as failure:
        register(make_request(tracking_uri=uri))
    assert "s3cret" not in "".join(traceback.format_exception(failure.value))


def test_a_login_reaches_mlflow_by_its_own_variables_and_nothing_is_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://the-users-own")
    before = dict(os.environ)
    with connected("http://me:s3%2Fcret@127.0.0.1:9"):
        assert os.environ["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:9"
        assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "s3/cret"
        assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert dict(os.environ) == before


def test_a_child_process_finds_the_same_server_even_if_mlflow_knew_it_before(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with connected(uri), connected(uri):
        assert os.environ["MLFLOW_TRACKING_URI"] == uri


def test_mlflow_does_not_call_home(tmp_path: Path) -> None:
    program = f"""
from ernie_pipeline.registry.tracking import connected
with connected("sqlite:///{tmp_path}/mlflow.db"):
    from mlflow.telemetry import get_telemetry_client
    assert get_telemetry_client() is None
"""
    # with nothing of pytest's or a CI's in the environment: those switch it off too
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


def test_a_deleted_experiment_is_told_in_a_sentence(tmp_path: Path) -> None:
    with connected(f"sqlite:///{tmp_path}/new/mlflow.db") as client:
        first = ensure_experiment(client, "ours", tmp_path / "files")
        assert ensure_experiment(client, "ours", None) == first
        assert client.get_experiment(first).artifact_location == (tmp_path / "files").as_uri()
        client.delete_experiment(first)
        with pytest.raises(PipelineError, match=r"'ours' was deleted; restore it .*registry\.experiment"):
            ensure_experiment(client, "ours", None)
