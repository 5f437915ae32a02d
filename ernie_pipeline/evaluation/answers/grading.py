r"""Grade answers against reference answers with math-verify, in worker processes that can be killed.

math-verify limits itself with signals, which fail in threads, and swallows its errors. So its own limits are off here:
each answer is graded in a worker process, which pebble kills, and replaces, when the answer's time is up. The clock
starts when the worker takes the answer, so its start-up does not count.

An answer's last `\boxed{...}` is what it says; without one, what math-verify finds in its text: LaTeX or a plain number
or expression, so that a base model that says "12 + 35 = 47." can be right. Equal texts are right. All others are right
only if math-verify parses both sides and finds them equal; so what does not parse is right only as the same text.

Outcome "timeout" means time alone. math-verify takes the `MemoryError` of an answer that does not fit the worker's
memory cap for "does not parse", like any other error of its parser: that answer is then wrong, unless equal as text.

No code in an answer is ever run: see mathverify.py.
"""

import re
import signal
import time
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Literal

from pebble import ProcessExpired, ProcessFuture

from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.math_verify import box, end_if_orphaned, equal, parse, tidy, worker_pool

_BRACES = re.compile(r"(?P<box>\\boxed\s*\{)|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL)


@dataclass(frozen=True)
class Grade:
    r"""What became of one answer.

    `boxed`: the answer contains a `\boxed{...}` with balanced braces. `extracted`: the text that was graded, None where
    nothing was found (or, in an answer without a box, time ran out). `seconds`: spent on it, the limit for a timeout.
    """

    outcome: Literal["correct", "wrong", "timeout"]
    boxed: bool
    extracted: str | None
    seconds: float


def grade(
    answers: Sequence[str], references: Sequence[str], *, timeout_s: float, workers: int | None = None
) -> list[Grade]:
    r"""Grade `answers[i]`, a model's whole output, against `references[i]`, bare LaTeX such as `\frac{1}{2}`.

    Each answer may take `timeout_s` seconds. `workers` processes share the work: as many as the machine has cores, at
    most `mathverify.MAX_WORKERS`, if None. Returns one `Grade` an answer, in order.

    Raises `ValueError` for unequal lengths or a limit that is not positive, and `PipelineError` for an empty reference
    answer, and for an answer on which a worker died or failed unexpectedly: that is never counted as wrong.
    May be called from any thread. No worker outlives the call.
    """
    if len(answers) != len(references):
        raise ValueError(f"got {len(answers)} answers and {len(references)} references, and wants as many")
    if timeout_s <= 0 or (workers is not None and workers < 1):
        raise ValueError(f"timeout_s and workers must be positive, got {timeout_s} and {workers}")
    for row, reference in enumerate(references):
        if not reference.strip():
            raise PipelineError(f"row {row}: the reference answer is empty, so no answer can be right; drop the row")
    if not answers:
        return []
    pairs = list(zip(answers, references, strict=True))
    with worker_pool(len(answers), workers) as pool:
        futures = [pool.schedule(_grade_one, (*pair, timeout_s), timeout=timeout_s) for pair in pairs]
        return [_collect(row, future, *pairs[row], timeout_s) for row, future in enumerate(futures)]


def last_boxed(answer: str) -> str | None:
    r"""What the last `\boxed{...}` with balanced braces holds, or None; of nested ones, the inner."""
    found, start = None, -1
    opened: list[tuple[bool, int]] = []
    for token in _BRACES.finditer(answer):
        if token.lastgroup == "close" and opened:
            is_box, inside = opened.pop()
            if is_box and inside > start:
                found, start = answer[inside : token.start()], inside
        elif token.lastgroup in ("box", "open"):
            opened.append((token.lastgroup == "box", token.end()))
    return found


def _collect(row: int, future: ProcessFuture[Grade], answer: str, reference: str, timeout_s: float) -> Grade:
    """The grade that a worker made, a timeout where it was killed, or the crash of it told."""
    try:
        result: Grade = future.result()
        return result
    except Exception as error:
        if isinstance(error, TimeoutError) or getattr(error, "exitcode", None) == -signal.SIGPROF:
            boxed = last_boxed(answer)
            return Grade("timeout", boxed is not None, boxed, timeout_s)
        end = answer if len(answer) <= 80 else "..." + answer[-80:]
        raise PipelineError(
            f"row {row}: the answer {end!r} could not be graded against {reference!r}, because "
            f"{_what_happened(error)}; if it is that row, leave it out"
        ) from error


def _what_happened(error: Exception) -> str:
    if isinstance(error, ProcessExpired):
        hint = " (killed, often by the system for want of memory)" if error.exitcode == -signal.SIGKILL else ""
        return f"its worker died with exit code {error.exitcode}{hint}"
    if isinstance(error, BrokenProcessPool):
        return f"no worker could start or stay alive ({error})"
    return f"grading raised {type(error).__name__}: {error}"


def _grade_one(answer: str, reference: str, timeout_s: float) -> Grade:
    """Grade one answer; runs in a worker."""
    end_if_orphaned(timeout_s)
    started = time.perf_counter()
    boxed = last_boxed(answer)
    reference = tidy(reference)
    if boxed is None:
        parsed = parse(answer)
        text = str(parsed[-1]) if parsed else ""  # math-verify puts the text that it found last
    else:
        text = tidy(boxed)
        parsed = parse(box(text)) if text and text != reference else []
    correct = bool(text) and (text == reference or equal(parse(box(reference)), parsed))
    return Grade("correct" if correct else "wrong", boxed is not None, text or None, time.perf_counter() - started)
