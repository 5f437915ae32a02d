"""What a job reports beyond its log lines, handed on to the step."""

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dagster as dg

from ernie_pipeline.launch.launcher import OnProgress
from ernie_pipeline.utils.errors import PipelineError

log = logging.getLogger(__name__)


class Listener:
    """Hands on the progress that comes through a Pipes session, and notes the sentence of a failure.

    `folder`: where processes without a pipe leave theirs. Progress that Dagster's storage does not take, because it is
    away, waits for the next call: it ends no job.
    """

    def __init__(self, folder: Path, on_progress: OnProgress):
        self.folder, self.on_progress, self.heard, self.failure = folder, on_progress, 0, ""
        self.session: dg.PipesSession | None = None
        self._progress: deque[dict[str, Any]] = deque()
        self._away = False

    def listen(self) -> None:
        """Hand on what has come since the last call."""
        messages = self.session.get_custom_messages()[self.heard :] if self.session else []
        self.heard += len(messages)
        for message in messages:
            if "error" in message:
                self.failure = message["error"]
            else:
                self._progress.append(message["progress"])
        self._hand_on()

    def _hand_on(self) -> None:
        while self._progress:
            try:
                self.on_progress(self._progress[0])
            except PipelineError:
                raise
            except Exception as error:
                if not self._away:
                    log.warning("progress is not recorded for now: %s", error)
                self._away = True
                return
            self._progress.popleft()
            self._away = False


@contextmanager
def last_words_when_interrupted(context: dg.AssetExecutionContext, listener: Listener) -> Iterator[None]:
    """What the child said to its end, such as after which step it has saved, comes before the interrupt's own error."""
    try:
        yield
    except BaseException:
        listener.listen()
        if listener.failure:
            with suppress(Exception):  # Dagster's storage may be away; the error itself tells
                context.log.info(listener.failure)
        raise
