"""What is around MLflow's agent server, in this process: a full queue, and clients that go."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest

from ernie_pipeline.models.checkpoint.tokenizer import token_ids
from ernie_pipeline.registry.serving import answering as answering_module
from ernie_pipeline.registry.serving.agent_server import agent_app
from ernie_pipeline.registry.serving.answering import Answering
from ernie_pipeline.registry.serving.client_watch import LARGE, ClientWatch
from ernie_pipeline.registry.serving.refusal import Refusal
from ernie_pipeline_tests.registry.conftest import QUESTION, SPEC

CHAT = "/v1/chat/completions"
ENDLESS = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 1e4, "max_tokens": 1900}

LONG_TEXT = "7 " * LARGE
LONG_ONES = {CHAT: {"messages": [{"role": "user", "content": LONG_TEXT}]}, "/responses": {"input": LONG_TEXT}}


@pytest.fixture(scope="module")
def answering() -> Answering:
    from ernie_pipeline.models.peft.backend import PeftBackend

    return Answering(PeftBackend().load(SPEC, "cpu"), instruction="", max_new_tokens=24, max_batch=4)


@pytest.fixture(scope="module")
def app(answering: Answering) -> Any:
    return agent_app(answering, "demo")


@pytest.fixture
def full(answering: Answering) -> Iterator[None]:
    room, answering.batcher.max_waiting = answering.batcher.max_waiting, 0
    yield
    answering.batcher.max_waiting = room


def test_a_full_queue_is_told_at_once(app: Any, full: None) -> None:
    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://demo") as client:
            bodies = {CHAT: ENDLESS, "/responses": {"input": QUESTION}}
            return [await client.post(path, json=body) for path, body in bodies.items()]

    for response in asyncio.run(ask()):
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        assert response.json()["error"]["type"] == "server_error"
        assert response.json()["error"]["message"].endswith("no more than 0 may; ask again later")


@pytest.mark.parametrize(
    ("path", "body"),
    [(CHAT, ENDLESS), ("/responses", {"input": QUESTION, "temperature": 1e4, "max_output_tokens": 1900})],
)
def test_who_goes_is_not_answered(app: Any, answering: Answering, path: str, body: Any) -> None:
    sent: list[Any] = []

    async def ask_and_go() -> None:
        gone = asyncio.Event()
        messages = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        work = asyncio.create_task(app(scope(path), receive, send))
        while not (answering.batcher._working or work.done()):  # no longer: any token may end the answer
            await asyncio.sleep(0.01)
        assert not work.done()
        gone.set()
        await asyncio.wait_for(work, 10)

    asyncio.run(ask_and_go())
    assert sent == []
    deadline = time.monotonic() + 30
    while answering.batcher._working and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not answering.batcher._working, "the work goes on"


def test_who_goes_before_all_is_sent_reaches_nobody() -> None:
    async def nobody(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("called")

    messages = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    asyncio.run(ClientWatch(nobody, 100, passed, refused)(scope("/"), receive, nobody))


def test_an_error_of_the_application_is_not_swallowed() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    async def receive() -> Any:
        if waiting:
            return waiting.pop()
        await asyncio.sleep(60)

    waiting = [{"type": "http.request", "body": b"{}", "more_body": False}]
    with pytest.raises(ZeroDivisionError):
        asyncio.run(ClientWatch(broken, 100, passed, refused)(scope("/"), receive, broken))


def passed(path: str, headers: Mapping[str, str], body: bytes) -> None:
    """A check that lets everything pass."""


def refused(refusal: Refusal) -> Any:
    raise AssertionError(refusal)


def test_a_quick_one_does_not_wait_for_large_ones_to_be_checked(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does one that is refused: what is slow about a body happens beside the event loop, in a lane of its own."""
    release, begun = threading.Event(), threading.Event()

    def slow(tokenizer: Any, texts: Any) -> Any:
        if len(texts[0]) > LARGE:
            begun.set()
            release.wait(60)
        return token_ids(tokenizer, texts)

    monkeypatch.setattr(answering_module, "token_ids", slow)
    monkeypatch.setattr(Answering, "_limit", lambda self, settings: 131_072)

    async def ask() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://demo", timeout=60) as client:
            large = [asyncio.create_task(client.post(path, json=long)) for path, long in [*LONG_ONES.items()] * 4]
            assert await asyncio.to_thread(begun.wait, 30)
            quick = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 2}
            assert (await asyncio.wait_for(client.post(CHAT, json=quick), 30)).status_code == 200
            assert (await asyncio.wait_for(client.post("/responses", json={}), 30)).status_code == 400
            assert not any(one.done() for one in large)
            for one in large:
                one.cancel()
            release.set()
            await asyncio.wait(large)

    asyncio.run(ask())


def scope(path: str) -> dict[str, Any]:
    """As ASGI has it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
