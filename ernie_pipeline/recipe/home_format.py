"""The format of what a home holds, a number in `store/.format`: a package leaves a newer one than it knows alone.

When the number is raised, and what is promised, is said in docs/internals.md. A store that says none is of format 1.
"""

import os
import re
import uuid
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from ernie_pipeline.utils.errors import PipelineError

FORMAT = 1
"""What this package writes; it reads all from 1 to this."""
FILE = ".format"
NUMBER = re.compile(r"[1-9][0-9]{0,8}")


def format_text() -> bytes:
    """What a home says whose store is of this package's format."""
    return f"{FORMAT}\n".encode()


def read_format(said: bytes, place: str) -> int:
    """The number in what a home `said`. Raises `PipelineError` for a newer one, and for what is no number; `place` is
    where that stands, in words."""
    text = said.decode("ascii", errors="replace").strip()
    if not NUMBER.fullmatch(text):
        raise PipelineError(
            f"{place} does not tell a format by its number, as it is to, but {text[:20]!r}; put back what it said, or "
            f"remove it, if no newer version of ernie_pipeline has written in this home, which is then of format 1"
        )
    if int(text) > FORMAT:
        raise PipelineError(
            f"{place} says that this home is of format {text}, which a newer version of ernie_pipeline writes, and "
            f"{version('ernie_pipeline')} knows formats up to {FORMAT}; upgrade ernie_pipeline, or set "
            "ERNIE_PIPELINE_HOME to another home"
        )
    return int(text)


def check_format(store: Path) -> int | None:
    """The format that the store in a folder says, None where it says none. Writes nothing.

    Raises `PipelineError` as `read_format`, and where it cannot be read.
    """
    file = store / FILE
    if not os.path.lexists(file):
        return None
    if not file.is_file():
        raise PipelineError(f"{file} is no file, so the format of this home is not known; move it away")
    try:
        said = file.read_bytes()
    except OSError as error:
        raise PipelineError(
            f"{file} cannot be read ({error.strerror}), so the format of this home is not known; mend that"
        ) from None
    return read_format(said, str(file))


def write_format(store: Path) -> None:
    """Let the store in a folder say this package's format, if it says none or an older one. Raises as `check_format`.

    The file is there whole or not at all, and one that another process has written meanwhile is looked at.
    """
    before = check_format(store)
    if before == FORMAT:
        return
    written = store / f"{FILE}.{uuid.uuid4().hex[:8]}"
    try:
        written.write_bytes(format_text())
        if before is None:
            with suppress(FileExistsError):
                os.link(written, store / FILE)  # unlike a rename it leaves what stands there
        else:
            written.replace(store / FILE)
    finally:
        written.unlink(missing_ok=True)
    check_format(store)
