"""What a child's job file says: which work, the job, and who waits for it."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ernie_pipeline.launch.detached.place import Attempt
from ernie_pipeline.launch.parent import Parent
from ernie_pipeline.launch.work import WORK, Job, WorkKind


class Envelope(BaseModel):
    """`work` is a name in `WORK`, or work that is not in that table; `parent` None for a child started by hand, and for
    an `attempt` at a job that outlives its step."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    work: str | WorkKind
    job: Job
    parent: Parent | None = None
    attempt: Attempt | None = None


def find_work(work: str | WorkKind) -> WorkKind:
    """The work of that name. Raises `KeyError`."""
    return WORK[work] if isinstance(work, str) else work


def write_job(
    folder: Path,
    work: str | WorkKind,
    job: BaseModel,
    parent: Parent | None = None,
    attempt: Attempt | None = None,
) -> Path:
    """Write the job file `<folder>/<work's name>.json`, which the list of processes shows, and give its path.

    Raises `TypeError` unless the job is of the class that the work takes.
    """
    entry = find_work(work)
    entry.check(job)
    file = folder / f"{entry.name}.json"
    envelope = Envelope(work=work, job=job.model_dump(mode="json"), parent=parent, attempt=attempt)
    file.write_text(envelope.model_dump_json(indent=1), encoding="utf-8")
    return file
