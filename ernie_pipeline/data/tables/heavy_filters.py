"""Filters that took so many rows that they may not fit them: told to people, deciding nothing."""

from collections.abc import Mapping
from typing import Any

from ernie_pipeline.utils.shares import percent

MOST = 1 / 3
"""Share of a source's rows above which a filter's part is told."""

KEYS = {
    "broken_row": "source.max_bad_rows and the columns of [source]",
    "question_length": "filters.min_question_chars and filters.max_question_chars",
    "answer_length": "filters.max_answer_chars",
    "max_tokens": "split.max_tokens",
    "near_duplicate": "near_duplicates.threshold",
    "benchmark_overlap": "decontamination.overlap",
    "evaluation_overlap": "decontamination.overlap",
}
"""What of the recipe decides a filter, where that is no switch of its name in [filters]."""
SWITCHED = (
    *("yes_no", "multi_part", "multiple_choice", "proof", "reference", "non_english", "conflicting_answers"),
    "unverifiable_answer",
)
"""The filters that a switch of their name in [filters] turns off."""


def heavy_filters(dropped: Mapping[str, int], rows: int) -> list[str]:
    """The filters that took more than `MOST` of a source's rows. `dropped`: how many each one took."""
    return [name for name, count in dropped.items() if count > MOST * rows]


def heavy_filter_words(dropped: Mapping[str, int], rows: int) -> list[str]:
    """A sentence for each of `heavy_filters`: how many rows it took, and what of the recipe decides that."""
    return [
        f"the filter {name} took {dropped[name]:,} of {rows:,} rows ({percent(dropped[name] / rows, 0)}): look at the "
        f"ledger{_what_decides(name)}"
        for name in heavy_filters(dropped, rows)
    ]


def told_by_profile(profile: Mapping[str, Any]) -> list[str]:
    """`heavy_filter_words` of a split, by the values of its profile.json."""
    return heavy_filter_words(profile["dropped"], sum(profile["places"].values()))


def _what_decides(name: str) -> str:
    key = KEYS.get(name) or (f"filters.{name}" if name in SWITCHED else "")
    return f", and at {key} in the recipe" if key else ""
