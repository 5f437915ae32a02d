"""ASGI middleware: reads a request, has it checked beside the event loop, and cancels the work on it when its client
has gone.

Neither FastAPI nor uvicorn does: a handler runs to its end whether anybody waits for it or not, and what it computes
before its first `await` holds up everybody else.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

from ernie_pipeline.registry.serving.refusal import Refusal

LARGE = 64 * 2**10
"""The bytes of a request above which it is checked in a lane of its own, one after the other: it may take a second."""

checked: ContextVar[Any] = ContextVar("checked")
"""Of the request that is being answered: what its check returned."""


class ClientWatch:
    """Around the ASGI app `app`.

    `check` gets a request's path, headers (names in lower case) and body, in a thread, and raises `Refusal` or returns
    what the app then finds in `checked`. `refused` makes a refusal an ASGI answer. Bodies of more than `max_body` bytes
    are refused.
    """

    def __init__(
        self,
        app: Any,
        max_body: int,
        check: Callable[[str, Mapping[str, str], bytes], Any],
        refused: Callable[[Refusal], Any],
    ):
        self.app, self.max_body, self.check, self.refused = app, max_body, check, refused
        self._small = ThreadPoolExecutor(4, thread_name_prefix="check")
        self._large = ThreadPoolExecutor(1, thread_name_prefix="check-large")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """As ASGI has it."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        body = await self._body(receive)
        if body is None:
            return  # gone already
        if len(body) > self.max_body:
            refusal = Refusal(f"the request is longer than {self.max_body:,} bytes", 413)
            await self.refused(refusal)(scope, receive, send)
        else:
            await self._answer_or_leave(body, scope, receive, send)

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

    async def _answer_or_leave(self, body: bytes, scope: Any, receive: Any, send: Any) -> None:
        gone: asyncio.Task[Any] = asyncio.create_task(receive())  # comes when the client goes, or was answered
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replay() -> Any:
            return next(messages, None) or await asyncio.shield(gone)

        work = asyncio.create_task(self._answer(body, scope, replay, send))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            for task in (work, gone):
                task.cancel()
            with suppress(asyncio.CancelledError):
                await work

    async def _answer(self, body: bytes, scope: Any, receive: Any, send: Any) -> None:
        lane = self._large if len(body) > LARGE else self._small
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            found = await asyncio.get_running_loop().run_in_executor(lane, self.check, scope["path"], headers, body)
        except Refusal as refusal:
            await self.refused(refusal)(scope, receive, send)
            return
        checked.set(found)  # in this request's task: its context is its own
        await self.app(scope, receive, send)
