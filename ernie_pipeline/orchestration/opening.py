"""What is wrong when the code location is opened: a sentence, as everywhere, without a traceback before it."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from ernie_pipeline.utils.errors import PipelineError


class CannotOpenError(PipelineError, click.ClickException):
    """A setting with which the code location cannot be opened.

    Dagster's commands, which import the code location themselves, print click's errors as they print their own, with
    exit status 1. Its servers and `definitions validate` give each error with where it was raised, after its sentence.
    """


@contextmanager
def told_when_opened() -> Iterator[None]:
    """A `PipelineError` is raised as a `CannotOpenError`, without those that led to it."""
    try:
        yield
    except PipelineError as error:
        raise CannotOpenError(str(error)) from None  # the sentence says it
