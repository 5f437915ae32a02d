"""What a job reports beyond its log lines, handed on to the step."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from ernie_pipeline.launch.launcher import OnProgress


class Listener:
    """Hands on the progress that comes through a Pipes session, and notes the sentence of a failure.

    `folder`: where processes without a pipe leave theirs.
    """

    def __init__(self, folder: Path, on_progress: OnProgress):
        self.folder, self.on_progress, self.heard, self.failure = folder, on_progress, 0, ""
        self.session: dg.PipesSession | None = None

    def listen(self) -> None:
        """Hand on what has come since the last call."""
        messages = self.session.get_custom_messages()[self.heard :] if self.session else []
        self.heard += len(messages)
        for message in messages:
            if "error" in message:
                self.failure = message["error"]
            else:
                self.on_progress(message["progress"])


@contextmanager
def last_words_when_interrupted(context: dg.AssetExecutionContext, listener: Listener) -> Iterator[None]:
    """What the child said to its end, such as after which step it has saved, comes before the interrupt's own error."""
    try:
        yield
    except BaseException:
        listener.listen()
        if listener.failure:
            context.log.info(listener.failure)
        raise
