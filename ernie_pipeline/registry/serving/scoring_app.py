"""What is put around the application of `mlflow models serve`: it parses whatever comes, and fails for some of it.

Bodies are bounded and checked first, in one sentence; errors show no tracebacks, which MLflow sends along; the work on
a request stops when its client goes.
"""

import io
import json
import logging
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from fastapi.responses import Response

from ernie_pipeline.registry.serving.client_watch import ClientWatch, checked
from ernie_pipeline.registry.serving.refusal import Refusal
from ernie_pipeline.registry.serving.request_body import MAX_BODY, json_object
from ernie_pipeline.registry.serving.scoring_server import MAX_QUESTIONS

log = logging.getLogger(__name__)

JSON, PARQUET = "application/json", "application/vnd.apache.parquet"

MAX_TABLE = 16 * MAX_BODY
"""The bytes of a Parquet file's columns once they are decompressed, at most."""

UNEXPECTED = "Encountered an unexpected error"
"""How MLflow's message begins where the model's code has failed: a fault of ours."""


def guard(app: Any) -> None:
    """Put it around MLflow's FastAPI application, which has not started yet."""
    app.add_middleware(_Scoring)
    app.add_middleware(ClientWatch, max_body=MAX_BODY, check=check_request, refused=_answered)


def check_request(path: str, headers: Mapping[str, str], body: bytes) -> "list[Future[list[int]]]":
    """Raise `Refusal` for a body that MLflow should not see. Returns the place for the answers that it waits for."""
    if path == "/invocations":
        kind = headers.get("content-type", "").partition(";")[0].strip()
        if kind == JSON:
            json_object(body)
        elif kind == PARQUET:
            _check_parquet(body)
        else:
            raise Refusal(f"send JSON or Parquet: the content type must be {JSON} or {PARQUET}", 415)
    return []


def _check_parquet(body: bytes) -> None:
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(io.BytesIO(body))
        rows = file.metadata.num_rows
        size = sum(file.metadata.row_group(number).total_byte_size for number in range(file.metadata.num_row_groups))
        if rows <= MAX_QUESTIONS and size <= MAX_TABLE:
            file.read().to_pandas()
    except Exception:  # pyarrow raises whatever its parsers meet in a broken file
        raise Refusal("the request is no Parquet file that can be read") from None
    if rows > MAX_QUESTIONS:
        raise Refusal(f"{rows} questions in one request; send at most {MAX_QUESTIONS}")
    if size > MAX_TABLE:
        raise Refusal(f"the request's table is longer than {MAX_TABLE:,} bytes", 413)


def _answered(refusal: Refusal) -> Response:
    return Response(refusal.serialize_as_json(), refusal.status, media_type=JSON)


class _Scoring:
    """Around the ASGI app `app`: takes tracebacks out of errors, and stops the work that is not waited for any more."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """As ASGI has it."""
        held: list[Any] = []
        begun = False

        async def send_on(message: Any) -> None:
            nonlocal begun
            begun = True
            if message["type"] == "http.response.start" and message["status"] >= 400:
                held.append(message)
            elif not held:
                await send(message)
            else:
                held.append(message)
                if not message.get("more_body"):
                    await _without_trace(held)(scope, receive, send)

        try:
            await self.app(scope, receive, send_on)
        except Exception as error:  # whatever its parsers raise; of an error in the model's code it makes an answer
            if begun or scope["type"] != "http":
                raise
            log.warning("MLflow cannot read a request: %s: %s", type(error).__name__, error)
            await _answered(Refusal("the request is in none of the forms that are read"))(scope, receive, send)
        finally:
            for answer in checked.get(None) or ():
                answer.cancel()


def _without_trace(held: list[Any]) -> Response:
    """The error that MLflow is about to send, with nothing but its code and its message."""
    start, body = held[0], b"".join(message.get("body", b"") for message in held[1:])
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in start["headers"]}
    try:
        told = json.loads(body)
        if told.get("message", "").startswith(UNEXPECTED):
            log.error("%s", told.get("stack_trace"))
        body = json.dumps({name: told[name] for name in ("error_code", "message")}).encode()
        headers.pop("content-length", None)
    except (ValueError, KeyError, AttributeError):
        pass  # no error of MLflow's
    return Response(body, start["status"], headers)
