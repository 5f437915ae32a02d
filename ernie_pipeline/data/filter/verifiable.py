r"""The filter `unverifiable_answer`: answers that math-verify cannot parse, asked in processes that can be killed.

It parses more than one might think: of "no solution" it makes a product of eleven letters. Prose is the kind "text"
(kinds.py); what is dropped here is broken or beyond its grammar: `x \to y`, `1 +`, `\frac{1}{`.

An answer costs milliseconds, so what was found is kept in a file, by answer and by the versions that decide it.
"""

import json
import os
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import polars as pl
from pebble import ProcessFuture

from ernie_pipeline.data.filter.reasons import DROPPED, drop_rows
from ernie_pipeline.recipe.sections import Filters
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.math_verify import LIBRARIES, box, parse, tidy, warm_up
from ernie_pipeline.utils.worker_pool import end_if_orphaned, worker_pool

TIMEOUT_S = 5.0
"""Seconds for one answer. What takes longer is no answer that grading, with the same limit by default, could use."""

CHUNK = 2000
"""Answers between two writes of the cache: what was found by then survives a kill."""


def drop_unverifiable(
    rows: pl.DataFrame, filters: Filters, cache: Path | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(kept, dropped): rows whose `answer` math-verify parses, and the others as `unverifiable_answer`.

    All are kept where `filters.unverifiable_answer` is off. `cache`: a file of earlier findings, read and added to.
    Errors as `unverifiable`.
    """
    if not filters.unverifiable_answer:
        return rows, pl.DataFrame(schema={name: rows.schema.get(name, pl.String) for name in DROPPED})
    answers = rows["answer"].unique().drop_nulls().sort().to_list()
    reasons = unverifiable(answers, cache)
    reason = pl.col("answer").replace_strict(
        list(reasons), list(reasons.values()), default=None, return_dtype=pl.String
    )
    kept, dropped = pl.collect_all(drop_rows(rows.lazy(), "unverifiable_answer", reason))
    return kept, dropped


def unverifiable(
    answers: Sequence[str], cache: Path | None = None, timeout_s: float = TIMEOUT_S, workers: int | None = None
) -> dict[str, str]:
    """{answer: reason} of the bare answers that math-verify cannot parse; `cache` as in `drop_unverifiable`.

    A time-out is such a reason, and is not kept in the cache: another machine may be faster.
    Raises `PipelineError` when a worker dies of anything but its time limit.
    """
    versions = {library: version(library) for library in LIBRARIES}
    known = _read(cache, versions)
    new = [answer for answer in dict.fromkeys(answers) if answer not in known]
    found: dict[str, str | None] = {}
    for start in range(0, len(new), CHUNK):
        part = _asked(new[start : start + CHUNK], timeout_s, workers)
        found |= part
        known |= {answer: reason for answer, reason in part.items() if reason != _timed_out(timeout_s)}
        _write(cache, versions, known)
    reasons = {answer: known.get(answer, found.get(answer)) for answer in answers}
    return {answer: reason for answer, reason in reasons.items() if reason}


def _asked(answers: list[str], timeout_s: float, workers: int | None) -> dict[str, str | None]:
    with worker_pool(len(answers), workers, warm_up) as pool:
        futures = [pool.schedule(_why_not, (answer, timeout_s), timeout=timeout_s) for answer in answers]
        return {answer: _collect(answer, future, timeout_s) for answer, future in zip(answers, futures, strict=True)}


def _collect(answer: str, future: "ProcessFuture[str | None]", timeout_s: float) -> str | None:
    try:
        reason: str | None = future.result()
        return reason
    except TimeoutError:
        return _timed_out(timeout_s)
    except Exception as error:
        raise PipelineError(
            f"math-verify could not be asked about the answer {answer[:80]!r} ({type(error).__name__}: {error}); "
            "if it is that answer, drop the row, or set filters.unverifiable_answer = false"
        ) from error


def _timed_out(timeout_s: float) -> str:
    return f"math-verify did not parse the answer in {timeout_s:g} s"


def _why_not(answer: str, timeout_s: float) -> str | None:
    """Why math-verify cannot use the answer, or None; runs in a worker. Of what it parses it gives an expression."""
    end_if_orphaned(timeout_s)
    readings = parse(box(tidy(answer)))
    if any(not isinstance(reading, str) for reading in readings):
        return None
    return "math-verify cannot parse the answer"


def _read(cache: Path | None, versions: dict[str, str]) -> dict[str, str | None]:
    """What an earlier run found; nothing if the file is missing, broken, or of other versions."""
    if cache is None:
        return {}
    try:
        stored = json.loads(cache.read_bytes())
        found = stored["found"] if stored["versions"] == versions else {}
        return {str(answer): reason for answer, reason in found.items() if reason is None or isinstance(reason, str)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _write(cache: Path | None, versions: dict[str, str], found: dict[str, str | None]) -> None:
    """Under another name, then renamed: a reader sees a whole file. What another writer found meanwhile is lost."""
    if cache is None:
        return
    cache.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=cache.name, dir=cache.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"versions": versions, "found": dict(sorted(found.items()))}, file)
        Path(name).replace(cache)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
