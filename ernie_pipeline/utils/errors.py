"""The one error that a person is meant to read."""

import errno


class PipelineError(Exception):
    """Bad input or a failed check, told in one sentence: what is wrong, where (file, row, field), what to do.

    Every layer raises it, so that a caller can tell a message for the user from a defect of the pipeline.
    """


class Stopped(PipelineError):
    """Work that a signal has asked to end, and that has saved what it may: it is not wrong, and can go on."""


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or what caused it, says that the disk is full; each library says it in its own class."""
    seen: BaseException | None = error
    while seen is not None:
        if getattr(seen, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def disk_full_sentence(place: str) -> str:
    """What to tell whoever filled the disk at `place`."""
    return (
        f"the disk that holds {place} is full; make room or set ERNIE_PIPELINE_HOME to another disk, then run again: "
        "nothing half-written is left"
    )


def first_line(error: BaseException) -> str:
    """The first line of what another library's error says, for a sentence of our own: one that says something, not
    torch's "Error(s) in loading state_dict for ...:"."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if not line.endswith(":")), lines[0] if lines else type(error).__name__)
