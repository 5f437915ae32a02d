"""`ernie serve` where it cannot: told before a model is loaded. That it serves: registry/test_servers.py."""

import os
import socket
from pathlib import Path

import pytest

from ernie_pipeline.cli.app import main


@pytest.fixture(autouse=True)
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home with a registry, and no server that is really started."""

    def started(*_: object) -> None:
        raise AssertionError("the server is started")

    (tmp_path / "mlflow.db").touch()
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(os, "execv", started)


def test_a_port_that_is_taken_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 1
    assert capsys.readouterr().err == (
        f"error: nothing can listen at 127.0.0.1, port {port} (Address already in use); "
        "give another with --port or --host, or end what listens there\n"
    )
    assert main(["serve", "--port", str(port)]) == 1  # it is free: the next thing that is looked for is the model
    assert "nothing can listen" not in capsys.readouterr().err


def test_an_address_that_is_none_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--host", "192.0.2.1"]) == 1  # of no machine: RFC 5737
    assert "error: nothing can listen at 192.0.2.1, port 5001 (" in capsys.readouterr().err
