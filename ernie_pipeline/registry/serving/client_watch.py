"""ASGI middleware: reads a request, and cancels the work on it when its client has gone.

Neither FastAPI nor uvicorn does: a handler runs to its end whether anybody waits for it or not.
"""

import asyncio
import json
from contextlib import suppress
from typing import Any

from ernie_pipeline.registry.serving import openai_format


class ClientWatch:
    """Around the ASGI app `app`. Bodies of more than `max_body` bytes, or that are no JSON object, are refused."""

    def __init__(self, app: Any, max_body: int):
        self.app, self.max_body = app, max_body

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """As ASGI has it."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        body = await self._body(receive)
        if body is None:
            return  # gone already
        if len(body) > self.max_body:
            await openai_format.error(f"the request is longer than {self.max_body:,} bytes", 413)(scope, receive, send)
        elif not _is_object(body):
            await openai_format.error("the request must be a JSON object", 400)(scope, receive, send)
        else:
            await self._answer(body, scope, receive, send)

    async def _body(self, receive: Any) -> bytes | None:
        """The whole body, or a bit more than is allowed of it; None when the client has gone."""
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if not message.get("more_body") or len(body) > self.max_body:
                return bytes(body)

    async def _answer(self, body: bytes, scope: Any, receive: Any, send: Any) -> None:
        gone: asyncio.Task[Any] = asyncio.create_task(receive())  # comes when the client goes, or was answered
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replay() -> Any:
            return next(messages, None) or await asyncio.shield(gone)

        work = asyncio.create_task(self.app(scope, replay, send))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            for task in (work, gone):
                task.cancel()
            with suppress(asyncio.CancelledError):
                await work


def _is_object(body: bytes) -> bool:
    """Whether it is a JSON object. MLflow's server and FastAPI fail for some bodies that are none."""
    try:
        return isinstance(json.loads(body), dict)
    except (ValueError, RecursionError):
        return False
