"""Solutions from which nothing can be learnt: told in one sentence, with what would help."""

from typing import Any

from ernie_pipeline.recipe.sections import Solutions
from ernie_pipeline.utils.errors import PipelineError

MOSTLY = 0.5
LEAST_SOLVED = 2
"""One problem to learn from, one to measure by."""


def check_usable(metrics: dict[str, Any], settings: Solutions) -> None:
    """Raise `PipelineError` where too few problems are solved to train on any; `metrics` as `metrics.summarise` has it.

    The attempts are kept by row: once the cause is seen to, only what has to be is sampled again.
    """
    attempts, problems, solved = metrics["attempts"], metrics["problems"], metrics["solved"]
    if metrics["truncated_share"] == 1 and not solved:
        raise PipelineError(
            f"none of {attempts} attempts at {problems} problems ended within solutions.max_new_tokens = "
            f"{settings.max_new_tokens} tokens; raise it"
        )
    if metrics["timeout_share"] == 1 and not solved:
        raise PipelineError(
            f"none of {attempts} attempts was graded within solutions.grading_timeout_s = "
            f"{settings.grading_timeout_s:g} s; raise it, or give the machine more free cores"
        )
    if solved < LEAST_SOLVED:
        found = "no problem" if not solved else "one problem alone"
        raise PipelineError(
            f"{found} of {problems} is solved (pass rate {metrics['pass_rate']:.2%} of {attempts} attempts), so there "
            f"are no solutions to train on: {_help(metrics, settings)}"
        )


def _help(metrics: dict[str, Any], settings: Solutions) -> str:
    """What would help, by what most attempts lacked."""
    truncated, unboxed = metrics["truncated_share"], metrics["unboxed_share"]
    if truncated > MOSTLY:
        return f"{truncated:.0%} are cut off at solutions.max_new_tokens = {settings.max_new_tokens}; raise it"
    if unboxed > MOSTLY:
        return (
            f"{unboxed:.0%} have no boxed answer; ask for one in the prompts, use an instruction-tuned base model, or "
            'train on answers (training.on = "answers")'
        )
    return (
        f"raise solutions.samples = {settings.samples}, solve easier problems, use a stronger base model, or train on "
        'answers (training.on = "answers")'
    )
