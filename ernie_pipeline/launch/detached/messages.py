"""A job's messages in a file that outlives the step: each step that follows the job reads them from the first one."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.pipes.context import PipesMessageHandler
from dagster_pipes import PIPES_PROTOCOL_VERSION_FIELD, PipesDefaultMessageWriter, PipesParams

POLL_S = 0.2


class MessageFile(dg.PipesMessageReader):
    """Hands on every whole line of the file, which need not be there yet.

    Dagster's own reader of a file empties it first. A job that was killed in the middle of a line leaves a part of one,
    and one that was submitted again opens and closes again: such a part is passed over, and one end is told, at the
    end.
    """

    def __init__(self, file: Path):
        self.file, self.closed = file, False
        self._place, self._opened, self._last = 0, False, None

    @contextmanager
    def read_messages(self, handler: PipesMessageHandler) -> Iterator[PipesParams]:
        """Read in a thread until the session ends; then what has come by then."""
        done = threading.Event()
        thread = threading.Thread(target=self._read_until, args=(done, handler), daemon=True)
        thread.start()
        try:
            yield {PipesDefaultMessageWriter.FILE_PATH_KEY: str(self.file)}
        finally:
            done.set()
            thread.join()
            self._read(handler)
            if self._last:
                handler.handle_message(self._last)

    def no_messages_debug_text(self) -> str:
        """For Dagster's warning."""
        return f"Attempted to read messages from {self.file}."

    def _read_until(self, done: threading.Event, handler: PipesMessageHandler) -> None:
        while not done.wait(POLL_S):
            self._read(handler)

    def _read(self, handler: PipesMessageHandler) -> None:
        try:
            with self.file.open("rb") as stream:
                stream.seek(self._place)
                new = stream.read()
        except OSError:
            return
        whole = new[: new.rfind(b"\n") + 1]
        self._place += len(whole)
        for line in whole.splitlines():
            if message := _parsed(line):
                self._hand_on(message, handler)

    def _hand_on(self, message: Any, handler: PipesMessageHandler) -> None:
        if message["method"] == "closed":
            self._last, self.closed = message, True
        elif message["method"] != "opened":
            handler.handle_message(message)
        elif not self._opened:
            self._opened = True
            handler.handle_message(message)


def _parsed(line: bytes) -> Any:
    try:
        message = json.loads(line)
        return message if PIPES_PROTOCOL_VERSION_FIELD in message else None
    except (ValueError, TypeError):
        return None
