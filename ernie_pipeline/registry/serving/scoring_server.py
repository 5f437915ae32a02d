"""`mlflow models serve`: what its server does not do by itself, done from within the model that it loads."""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextvars import ContextVar

from ernie_pipeline.registry.serving.client_watch import checked
from ernie_pipeline.registry.serving.refusal import Refusal

SERVED = "__pyfunc_model_path__"
"""The environment variable in which the server's process finds its model."""

TIMEOUT = "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT"
DEFAULT_TIMEOUT_S = 60.0

MAX_QUESTIONS = 128
"""The questions of one request: it must leave room for others."""

APPLICATION = "mlflow.pyfunc.scoring_server.app"
"""The module of MLflow's application, which is made from the model once that is loaded."""

SPARE_THREADS = 32
"""The threads for requests that are refused while as many wait as may."""

_ignored: ContextVar[str] = ContextVar("ignored", default="")
"""What MLflow has dropped of a request: the server answers each in a context of its own."""


def is_scoring_server() -> bool:
    """Whether this process is MLflow's server, about to serve the model that is being loaded."""
    return SERVED in os.environ


def prepare_server() -> None:
    """Let all that may wait wait side by side, hear of what MLflow drops, and see requests before it does.

    The server answers each request in a thread of its event loop's pool, which has few (the cores and four): whoever
    sends nonsense would wait for those who wait for answers, and no batch would be larger than the pool. The loop does
    not run yet; uvicorn's log is the first that is heard from within it.
    """
    logging.getLogger("uvicorn.error").addFilter(_loop_runs)
    logger = logging.getLogger("mlflow.models.utils")
    logger.addFilter(_note_ignored)
    if not logger.isEnabledFor(logging.WARNING):
        logger.setLevel(logging.WARNING)


def _loop_runs(record: logging.LogRecord) -> bool:
    """A filter of uvicorn's logger that lets everything pass: at the first word from the loop, no request came yet."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # not yet
        return True
    logging.getLogger("uvicorn.error").removeFilter(_loop_runs)
    # here, as they import torch and MLflow's server, which not all need
    from ernie_pipeline.registry.serving.batcher import MAX_WAITING
    from ernie_pipeline.registry.serving.scoring_app import guard

    loop.set_default_executor(ThreadPoolExecutor(MAX_WAITING + SPARE_THREADS, thread_name_prefix="request"))
    guard(sys.modules[APPLICATION].app)
    return True


def refuse_ignored() -> None:
    """Raise `Refusal` where MLflow has dropped a part of this request, parameters or columns that the signature lacks.

    It does so before the model sees the request, and only says it in the log.
    """
    if names := _ignored.get():
        raise Refusal(f"unknown parameter {names[:100]}; the model's signature says which there are")


def _note_ignored(record: logging.LogRecord) -> bool:
    """A filter of MLflow's logger: it keeps the names of what was dropped."""
    said = record.getMessage()
    if not said.startswith(("Unrecognized params", "Found extra inputs")):
        return True
    _ignored.set(said.partition("[")[2].partition("]")[0])
    return False


def wait_for(answers: Sequence["Future[list[int]]"]) -> list[list[int]]:
    """What the futures get. When its client goes or, after the server's time limit, has an error, the work stops."""
    checked.get([]).extend(answers)
    limit_s = float(os.environ.get(TIMEOUT, DEFAULT_TIMEOUT_S))
    end = time.monotonic() + limit_s
    try:  # not `concurrent.futures.wait`, which does not hear of those that are cancelled
        return [one.result(max(0.0, end - time.monotonic())) for one in answers]
    except TimeoutError:
        raise Refusal(f"no answer within {limit_s:g} seconds; ask for less, or raise {TIMEOUT}", 504) from None
    except CancelledError:
        raise Refusal("nobody waits for this answer any more", 503) from None
    finally:
        for one in answers:
            one.cancel()
