"""A job's messages in a file: each step that follows the job reads them from the first one.

The file may outlive the step, and the step's Dagster storage may be away for a while: neither loses a message.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.pipes.context import PipesMessageHandler
from dagster_pipes import PIPES_PROTOCOL_VERSION_FIELD, PipesDefaultMessageWriter, PipesParams

from ernie_pipeline.store.aside import is_own_file
from ernie_pipeline.store.readable import parse_json

log = logging.getLogger(__name__)

POLL_S = 0.2
END_S = 10.0
"""How long the end of a session waits for a storage that does not take what was said."""


class MessageFile(dg.PipesMessageReader):
    """Hands on every whole line of the file, which need not be there yet.

    Dagster's own reader of a file empties it first. A job that was killed in the middle of a line leaves a part of one,
    and one that was submitted again opens and closes again: such a part is passed over, and one end is told, at the
    end. Dagster's own also ends for good when a line cannot be recorded, as while its database is away: here the line,
    and those after it, are tried again, and what is not recorded, progress and errors, does not wait for them.

    While it is `paused`, nothing is read: the file may be of an earlier attempt, whose end is not this one's.
    """

    def __init__(self, file: Path):
        self.file, self.closed, self.paused = file, False, False
        self._place, self._opened, self._last = 0, False, None
        self._waiting: deque[Any] = deque()
        self._away = False

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
            self._finish(handler)

    @property
    def expected_writer_count(self) -> int:
        """One at a time. (Dagster's own, which is the same, warns at each use that it may change.)"""
        return 1

    @property
    def read(self) -> int:
        """Bytes of all attempts' messages so far."""
        return self._place

    def no_messages_debug_text(self) -> str:
        """For Dagster's warning."""
        return f"Attempted to read messages from {self.file}."

    def _read_until(self, done: threading.Event, handler: PipesMessageHandler) -> None:
        while not done.wait(POLL_S):
            self._read(handler)

    def _read(self, handler: PipesMessageHandler) -> None:
        if self.paused:
            return
        try:
            if not is_own_file(self.file):
                raise FileNotFoundError
            with self.file.open("rb") as stream:
                stream.seek(self._place)
                new = stream.read()
        except OSError:
            new = b""
        whole = new[: new.rfind(b"\n") + 1]
        self._place += len(whole)
        for line in whole.splitlines():
            if message := _parsed(line):
                self._hand_on(message, handler)
        self._hand_on_waiting(handler)

    def _hand_on(self, message: Any, handler: PipesMessageHandler) -> None:
        method = message["method"]
        if method == "closed":
            self._last, self.closed = message, True
        elif method == "report_custom_message":
            handler.handle_message(message)
        elif method != "opened" or not self._opened:
            self._opened = self._opened or method == "opened"
            self._waiting.append(message)

    def _hand_on_waiting(self, handler: PipesMessageHandler) -> None:
        """Hand on what is recorded by Dagster, in its order, until that fails."""
        while self._waiting:
            try:
                handler.handle_message(self._waiting[0])
            except Exception as error:  # of any storage, each of which has its own
                if not self._away:
                    log.warning("what the job says is not recorded for now: %s", error)
                self._away = True
                return
            self._waiting.popleft()
            self._away = False

    def _finish(self, handler: PipesMessageHandler) -> None:
        """Hand on all that is left; what Dagster does not take is printed."""
        if self._last:
            self._waiting.append(self._last)
        end = time.monotonic() + END_S
        self._hand_on_waiting(handler)
        while self._waiting and time.monotonic() < end:
            time.sleep(POLL_S)
            self._hand_on_waiting(handler)
        for message in self._waiting:
            log.warning("not recorded: %s", (message.get("params") or {}).get("message", message["method"]))


def _parsed(line: bytes) -> Any:
    try:
        message = parse_json(line)
    except ValueError:
        return None
    fits = isinstance(message, dict) and PIPES_PROTOCOL_VERSION_FIELD in message
    return message if fits and isinstance(message.get("method"), str) else None
