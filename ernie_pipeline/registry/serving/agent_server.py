"""MLflow's agent server for a model of ours: OpenAI's Responses as MLflow has them, and OpenAI's chat completions.

What the server lacks is around it: a request whose client has gone is cancelled, which stops the work on it, and every
error has OpenAI's form.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any

import mlflow
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from mlflow.genai.agent_server import AgentServer, invoke, stream
from mlflow.genai.agent_server.validator import ResponsesAgentValidator
from starlette.exceptions import HTTPException

from ernie_pipeline.registry.serving import openai_format
from ernie_pipeline.registry.serving.answering import Answer, Answering, Prompt
from ernie_pipeline.registry.serving.client_watch import ClientWatch, checked
from ernie_pipeline.registry.serving.refusal import Refusal
from ernie_pipeline.registry.serving.request_body import MAX_BODY, json_object

TRACES = "MLFLOW_TRACE_SAMPLING_RATIO"
"""MLflow's environment variable: the part of the requests that are recorded."""

CHAT = "/v1/chat/completions"
RESPONSES = ("/responses", "/invocations")


def agent_app(answering: Answering, name: str) -> FastAPI:
    """The ASGI application. `name`: what the model is called in answers. Once in a process: MLflow keeps one."""
    if TRACES not in os.environ:  # else the server would record every question and answer in MLflow
        mlflow.tracing.disable()
    server = AgentServer("ResponsesAgent")
    server.validator = _Validator()

    async def respond(asked: _Asked) -> dict[str, Any]:
        return openai_format.response(await _answer(answering, asked.prompt), name)

    async def respond_in_events(asked: _Asked) -> AsyncIterator[dict[str, Any]]:
        for event in openai_format.response_events(await _answer(answering, asked.prompt), name):
            yield event

    invoke()(respond)
    stream()(respond_in_events)
    app: FastAPI = server.app

    @app.post(CHAT)
    async def chat_completions() -> Any:
        prompt, streamed = checked.get()
        answer = await _answer(answering, prompt)
        if streamed:
            return StreamingResponse(openai_format.chat_chunks(answer, name), media_type="text/event-stream")
        return openai_format.chat_completion(answer, name)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return openai_format.models(name)

    def check(path: str, headers: Mapping[str, str], body: bytes) -> Any:
        return _checked(answering, path, body)

    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _failed)
    app.add_middleware(ClientWatch, max_body=MAX_BODY, check=check, refused=_refusal)
    return app


def _checked(answering: Answering, path: str, body: bytes) -> Any:
    """A request's prompt, of a chat with whether it is to be streamed. There is room for it, so far."""
    data = json_object(body)
    if path == CHAT:
        messages, settings, streamed = openai_format.read_chat_request(data, answering)
    elif path in RESPONSES:
        messages, settings = openai_format.read_response_request(data, answering)
    else:
        return None
    answering.batcher.check_room()
    prompt = answering.prompt(messages, settings)
    return (prompt, streamed) if path == CHAT else prompt


class _Asked(dict[str, Any]):
    """A checked request as MLflow's traces show it, with the prompt that it comes to."""

    def __init__(self, values: dict[str, Any], prompt: Prompt):
        super().__init__(values)
        self.prompt = prompt


class _Validator(ResponsesAgentValidator):  # type: ignore[misc]
    """Hands on what was checked before the server began with a request."""

    def validate_and_convert_request(self, data: dict[str, Any]) -> _Asked:
        """See `BaseAgentValidator`."""
        return _Asked(data, checked.get())


async def _answer(answering: Answering, prompt: Prompt) -> Answer:
    """The answer; a cancelled wait for it cancels the work."""
    [waiting] = answering.submit([prompt])
    tokens: list[int] = await asyncio.wrap_future(waiting)
    return answering.answer(prompt, tokens)


async def _refused(request: Request, refusal: Exception) -> JSONResponse:
    assert isinstance(refusal, Refusal)
    return _refusal(refusal)


def _refusal(refusal: Refusal) -> JSONResponse:
    headers = {"Retry-After": "1"} if refusal.status == 503 else None
    return openai_format.error(refusal.sentence, refusal.status, headers)


async def _failed(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return openai_format.error(str(error.detail), error.status_code, error.headers)
