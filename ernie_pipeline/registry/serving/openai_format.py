"""OpenAI's forms: what a request may have, and what answers and errors look like. Pure: nothing is computed here."""

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi.responses import JSONResponse
from mlflow.types.responses import create_text_output_item

from ernie_pipeline.registry.serving.answering import Answer, Answering
from ernie_pipeline.registry.serving.conversation import (
    PARAMETERS,
    Message,
    Settings,
    checked_messages,
    checked_settings,
    checked_text,
    refuse_unknown,
)
from ernie_pipeline.registry.serving.refusal import Refusal

IGNORED = ("model", "user", "metadata", "store")
"""What changes no answer: there is one model, and nothing is kept."""

CHAT = ("messages", "max_tokens", "max_completion_tokens", *PARAMETERS, "stream", "n", *IGNORED)
RESPONSES = ("input", "instructions", "max_output_tokens", *PARAMETERS, "stream", *IGNORED)


def read_chat_request(data: Any, answering: Answering) -> tuple[list[Message], Settings, bool]:
    """The conversation, how to answer, and whether as a stream. Raises `Refusal`."""
    refuse_unknown(data, CHAT)
    if data.get("n") not in (None, 1):
        raise Refusal("n must be 1: a request has one answer")
    streamed = _streamed(data)
    settings = _settings(data, ("max_tokens", "max_completion_tokens"), answering)
    return checked_messages(data.get("messages"), answering.instruction), settings, streamed


def read_response_request(data: Any, answering: Answering) -> tuple[list[Message], Settings]:
    """The conversation and how to answer, of OpenAI's Responses: `input` is a text or messages. Raises `Refusal`."""
    refuse_unknown(data, RESPONSES)
    _streamed(data)
    asked = data.get("input")
    messages = [{"role": "user", "content": checked_text(asked, "input")}] if isinstance(asked, str) else asked
    if not isinstance(messages, list):
        raise Refusal("input must be a text, or a list of at least one {role, content}")
    if data.get("instructions") is not None:
        system = {"role": "system", "content": checked_text(data["instructions"], "instructions")}
        messages = [system, *messages]
    return checked_messages(messages, answering.instruction), _settings(data, ("max_output_tokens",), answering)


def _streamed(data: Mapping[str, Any]) -> bool:
    streamed = data.get("stream")
    if not isinstance(streamed, bool | None):
        raise Refusal("stream must be true or false")
    return bool(streamed)


def _settings(data: Mapping[str, Any], limits: tuple[str, ...], answering: Answering) -> Settings:
    """How to answer; `limits`: OpenAI's names for max_new_tokens."""
    given = {name: data[name] for name in PARAMETERS if name in data}
    named = [name for name in ("max_new_tokens", *limits) if data.get(name) is not None]
    if len(named) > 1:
        raise Refusal(f"give one of {' and '.join(named)}")
    limit = named[0] if named else "max_new_tokens"
    return checked_settings({**given, "max_new_tokens": data.get(limit)}, answering.max_new_tokens, limit)


def chat_completion(answer: Answer, name: str) -> dict[str, Any]:
    """OpenAI's chat.completion."""
    message = {"role": "assistant", "content": answer.text}
    choice = {"index": 0, "message": message, "finish_reason": _finish_reason(answer), "logprobs": None}
    usage = {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.tokens,
        "total_tokens": answer.prompt_tokens + answer.tokens,
    }
    return {**_head("chatcmpl", "chat.completion", name), "choices": [choice], "usage": usage}


def chat_chunks(answer: Answer, name: str) -> Iterator[str]:
    """The answer as server-sent events: all of its text in one chunk, and then its end."""
    head = _head("chatcmpl", "chat.completion.chunk", name)
    for delta, reason in (
        ({"role": "assistant", "content": answer.text}, None),
        ({}, _finish_reason(answer)),
    ):
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        yield f"data: {json.dumps({**head, 'choices': [choice]})}\n\n"
    yield "data: [DONE]\n\n"


def response(answer: Answer, name: str) -> dict[str, Any]:
    """MLflow's `ResponsesAgentResponse`, which is OpenAI's response."""
    status = "completed" if answer.ended else "incomplete"
    usage = {
        "input_tokens": answer.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": answer.tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": answer.prompt_tokens + answer.tokens,
    }
    return {
        "id": f"resp_{uuid.uuid4().hex}",
        "created_at": float(int(time.time())),
        "model": name,
        "output": [{**create_text_output_item(answer.text, f"msg_{uuid.uuid4().hex}"), "status": status}],
        "status": status,
        **({} if answer.ended else {"incomplete_details": {"reason": "max_output_tokens"}}),
        "usage": usage,
    }


def response_events(answer: Answer, name: str) -> Iterator[dict[str, Any]]:
    """The events of a streamed response: all of its text in one, then the whole."""
    whole = response(answer, name)
    [item] = whole["output"]
    delta = {"item_id": item["id"], "output_index": 0, "content_index": 0, "delta": answer.text}
    yield {"type": "response.output_text.delta", **delta}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    yield {"type": "response.completed", "response": whole}


def models(name: str) -> dict[str, Any]:
    """OpenAI's list of models: this one."""
    return {"object": "list", "data": [{"id": name, "object": "model", "created": 0, "owned_by": "ernie_pipeline"}]}


def error(sentence: str, status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """OpenAI's error."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = {"error": {"message": sentence, "type": kind, "param": None, "code": None}}
    return JSONResponse(body, status, dict(headers or {}))


def _head(prefix: str, kind: str, name: str) -> dict[str, Any]:
    return {"id": f"{prefix}-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": name}


def _finish_reason(answer: Answer) -> str:
    return "stop" if answer.ended else "length"
