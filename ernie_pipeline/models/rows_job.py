"""The job of a process in which a model works row by row, so that rows may be kept, and shared by several processes."""

from pathlib import Path

from ernie_pipeline.models.device import DeviceLimits
from ernie_pipeline.models.spec import ModelSpec
from ernie_pipeline.recipe.execution import ExecutionOverrides
from ernie_pipeline.recipe.section import Section
from ernie_pipeline.store.row_cache import KeptRows
from ernie_pipeline.store.row_part import RowPart


class RowsJob(Section):
    """The model of `spec` makes something of each row, into the folder `out`.

    `rows`: where what it made is kept, that of earlier jobs too; None: nowhere. With a `part` what is to be made of
    that part's rows is made and kept, and nothing else.
    """

    spec: ModelSpec
    execution: ExecutionOverrides = ExecutionOverrides()
    limits: DeviceLimits = DeviceLimits()
    out: Path
    rows: KeptRows | None = None
    part: RowPart | None = None


def may_be_shared(job: object) -> bool:
    """Whether several processes may share the job's rows: what each has made is kept where the others find it."""
    return isinstance(job, RowsJob) and job.rows is not None
