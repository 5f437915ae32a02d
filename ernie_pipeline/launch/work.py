"""The table of what runs in a process of its own: by import path, so that to read it loads nothing."""

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.reporter import Reporter
from ernie_pipeline.utils.timeline import part

Job = dict[str, JsonValue]
"""A job as values of JSON's types, before it is validated."""


class WorkKind(BaseModel):
    """One kind of work, called `name` in sentences; the rest are import paths, "package.module:name".

    `function(job, report)` does it, `job` is the frozen pydantic class of what it takes, and `prepare(job)`, if there
    is one, is called with the job as a dictionary before either of them is imported.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    function: str
    job: str
    prepare: str = ""

    def check(self, job: BaseModel) -> None:
        """Raise `TypeError` unless the job is of the class that this work takes."""
        if (given := f"{type(job).__module__}:{type(job).__qualname__}") != self.job:
            raise TypeError(f"work {self.name} takes a job of {self.job}, not of {given}")

    def do(self, job: Job, report: Reporter) -> None:
        """Prepare this process, validate the job and do the work.

        Raises `PipelineError` for a job that is none of this work's, and what the work raises.
        """
        with part(f"imports of {self.name}"), _without_collecting():
            if self.prepare:
                _imported(self.prepare)(job)
            job_class: type[BaseModel] = _imported(self.job)
            function: Callable[[BaseModel, Reporter], None] = _imported(self.function)
        try:
            validated = job_class.model_validate(job)
        except ValidationError as error:
            raise PipelineError(_misfit(self.name, error)) from error
        function(validated, report)


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Look for no garbage meanwhile, which takes a fifth of the time of imports; nor later in what is there at the end:
    in all that torch and transformers define it takes 0.3 s each time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()


def _misfit(work: str, error: ValidationError) -> str:
    """A step and its child may have different code, where they were started at different times or places."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or error.title
    return f"the job of {work} does not fit the code that is to do it ({where}: {first['msg']}); run the step again"


def _imported(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


WORK: Mapping[str, WorkKind] = {
    work.name: work
    for work in (
        WorkKind(
            name="split",
            function="ernie_pipeline.data.job:make",
            job="ernie_pipeline.data.job:SplitJob",
            prepare="ernie_pipeline.launch.prepare:without_torch",
        ),
        WorkKind(
            name="suite_problems",
            function="ernie_pipeline.data.suites.job:read",
            job="ernie_pipeline.data.suites.job:SuiteProblemsJob",
            prepare="ernie_pipeline.launch.prepare:without_torch",
        ),
        WorkKind(
            name="solutions",
            function="ernie_pipeline.solutions.make_solutions:make",
            job="ernie_pipeline.solutions.job:SolutionsJob",
            prepare="ernie_pipeline.launch.prepare:unsloth_first",
        ),
        WorkKind(
            name="training",
            function="ernie_pipeline.training.train:train",
            job="ernie_pipeline.training.job:TrainingJob",
            prepare="ernie_pipeline.launch.prepare:training_first",
        ),
        WorkKind(
            name="evaluation",
            function="ernie_pipeline.evaluation.evaluate:evaluate",
            job="ernie_pipeline.evaluation.job:EvaluationJob",
            prepare="ernie_pipeline.launch.prepare:model_first",
        ),
        WorkKind(
            name="suite",
            function="ernie_pipeline.evaluation.suites.answer:answer",
            job="ernie_pipeline.evaluation.suites.job:SuiteJob",
            prepare="ernie_pipeline.launch.prepare:unsloth_first",
        ),
    )
}
