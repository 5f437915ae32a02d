"""What a run's answers lacked, and so what would help: for the sentence that it stops with."""

from collections.abc import Mapping

from ernie_pipeline.recipe.sections import Grpo

COUNTED = ("answers", "ended", "formatted", "timed_out", "right")
"""Of all answers sampled so far: their number, those that ended by themselves, that are boxed too, whose grading ran
into its time limit, and that are right."""
MOSTLY = 0.5


def what_would_help(counts: Mapping[str, float], grpo: Grpo) -> str:
    """By what most of the answers lacked, or had; `counts` has `COUNTED`."""
    answers = max(1.0, counts["answers"])
    cut_off, unboxed = 1 - counts["ended"] / answers, (counts["ended"] - counts["formatted"]) / answers
    timed_out, right = counts["timed_out"] / answers, counts["right"] / answers
    if cut_off > MOSTLY:
        return f"{cut_off:.0%} were cut off at grpo.max_new_tokens = {grpo.max_new_tokens}; raise it"
    if unboxed > MOSTLY:
        return (
            f"{unboxed:.0%} had no boxed answer; ask for one in the prompts, use an instruction-tuned base model, or "
            "train on solutions first"
        )
    if timed_out > MOSTLY:
        return (
            f"{timed_out:.0%} were not graded within grpo.grading_timeout_s = {grpo.grading_timeout_s:g} s; raise it, "
            "or give the machine more free cores"
        )
    if right > MOSTLY:
        return "the problems are too easy for this base model; give it harder ones, or raise grpo.temperature"
    return (
        f"raise grpo.group = {grpo.group}, give it easier problems or a stronger base model, or train on solutions "
        "first"
    )
