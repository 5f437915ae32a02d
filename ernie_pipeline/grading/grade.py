r"""Grade answers against reference answers in worker processes that can be killed.

What is right is judge.py's affair (its contract: README.md). It needs no time to speak of, but an answer can be made to
cost any time and memory: so it is judged in a worker process, which pebble kills, and replaces, when the time is up.
The clock starts when the worker takes the answers, so its start-up does not count.

Answers go to the workers in bundles, whose limit is that of one answer. A bundle that runs out of time, or on which a
worker dies, is graded again, answer by answer: so outcome "timeout" and errors belong to an answer alone.

No code in an answer is ever run: our grammar knows numbers, names and signs, and evaluates with mpmath's functions.
"""

import math
import signal
import time
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from pebble import ProcessExpired, ProcessFuture

from ernie_pipeline.grading.extract import last_boxed
from ernie_pipeline.grading.judge import judge
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.worker_pool import MAX_WORKERS, end_if_orphaned, worker_pool

if TYPE_CHECKING:
    from pebble import ProcessPool

_MOST_IN_A_BUNDLE = 64


@dataclass(frozen=True)
class Grade:
    r"""What became of one answer.

    `boxed`: the answer contains a `\boxed{...}` with balanced braces. `extracted`: the text that was graded, None where
    nothing was found (or, in an answer without a box, time ran out). `seconds`: spent on it, the limit for a timeout.
    `reason`: why, in a few words.
    """

    outcome: Literal["correct", "wrong", "timeout"]
    boxed: bool
    extracted: str | None
    seconds: float
    reason: str = ""


def is_strict(grade: Grade, ended: bool) -> bool:
    """Whether an answer is right, boxed, and `ended`: by the model's end token, not by the limit of new tokens."""
    return grade.outcome == "correct" and grade.boxed and ended


def grade(
    answers: Sequence[str], references: Sequence[str], *, timeout_s: float, workers: int | None = None
) -> list[Grade]:
    r"""Grade `answers[i]`, a model's whole output, against `references[i]`, bare LaTeX such as `\frac{1}{2}`.

    Each answer may take `timeout_s` seconds. `workers` processes share the work: as many as the machine has cores, at
    most `worker_pool.MAX_WORKERS`, if None. Returns one `Grade` an answer, in order.

    Raises `ValueError` for unequal lengths or a limit that is not positive, and `PipelineError` for an empty reference
    answer, and for an answer on which a worker died or failed unexpectedly: that is never counted as wrong.
    May be called from any thread. No worker outlives the call: who grades again and again keeps a `Grader`.
    """
    with Grader(timeout_s=timeout_s, workers=workers, answers=len(answers)) as grader:
        return grader.grade(answers, references)


class Grader:
    """Grades as `grade` does, with worker processes that stay for the next call: they take about a second to start.

    They start at the first call, and end with the context. `answers`: as many as the largest call will have, where that
    is known; there are no more workers.
    """

    def __init__(self, *, timeout_s: float, workers: int | None = None, answers: int = MAX_WORKERS):
        if not 0 < timeout_s < math.inf or (workers is not None and workers < 1):
            raise ValueError(f"timeout_s and workers must be positive, got {timeout_s} and {workers}")
        self.timeout_s, self.workers, self.answers = timeout_s, workers, answers
        self._open = ExitStack()
        self._pool: ProcessPool | None = None

    def __enter__(self) -> "Grader":
        return self

    def __exit__(self, *error: object) -> None:
        self._pool = None
        self._open.close()

    def grade(self, answers: Sequence[str], references: Sequence[str]) -> list[Grade]:
        """See `grade`."""
        if len(answers) != len(references):
            raise ValueError(f"got {len(answers)} answers and {len(references)} references, and wants as many")
        for row, reference in enumerate(references):
            if not reference.strip():
                raise PipelineError(
                    f"row {row}: the reference answer is empty, so no answer can be right; drop the row"
                )
        if not answers:
            return []
        if self._pool is None:
            self._pool = self._open.enter_context(worker_pool(self.answers, self.workers, partial(judge, "1", "1")))
        pairs = list(zip(answers, references, strict=True))
        size = max(1, min(_MOST_IN_A_BUNDLE, len(pairs) // 16))
        return _graded(self._pool, pairs, size, self.timeout_s)


def _graded(pool: "ProcessPool", pairs: list[tuple[str, str]], size: int, timeout_s: float) -> list[Grade]:
    starts = range(0, len(pairs), size)
    bundles = [pool.schedule(_grade_all, (pairs[at : at + size], timeout_s), timeout=timeout_s) for at in starts]
    grades: dict[int, Grade] = {}
    again: dict[int, ProcessFuture[list[Grade]]] = {}
    for at, bundle in zip(starts, bundles, strict=True):
        rows = range(at, min(at + size, len(pairs)))
        try:
            grades.update(zip(rows, bundle.result(), strict=True))
        except Exception:
            if size == 1:
                again[at] = bundle
                continue
            for row in rows:
                again[row] = pool.schedule(_grade_all, ([pairs[row]], timeout_s), timeout=timeout_s)
    for row, future in again.items():
        grades[row] = _collect(row, future, *pairs[row], timeout_s)
    return [grades[row] for row in range(len(pairs))]


def _collect(row: int, future: ProcessFuture[list[Grade]], answer: str, reference: str, timeout_s: float) -> Grade:
    """The grade that a worker made, a timeout where it was killed, or the crash of it told."""
    try:
        result: Grade = future.result()[0]
        return result
    except Exception as error:
        if isinstance(error, TimeoutError) or getattr(error, "exitcode", None) == -signal.SIGPROF:
            boxed = last_boxed(answer)
            return Grade("timeout", boxed is not None, boxed, timeout_s, f"not graded in {timeout_s:g} s")
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


def _grade_all(pairs: list[tuple[str, str]], timeout_s: float) -> list[Grade]:
    """Grade a bundle; runs in a worker."""
    end_if_orphaned(timeout_s)
    return [_grade_one(answer, reference) for answer, reference in pairs]


def _grade_one(answer: str, reference: str) -> Grade:
    started = time.perf_counter()
    found = judge(answer, reference)
    outcome: Literal["correct", "wrong"] = "correct" if found.correct else "wrong"
    return Grade(outcome, found.boxed, found.extracted, time.perf_counter() - started, found.reason)
