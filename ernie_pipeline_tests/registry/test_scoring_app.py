"""What is put around MLflow's scoring server, around its real application with a model that says what it got."""

import asyncio
import io
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import httpx
import mlflow
import pandas as pd
import pytest

from ernie_pipeline.registry.serving import scoring_server
from ernie_pipeline.registry.serving.request_body import MAX_BODY
from ernie_pipeline.registry.serving.scoring_app import guard

GOOD = b'{"dataframe_records": [{"question": "1?"}]}'
JSON = "application/json"
PARQUET = "application/vnd.apache.parquet"


class Model(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Does what the test says with the questions."""

    does: Callable[[pd.DataFrame], pd.DataFrame] = staticmethod(lambda table: table)

    def predict(self, context: object, model_input: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        return Model.does(pd.DataFrame(model_input))


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from mlflow.pyfunc.scoring_server import init

    folder = str(tmp_path_factory.mktemp("model") / "model")
    mlflow.pyfunc.save_model(folder, python_model=Model(), pip_requirements=[])
    made = init(mlflow.pyfunc.load_model(folder))
    guard(made)
    return made


@pytest.fixture(autouse=True)
def again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "does", staticmethod(lambda table: table))


def post(app: Any, body: bytes, kind: str | None = JSON) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x", timeout=60) as client:
            return await client.post("/invocations", content=body, headers={"Content-Type": kind} if kind else {})

    return asyncio.run(ask())


def table(rows: int) -> bytes:
    written = io.BytesIO()
    pd.DataFrame({"question": ["1?"] * rows}).to_parquet(written)
    return written.getvalue()


def test_a_good_request_is_answered(app: Any) -> None:
    assert post(app, GOOD).json() == {"predictions": [{"question": "1?"}]}
    assert post(app, table(2), PARQUET).json() == {"predictions": [{"question": "1?"}] * 2}


@pytest.mark.parametrize(
    ("body", "kind", "status", "sentence"),
    [
        (b'{"dataframe_records": ' + b"[" * 900 + b"]" * 900 + b"}", JSON, 400, "nested more than 32 levels deep"),
        (b'{"inputs": ' + b"[" * 200_000, JSON, 400, "more than 20,000 objects and lists"),
        (b'{"inputs": 1' + b"0" * 5000 + b"}", JSON, 400, "the request must be a JSON object"),
        (
            b'{"dataframe_split": {"columns": [{}], "data": [["1?"]]}}',
            JSON,
            400,
            "the request is in none of the forms that are read",
        ),
        (b"1" * 10_000, JSON, 400, "the request must be a JSON object"),
        (GOOD, None, 415, "send JSON or Parquet: the content type must be"),
        (b"question\n1?\n", "text/csv", 415, "send JSON or Parquet: the content type must be"),
        (b"", PARQUET, 400, "the request is no Parquet file that can be read"),
        (table(2)[:-20], PARQUET, 400, "the request is no Parquet file that can be read"),
        (table(129), PARQUET, 400, "129 questions in one request; send at most 128"),
        (b" " * MAX_BODY + GOOD, JSON, 413, "the request is longer than 2,097,152 bytes"),
    ],
)
def test_what_mlflow_fails_for_is_one_sentence(
    app: Any, body: bytes, kind: str | None, status: int, sentence: str
) -> None:
    answer = post(app, body, kind)
    assert (answer.status_code, list(answer.json())) == (status, ["error_code", "message"])
    assert sentence in answer.json()["message"]


def test_a_traceback_is_for_the_log(app: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    def broken(asked: pd.DataFrame) -> pd.DataFrame:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(Model, "does", staticmethod(broken))
    answer = post(app, GOOD)
    assert list(answer.json()) == ["error_code", "message"]
    assert "ZeroDivisionError" not in answer.text
    assert "ZeroDivisionError: a fault of ours" in caplog.text


def test_the_work_stops_when_its_client_goes(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answer = threading.Event(), Future[list[int]]()

    def waits(questions: pd.DataFrame) -> pd.DataFrame:
        asked.set()
        scoring_server.wait_for([answer])
        return questions

    monkeypatch.setattr(Model, "does", staticmethod(waits))

    async def ask_and_go() -> None:
        messages = [{"type": "http.request", "body": GOOD, "more_body": False}]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await asyncio.to_thread(asked.wait, 30)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            raise AssertionError(message)

        headers = [(b"content-type", JSON.encode())]
        scope = {"type": "http", "method": "POST", "path": "/invocations", "query_string": b"", "headers": headers}
        await asyncio.wait_for(app({**scope, "http_version": "1.1", "scheme": "http"}, receive, send), 30)

    begun = time.monotonic()
    asyncio.run(ask_and_go())
    assert answer.cancelled()
    assert time.monotonic() - begun < 30, "its thread waited on, up to the time limit"
