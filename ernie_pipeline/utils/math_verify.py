r"""Worker processes that can be killed, for grading and for the filter of unreadable answers; and math-verify.

math-verify's own time limits use signals, which fail in threads, so they are off here: who calls this runs it in such
a process.

Code in an answer is never run. Text reaches sympy's `eval` in two ways (math-verify 0.9, latex2sympy2_extended
1.11): by `parse_expr`, for which a regex lets only digits, blanks, points, brackets and signs of arithmetic
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
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pebble import ProcessPool

LIBRARIES = ("math-verify", "latex2sympy2_extended", "sympy", "mpmath")
"""The distributions that decide what an answer means."""

MAX_WORKERS = 8
"""Unless told otherwise: two of these grade thousands of answers in a second, and each costs CPU to start."""

WORKER_MEMORY = 2 * 2**30
"""Bytes of address space that an answer may take beyond what its worker took at start; Linux only."""

_GROUPED = re.compile(r"(?<=\d)(?:\\[,!;: ]|[ ~\u00a0\u202f])(?=\d{3}(?![\d/]))")
_TEXT = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf)\s*\{([^{}\\]*)\}")

# What math-verify and sympy raise when two parsed sides cannot be compared, seen over 100,000 pairs of odd answers
# (1/0: ValueError; "x \neq 3" with another relation: KeyError), and what sympy documents for the undecidable. For
# parsing, SympifyError is a ValueError: a number of over 4,300 digits. Anything else is a crash.
_INCOMPARABLE = (ValueError, KeyError, TypeError, NotImplementedError, ArithmeticError, RecursionError, MemoryError)


@contextmanager
def worker_pool(answers: int, workers: int | None = None, module: str = "") -> "Iterator[ProcessPool]":
    """A pool of `workers` processes (None: as many as cores, at most `MAX_WORKERS`), no more than there are `answers`.

    Each is made ready outside every answer's time: it imports `module`, or math-verify where none is named. None
    outlives the context.
    """
    from pebble import ProcessPool  # not needed to open the code location

    count = min(workers or min(os.cpu_count() or 1, MAX_WORKERS), answers)
    # spawn: a fork would copy the locks of the caller's threads (torch, Polars), and its CUDA context
    context = multiprocessing.get_context("spawn")
    pool = ProcessPool(count, initializer=prepare_worker, initargs=[module], context=context)
    try:
        yield pool
    finally:
        pool.stop()  # type: ignore[no-untyped-call]
        pool.join()


def prepare_worker(module: str = "") -> None:
    """Make this process ready, as `worker_pool` says; runs once in each worker, outside every answer's time."""
    # gmpy2 aborts the process where Python's integers raise MemoryError: keep sympy and mpmath off it, if it is there
    os.environ.update(SYMPY_GROUND_TYPES="python", MPMATH_NOGMPY="1")
    warnings.simplefilter("ignore")
    if module:
        import_module(module)
    else:
        logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its timeouts are off
        parse(r"\boxed{x=1}")  # imports, and builds the regular expressions and grammar
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + WORKER_MEMORY
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))


def end_if_orphaned(timeout_s: float) -> None:
    """Should the parent die, nobody would end this worker: after twice the time, as CPU time, the kernel does."""
    signal.setitimer(signal.ITIMER_PROF, 2 * timeout_s + 1)


def tidy(text: str) -> str:
    r"""Make plain what math-verify cannot read, or misreads: "10 000" (to it 10 times 0), "5.", `\text{Yes}`."""
    text = " ".join(_GROUPED.sub("", text).split()).rstrip(".")
    whole = _TEXT.fullmatch(text)
    return whole[1].strip() if whole else text


def box(text: str) -> str:
    """The text as a boxed answer."""
    return rf"\boxed{{{text}}}"


def parse(text: str) -> list[Any]:
    """What math-verify reads in `text`: [sympy expression, its text], [text] if unparsable, [] if there is nothing."""
    from math_verify import parse as read

    try:
        return list(read(text, parsing_timeout=None, raise_on_error=True))
    except _INCOMPARABLE:
        return []
