import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.demo import BASE
from ernie_pipeline.registry.model_folder import stage_code
from ernie_pipeline.registry.register import Registration, RegistrationRequest
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.registry.conftest import DEMO, QUESTION


@pytest.fixture(scope="module")
def served_model() -> Any:
    from ernie_pipeline.registry import served_model

    return served_model


@pytest.fixture(scope="module")
def loaded(served_model: Any, make_request: Callable[..., RegistrationRequest], tmp_path_factory: Any) -> Any:
    """The model as MLflow makes it, without MLflow."""
    request = make_request()
    pins = tmp_path_factory.mktemp("pins") / "model.json"
    pins.write_text(json.dumps(request.served))
    model = served_model.ServedModel()
    artifacts = {"adapter": str(request.adapter), "served": str(pins)}
    model.load_context(type("Context", (), {"artifacts": artifacts}))
    return model


def test_questions_in_answers_out_greedy_by_default(loaded: Any) -> None:
    first = loaded.predict(None, [{"question": QUESTION}, {"question": "Compute 7 * 8."}])
    assert list(first.columns) == ["answer"]
    assert (
        first["answer"].tolist() == loaded.predict(None, {"question": [QUESTION, "Compute 7 * 8."]})["answer"].tolist()
    )


def test_a_seed_makes_sampling_repeatable(loaded: Any) -> None:
    def sample(seed: int) -> list[str]:
        params = {"temperature": 3.0, "seed": seed, "top_p": 1.0, "max_new_tokens": 24}
        return list(loaded.predict(None, {"question": [QUESTION] * 4}, params)["answer"])

    assert sample(1) == sample(1) != sample(2)


@pytest.mark.parametrize("params", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_a_parameter_out_of_range_is_the_callers_error(loaded: Any, params: dict[str, Any]) -> None:
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match=f"{next(iter(params))} must be") as failure:
        loaded.predict(None, {"question": [QUESTION]}, params)
    assert failure.value.get_http_status_code() == 400


def test_a_changed_base_is_refused(served_model: Any, tmp_path: Path) -> None:
    copy = tmp_path / "base"
    shutil.copytree(BASE, copy)
    base = {**DEMO, "name": str(copy), "checkpoint": str(copy)}
    assert served_model.pinned_checkpoint(base) == str(copy)
    with (copy / "model.safetensors").open("r+b") as weights:
        weights.seek(-1, 2)
        weights.write(b"\x01")
    with pytest.raises(PipelineError, match=r"is not the one .* its content is sha256:.*, recorded is sha256:"):
        served_model.pinned_checkpoint(base)
    shutil.rmtree(copy)
    with pytest.raises(PipelineError, match=r"is not at .*; put that checkpoint back"):
        served_model.pinned_checkpoint(base)


def test_a_base_from_the_hub_is_pinned_by_its_commit(served_model: Any) -> None:
    base = {"name": "a/b", "checkpoint": "a/b", "revision": "c" * 40, "version": "commit:" + "c" * 40}
    assert served_model.pinned_checkpoint(base) == "a/b"


def test_the_demo_base_is_the_installed_one_wherever_it_was_trained(served_model: Any) -> None:
    assert served_model.pinned_checkpoint({**DEMO, "checkpoint": "/a/machine/far/away"}) == str(BASE)


def test_the_staged_code_is_all_that_the_backends_need(tmp_path: Path) -> None:
    folder = stage_code(tmp_path)
    work = (
        # an editable install finds by itself what the copy lacks: another machine has none
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'ditable' not in repr(f)]\n"
        "from ernie_pipeline.models.grouped import backend, quantize_checkpoint\n"
        "from ernie_pipeline.models.generation import decode, generate\n"
        "from ernie_pipeline.models.peft import backend\nprint(backend.__file__)"
    )
    found = subprocess.run(
        [sys.executable, "-c", work],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == str(folder / "models" / "peft" / "backend.py")
    assert not list(folder.rglob("*.safetensors"))


def test_mlflow_serves_the_champion(
    registered: Registration, make_request: Callable[..., RegistrationRequest], tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/ernie-math@champion"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--env-manager", "local", "-h", "127.0.0.1", "-p", str(port)],
            cwd=tmp_path,
            env=os.environ | {"MLFLOW_TRACKING_URI": make_request().tracking_uri, "MLFLOW_DISABLE_TELEMETRY": "true"},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # mlflow starts a shell that starts the server: all of them must go
        )
        try:
            answer = ask(port, server, tmp_path / "log")
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
    assert answer == {"predictions": [{"answer": registered.answer}]}


def ask(port: int, server: "subprocess.Popen[bytes]", log: Path) -> Any:
    body = json.dumps({"dataframe_records": [{"question": QUESTION}], "params": {"max_new_tokens": 24}}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"})
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.load(response)
        except urllib.error.URLError as error:
            if isinstance(error, urllib.error.HTTPError):
                raise
            time.sleep(0.2)
    raise AssertionError(f"the server did not come up:\n{log.read_text()}")
