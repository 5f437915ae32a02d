"""Real servers of the registered model, at the loopback address: MLflow's scoring server and its agent server."""

import asyncio
import io
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import psutil
import pytest

from ernie_pipeline.demo.problems import INSTRUCTION
from ernie_pipeline.registry.registration import Registration, RegistrationRequest
from ernie_pipeline_tests.registry.conftest import QUESTION

pytestmark = pytest.mark.slow

URI = "models:/ernie-math@champion"
USER = {"role": "user", "content": QUESTION}
LONG = "7 " * 22_500
ENDLESS = {"temperature": 1e4, "max_new_tokens": 1900}
"""Any token may follow any other, so that an answer rarely ends."""

FILES = min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
"""The files that a server may have open at most; as many as usual, 256 here, unless it asks for more."""

SCORING, CHAT, RESPONSES = "/invocations", "/v1/chat/completions", "/responses"


@contextmanager
def serving(command: list[str], path: str, tracking_uri: str, folder: Path) -> Iterator[tuple[httpx.Client, int]]:
    """A client of the server that `command` starts, once it answers at `path`, and the server's process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    scripts = Path(sys.executable).parent  # mlflow starts uvicorn by name
    environment = {
        "MLFLOW_TRACKING_URI": tracking_uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
    }
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", *command, "--port", str(port)],
            cwd=folder,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, FILES)),
            env=os.environ | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # mlflow starts a shell that starts the server: all of them must go
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
                wait_until_up(client, path, server, folder / "log")
                yield client, server.pid
        finally:
            with suppress(ProcessLookupError):  # a test ended it
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def wait_until_up(client: httpx.Client, path: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        try:
            assert client.get(path).status_code == 200
            return
        except httpx.ConnectError:
            time.sleep(0.2)
    raise AssertionError(f"the server did not come up:\n{log.read_text()}")


@pytest.fixture(scope="module")
def scoring(registered: Registration, make_request: Callable[..., RegistrationRequest], tmp_path_factory: Any) -> Any:
    command = ["mlflow", "models", "serve", "-m", URI, "--env-manager", "local"]
    with serving(command, "/ping", make_request().tracking_uri, tmp_path_factory.mktemp("scoring")) as started:
        yield started


@pytest.fixture(scope="module")
def agent(registered: Registration, make_request: Callable[..., RegistrationRequest], tmp_path_factory: Any) -> Any:
    """By the command, whose process becomes the server's."""
    command, folder = ["ernie_pipeline", "serve", URI], tmp_path_factory.mktemp("agent")
    with serving(command, "/health", make_request().tracking_uri, folder) as (client, pid):
        yield client, pid, folder / "log"


def question(text: Any, **params: Any) -> dict[str, Any]:
    return {"dataframe_records": [{"question": text}], "params": params}


def chat(text: Any, **params: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **params}


def test_mlflow_serves_the_champion_in_every_form(scoring: Any, registered: Registration) -> None:
    client, _ = scoring
    told = {"predictions": [{"answer": registered.answer}]}
    for body in (
        question(QUESTION, max_new_tokens=24),
        {"inputs": [{"question": QUESTION}]},
        {"inputs": {"question": QUESTION}},
        {"instances": [{"question": QUESTION}]},
        {"dataframe_split": {"columns": ["question"], "data": [[QUESTION]]}},
        {"dataframe_records": [{"messages": [USER]}]},
        {"inputs": {"messages": [{"role": "user", "content": INSTRUCTION + QUESTION}]}},
    ):
        assert client.post(SCORING, json=body).json() == told, body
    mixed = {"dataframe_records": [{"messages": [USER]}, {"question": QUESTION}]}
    assert client.post(SCORING, json=mixed).json() == {"predictions": told["predictions"] * 2}
    assert client.post(SCORING, json={"messages": [USER]}).json() == told["predictions"], "as MLflow's chat models"
    table = io.BytesIO()
    pl.DataFrame({"messages": [[USER]]}).write_parquet(table)
    kind = {"Content-Type": "application/vnd.apache.parquet"}
    assert client.post(SCORING, content=table.getvalue(), headers=kind).json() == told


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (question(""), "question is empty"),
        (question(None), "give a question or messages, and not null"),
        (question(12), "question must be a string, not a number"),
        (question(LONG), "the conversation has 45,098 characters, and at most 2,024 tokens fit: "),
        (question(QUESTION, max_new_tokens=2048), "max_new_tokens must be less than 2,048"),
        (question(QUESTION, temprature=1.0), "unknown parameter 'temprature'"),
        ({"dataframe_records": [{"question": QUESTION, "n": 2}]}, "unknown parameter 'n'"),
        ({"messages": [USER], "temprature": 1.0}, "unknown parameter 'temprature'"),
        ({"messages": []}, "messages must be a list of at least one {role, content}"),
        ({"messages": "hello"}, "messages must be a list of at least one {role, content}"),
        ({"messages": [{**USER, "role": "tool"}]}, "messages[0].role must be one of system, user, assistant"),
        ({"inputs": []}, "the input has no rows: give at least one question"),
        ({"inputs": [{"question": "1?"}] * 129}, "129 questions in one request; send at most 128"),
    ],
)
def test_the_scoring_server_refuses_at_once_in_one_sentence(scoring: Any, body: Any, sentence: str) -> None:
    client, _ = scoring
    response = client.post(SCORING, json=body)
    assert response.status_code == 400
    assert response.json()["message"].startswith(sentence)
    assert "\n" not in response.json()["message"]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b'{"inputs": ' + b"[" * 900 + b"]" * 900 + b"}", "application/json", 400),
        (b'{"inputs": 1' + b"0" * 5000 + b"}", "application/json", 400),
        (b"{}", None, 415),
        (b"question\n1?\n", "text/csv", 415),
        (b"PAR1", "application/vnd.apache.parquet", 400),
        (b" " * (2**21 + 1), "application/json", 413),
    ],
)
def test_what_mlflow_fails_for_does_not_reach_it(scoring: Any, body: bytes, kind: str | None, status: int) -> None:
    client, _ = scoring
    response = client.post(SCORING, content=body, headers={"Content-Type": kind} if kind else {})
    assert (response.status_code, list(response.json())) == (status, ["error_code", "message"])


def test_openais_clients_get_what_they_expect(agent: Any, registered: Registration) -> None:
    client, *_ = agent
    whole = client.post(CHAT, json={"model": "any", "messages": [USER], "max_tokens": 24}).json()
    [choice] = whole["choices"]
    assert choice["message"] == {"role": "assistant", "content": registered.answer}
    assert (whole["object"], whole["model"], choice["finish_reason"]) == (
        "chat.completion",
        "ernie-math@champion",
        "stop",
    )
    assert whole["usage"]["total_tokens"] == whole["usage"]["prompt_tokens"] + whole["usage"]["completion_tokens"]
    cut = client.post(CHAT, json=chat(QUESTION, max_completion_tokens=1)).json()
    assert (cut["choices"][0]["finish_reason"], cut["usage"]["completion_tokens"]) == ("length", 1)
    lines = client.post(CHAT, json=chat(QUESTION, stream=True)).text.split("\n\n")
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == [registered.answer, None]
    assert lines[-2:] == ["data: [DONE]", ""]
    assert client.get("/v1/models").json()["data"][0]["id"] == "ernie-math@champion"


@pytest.mark.parametrize("path", [RESPONSES, SCORING])
def test_mlflows_responses_give_the_same_answer(agent: Any, registered: Registration, path: str) -> None:
    from mlflow.types.responses import ResponsesAgentResponse

    client, *_ = agent
    for asked in (QUESTION, [USER], [{**USER, "content": [{"type": "input_text", "text": QUESTION}]}]):
        response = client.post(path, json={"input": asked, "max_output_tokens": 24}).json()
        [item] = ResponsesAgentResponse(**response).output
        assert item.content[0]["text"] == registered.answer
        assert response["status"] == "completed"
    again = client.post(path, json={"input": [USER, *response["output"], USER]})
    assert again.status_code == 200, "what was answered can be sent back"
    streamed = client.post(path, json={"input": QUESTION, "stream": True}).text
    assert '"type": "response.completed"' in streamed
    assert streamed.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        (CHAT, chat(""), "messages[0].content is empty"),
        (CHAT, chat(None), "messages[0].content must be a string, not null"),
        (CHAT, chat(12), "messages[0].content must be a string, not a number"),
        (CHAT, {}, "messages must be a list of at least one {role, content}"),
        (CHAT, chat(LONG), "the conversation has 45,098 characters, and at most 2,024 tokens fit: "),
        (CHAT, chat(QUESTION, max_tokens=2048), "max_tokens must be less than 2,048"),
        (
            CHAT,
            chat(QUESTION, max_tokens=5, max_completion_tokens=5),
            "give one of max_tokens and max_completion_tokens",
        ),
        (CHAT, chat(QUESTION, max_tokens=-1), "max_tokens must be a whole number, at least 1"),
        (CHAT, chat(QUESTION, tools=[]), "unknown parameter 'tools'; known are messages, max_tokens, "),
        (CHAT, chat(QUESTION, n=2), "n must be 1: a request has one answer"),
        (CHAT, chat(QUESTION, stream=1), "stream must be true or false"),
        (RESPONSES, {"input": ""}, "input is empty"),
        (RESPONSES, {"input": None}, "input must be a text, or a list of at least one {role, content}"),
        (RESPONSES, {"input": LONG}, "the conversation has 45,098 characters, and at most 2,024 tokens fit: "),
        (RESPONSES, {"input": QUESTION, "temprature": 1.0}, "unknown parameter 'temprature'; known are input, "),
        (RESPONSES, [QUESTION], "the request must be a JSON object"),
        (CHAT, QUESTION, "the request must be a JSON object"),
    ],
)
def test_the_agent_server_refuses_at_once_in_one_sentence(agent: Any, path: str, body: Any, sentence: str) -> None:
    client, *_ = agent
    response = client.post(path, json=body)
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith(sentence)
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"null", b'{"seed": 1' + b"0" * 5000 + b"}"])
def test_what_is_no_json_is_refused(agent: Any, body: bytes) -> None:
    client, *_ = agent
    for path in (CHAT, RESPONSES):
        response = client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert (response.status_code, response.json()["error"]["message"]) == (400, "the request must be a JSON object")
    assert client.post(CHAT, content=b" " * (2**21 + 1)).status_code == 413


@pytest.mark.parametrize(("server", "path", "ask"), [("agent", CHAT, chat), ("scoring", SCORING, question)])
def test_100_at_once_are_served_beside_hostile_ones(
    request: pytest.FixtureRequest, server: str, path: str, ask: Callable[..., Any]
) -> None:
    """A hostile one asks for as much as is allowed; one that is refused is told while the others wait."""
    client, *_ = request.getfixturevalue(server)
    few = {"max_new_tokens": 8}
    expected = client.post(path, json=ask("Compute 7 + 30.", **few)).text

    async def all_of_them() -> tuple[list[httpx.Response], float, float]:
        limits = httpx.Limits(max_connections=300)
        async with httpx.AsyncClient(base_url=client.base_url, timeout=300, limits=limits) as many:
            hostile = asyncio.create_task(many.post(path, json=ask(QUESTION, **ENDLESS)))
            await asyncio.sleep(0.5)
            asked = [asyncio.create_task(many.post(path, json=ask(f"Compute {i} + 30.", **few))) for i in range(100)]
            await asyncio.sleep(0.5)
            begun = time.monotonic()
            refused = await many.post(path, json=ask(LONG))
            told = time.monotonic() - begun
            assert refused.status_code == 400
            answers = await asyncio.gather(*asked)
            hostile.cancel()
            return answers, told, time.monotonic() - begun

    answers, told, answered = asyncio.run(all_of_them())
    assert Counter(one.status_code for one in answers) == {200: 100}
    assert told < answered / 3
    assert content(answers[7].text) == content(expected)


def content(text: str) -> Any:
    told = json.loads(text)
    return told["choices"][0]["message"] if "choices" in told else told


@pytest.mark.parametrize(("server", "path", "ask"), [("agent", CHAT, chat), ("scoring", SCORING, question)])
def test_the_work_stops_when_its_client_goes(
    request: pytest.FixtureRequest, server: str, path: str, ask: Callable[..., Any]
) -> None:
    client, pid, *_ = request.getfixturevalue(server)
    impatient = httpx.Timeout(120, read=1.0)

    async def ask_and_go() -> None:
        async with httpx.AsyncClient(base_url=client.base_url, timeout=impatient) as many:
            asked = [many.post(path, json=ask(QUESTION, **ENDLESS)) for _ in range(24)]
            if server == "agent":
                asked += [many.post(RESPONSES, json={"input": QUESTION, "stream": True, **ENDLESS}) for _ in range(8)]
            for outcome in await asyncio.gather(*asked, return_exceptions=True):
                assert isinstance(outcome, httpx.ReadTimeout | httpx.Response)

    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]  # mlflow starts uvicorn
    process = max(family, key=busy_seconds)
    before = busy_seconds(process)
    asyncio.run(ask_and_go())
    assert busy_seconds(process) - before > 0.3, "it did not work on them"
    deadline = time.monotonic() + 15  # the piece that was under way; all of it would take a minute
    while True:
        before = busy_seconds(process)
        time.sleep(1)
        if busy_seconds(process) - before < 0.1:
            break
        assert time.monotonic() < deadline, "the work goes on"
    assert client.post(path, json=ask(QUESTION)).status_code == 200


def test_idle_clients_may_be_as_many_as_the_system_allows(agent: Any) -> None:
    """Each holds one of the server's files, of which a process has 1,024 where nothing else is said."""
    _, pid, _ = agent
    allowed, most = psutil.Process(pid).rlimit(psutil.RLIMIT_NOFILE)
    assert allowed == most


def busy_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def test_a_model_that_is_not_there_is_one_sentence(make_request: Callable[..., RegistrationRequest]) -> None:
    failed = subprocess.run(
        [sys.executable, "-m", "ernie_pipeline.registry.serve", "models:/nothing@champion"],
        env=os.environ | {"MLFLOW_TRACKING_URI": make_request().tracking_uri, "MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
    )
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("error: models:/nothing@champion cannot be loaded: ")


def test_the_command_has_served_without_noise_and_ends_by_one_interrupt(agent: Any) -> None:
    """The last one, as the server is gone then."""
    _, pid, log = agent
    os.kill(pid, signal.SIGINT)
    assert psutil.Process(pid).wait(30) == 0
    assert "Loading weights" not in log.read_text()
    assert "Traceback" not in log.read_text()
