"""The job's side: it shows that it lives, ends when it is asked to or superseded, and seals what it made."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ernie_pipeline.launch.detached.place import SEALED, Attempt, Place
from ernie_pipeline.store.sealed import Files, Values, write_sealed_folder

BEAT_S = 1.0
LOST = 75
"""The exit status by which a process on an engine says that others it needs were lost, and not that it is wrong."""
SUPERSEDED = 76
"""The exit status of a process that another one has taken the job from."""


@contextmanager
def alive(attempt: Attempt, *, beats: bool = True, obeys: bool = True) -> Iterator[None]:
    """Meanwhile this process ends itself when superseded, and `obeys`: gets a SIGTERM when the job is asked to stop.

    Of several processes that train together one `beats` for all. One that only looks after others leaves it to them to
    obey: they save their work, and it ends after them.
    """
    place, done = Place(attempt.folder), threading.Event()
    end_if_superseded(place, attempt)
    thread = threading.Thread(target=_live, args=(place, attempt, beats, obeys, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _live(place: Place, attempt: Attempt, beats: bool, obeys: bool, done: threading.Event) -> None:
    while not done.is_set():
        end_if_superseded(place, attempt)
        if beats:
            place.beat()
        if obeys and place.stop_asked:
            obeys = False
            os.kill(os.getpid(), signal.SIGTERM)
        done.wait(BEAT_S)


def end_if_superseded(place: Place, attempt: Attempt) -> None:
    """End this process unless it is the one at work. A folder that is gone was another's to remove."""
    if place.attempt != attempt.name:
        os._exit(SUPERSEDED)


def make_sealed(attempt: Attempt, name: str, work: Callable[[Path], None]) -> None:
    """Let `work` fill a folder, which becomes the job's sealed one in one step. `name`: the work's, for sentences."""
    place = Place(attempt.folder)

    def values(files: Files) -> Values:
        end_if_superseded(place, attempt)
        return {"attempt": attempt.name}

    write_sealed_folder(place.out, SEALED, work, values, what=name, durable=True)


def end_cut_line(file: Path) -> None:
    """The job's, before its first message: what a killed one was writing must not hang on to it."""
    with file.open("ab") as stream:
        if stream.tell():
            stream.write(b"\n")
