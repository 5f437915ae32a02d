r"""Grade answers against gold answers with math-verify, in worker processes that can be killed.

math-verify limits itself with signals, which fail in threads, and swallows its errors. So its own limits are off here:
each answer is graded in a worker process, which pebble kills, and replaces, when the answer's time is up. The clock
starts when the worker takes the answer, so its start-up does not count.

An answer's last `\boxed{...}` is what it says; without one, what math-verify finds in its text: LaTeX or a plain number
or expression, so that a base model that says "12 + 35 = 47." can be right. Equal texts are right. All others are right
only if math-verify parses both sides and finds them equal; so what does not parse is right only as the same text.

Outcome "timeout" means time alone. math-verify takes the `MemoryError` of an answer that does not fit the worker's
memory cap for "does not parse", like any other error of its parser: that answer is then wrong, unless equal as text.

Code in an answer is never run. Text reaches sympy's `eval` in two ways (math-verify 0.9, latex2sympy2_extended 1.11):
by `parse_expr`, for which a regular expression lets only digits, blanks, points, brackets and signs of arithmetic
through, and by `Number(text)`, which is given tokens of digits alone. All other text becomes the name of a symbol or
function, which sympy takes as it is. Seen so with an audit hook on `compile`; the tests try it.
"""

import logging
import multiprocessing
import os
import re
import resource
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from ernie_pipeline.errors import PipelineError

WORKER_MEMORY = 2 * 2**30
"""Bytes of address space that an answer may take beyond what its worker took at start; Linux only."""

MAX_WORKERS = 8
"""Unless told otherwise: these grade a thousand answers in a second, and each costs half a second of CPU to start."""

_BRACES = re.compile(r"(?P<box>\\boxed\s*\{)|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL)
_GROUPED = re.compile(r"(?<=\d)(?:\\[,!;: ]|[ ~\u00a0\u202f])(?=\d{3}(?![\d/]))")
_TEXT = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf)\s*\{([^{}\\]*)\}")

# What math-verify and sympy raise when two parsed sides cannot be compared, seen over 100,000 pairs of odd answers
# (1/0: ValueError; "x \neq 3" with another relation: KeyError), and what sympy documents for the undecidable. For
# parsing, SympifyError is a ValueError: a number of over 4,300 digits. Anything else is a crash.
_INCOMPARABLE = (ValueError, KeyError, TypeError, NotImplementedError, ArithmeticError, RecursionError, MemoryError)


@dataclass(frozen=True)
class Grade:
    r"""What became of one answer.

    `boxed`: the answer contains a `\boxed{...}` with balanced braces. `extracted`: the text that was graded, None where
    nothing was found (or, in an answer without a box, time ran out). `seconds`: spent on it, the limit for a timeout.
    """

    outcome: Literal["right", "wrong", "timeout"]
    boxed: bool
    extracted: str | None
    seconds: float


def grade(answers: Sequence[str], golds: Sequence[str], *, timeout_s: float, workers: int | None = None) -> list[Grade]:
    r"""Grade `answers[i]`, a model's whole output, against `golds[i]`, bare LaTeX such as `\frac{1}{2}` or `1,000`.

    Each answer may take `timeout_s` seconds. `workers` processes share the work: as many as the machine has cores, at
    most `MAX_WORKERS`, if None. Returns one `Grade` an answer, in order.

    Raises `ValueError` for unequal lengths or a limit that is not positive, and `PipelineError` for an empty gold
    answer, and for an answer on which a worker died or failed unexpectedly: that is never counted as wrong.
    May be called from any thread. No worker outlives the call.
    """
    if len(answers) != len(golds):
        raise ValueError(f"one gold answer an answer wanted, got {len(answers)} answers and {len(golds)} golds")
    if timeout_s <= 0 or (workers is not None and workers < 1):
        raise ValueError(f"timeout_s and workers must be positive, got {timeout_s} and {workers}")
    for row, gold in enumerate(golds):
        if not gold.strip():
            raise PipelineError(f"row {row}: the gold answer is empty, so no answer can be right; drop the row")
    if not answers:
        return []
    count = min(workers or min(os.cpu_count() or 1, MAX_WORKERS), len(answers))
    # spawn: a fork would copy the locks of the caller's torch threads, and its CUDA context
    pool = ProcessPool(count, initializer=_prepare_worker, context=multiprocessing.get_context("spawn"))
    try:
        pairs = list(zip(answers, golds, strict=True))
        futures = [pool.schedule(_grade_one, (*pair, timeout_s), timeout=timeout_s) for pair in pairs]
        return [_collect(row, future, *pairs[row], timeout_s) for row, future in enumerate(futures)]
    finally:
        pool.stop()  # type: ignore[no-untyped-call]
        pool.join()


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


def _collect(row: int, future: ProcessFuture[Grade], answer: str, gold: str, timeout_s: float) -> Grade:
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
            f"row {row}: the answer {end!r} could not be graded against {gold!r}, because {_what_happened(error)}; "
            "if it is that row, leave it out"
        ) from error


def _what_happened(error: Exception) -> str:
    if isinstance(error, ProcessExpired):
        hint = " (killed, often by the system for want of memory)" if error.exitcode == -signal.SIGKILL else ""
        return f"its worker died with exit code {error.exitcode}{hint}"
    if isinstance(error, BrokenProcessPool):
        return f"no worker could start or stay alive ({error})"
    return f"grading raised {type(error).__name__}: {error}"


def _prepare_worker() -> None:
    """Make this process ready to grade; runs once in each worker, outside every answer's time."""
    # gmpy2 aborts the process where Python's integers raise MemoryError: keep sympy off it, if it is installed
    os.environ.update(SYMPY_GROUND_TYPES="python", MPMATH_NOGMPY="1")
    warnings.simplefilter("ignore")
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its timeouts are off
    _equal(_parse(r"\boxed{1}"), _parse(r"\boxed{x=1}"))  # imports, and builds the regular expressions and grammar
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + WORKER_MEMORY
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))


def _grade_one(answer: str, gold: str, timeout_s: float) -> Grade:
    """Grade one answer; runs in a worker."""
    # Should the parent die, nobody would end this process: after twice the time, as CPU time, the kernel does
    signal.setitimer(signal.ITIMER_PROF, 2 * timeout_s + 1)
    started = time.perf_counter()
    boxed = last_boxed(answer)
    gold = _tidy(gold)
    if boxed is None:
        parsed = _parse(answer)
        text = str(parsed[-1]) if parsed else ""  # math-verify puts the text that it found last
    else:
        text = _tidy(boxed)
        parsed = _parse(_box(text)) if text and text != gold else []
    right = bool(text) and (text == gold or _equal(_parse(_box(gold)), parsed))
    return Grade("right" if right else "wrong", boxed is not None, text or None, time.perf_counter() - started)


def _tidy(text: str) -> str:
    r"""Make plain what math-verify cannot read, or misreads: "10 000" (to it 10 times 0), "5.", `\text{Yes}`."""
    text = " ".join(_GROUPED.sub("", text).split()).rstrip(".")
    whole = _TEXT.fullmatch(text)
    return whole[1].strip() if whole else text


def _box(text: str) -> str:
    return rf"\boxed{{{text}}}"


def _parse(text: str) -> list[Any]:
    """What math-verify reads in `text`: [sympy expression, its text], [text] if unparsable, [] if there is nothing."""
    from math_verify import parse

    try:
        return list(parse(text, parsing_timeout=None, raise_on_error=True))
    except _INCOMPARABLE:
        return []


def _equal(gold: list[Any], target: list[Any]) -> bool:
    """Whether any reading of the gold equals any of the target, in this order: math-verify's test is asymmetric."""
    from math_verify import verify

    for one, other in product(gold, target):
        try:
            if verify(one, other, timeout_seconds=None, raise_on_error=True):
                return True
        except _INCOMPARABLE:
            continue
    return False
