"""Stages whose work says that jobs did it, and rows to count: what estimates are made from, in milliseconds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ernie_pipeline.staleness.chain import Write
from ernie_pipeline.staleness.stage import Work
from ernie_pipeline.store.spending import PREFIX, Spent, unfinished_place


def spend(unfinished: Path, seconds: float, gpus: int = 0) -> None:
    """Leave the record of a job in the folder of an unfinished build."""
    place = unfinished_place(unfinished)
    place.mkdir(parents=True, exist_ok=True)
    number = len(list(place.iterdir()))
    record = Spent(unfinished.parent.name, seconds, gpus, began=float(number))
    (place / f"{PREFIX}{number}.json").write_text(json.dumps(asdict(record)))


def worked(seconds: float, gpus: int = 0, /, **report: Any) -> Write:
    """A stage's work by a job of so many seconds that reports this."""

    def write(work: Work, out: Path) -> None:
        spend(work.unfinished, seconds, gpus)
        (out / "reports").mkdir()
        (out / "reports" / "run.json").write_text(json.dumps({"device": "card", **report}))

    return write


def trained(seconds: float, of_them: float, samples: int, rows: int, gpus: int = 0) -> Write:
    """A training, `of_them` seconds of which were steps."""
    return worked(seconds, gpus, samples=samples, train_rows=rows, seconds=of_them)


def answered(seconds: float, of_them: float, made: int, kept: int = 0, gpus: int = 0) -> Write:
    """An evaluation, `of_them` seconds of which it answered."""
    tokens = {"generated_tokens": 10 * made, "generated_tokens_per_s": 10 * made / of_them if made else 0.0}
    return worked(seconds, gpus, problems_sampled=made, problems_reused=kept, **tokens)


def sampled(seconds: float, of_them: float, problems: int, samples: int, gpus: int = 0) -> Write:
    """Solutions, `of_them` seconds of which were sampling."""
    attempts = {"attempts_sampled": problems * samples, "attempts_reused": 0}
    return worked(seconds, gpus, problems_sampled=problems, problems_reused=0, sampling_seconds=of_them, **attempts)


def split_of(train: int, held_out: int) -> Write:
    """A split with so many rows, each a question of its own."""

    def write(work: Work, out: Path) -> None:
        for name, rows in (("train", range(train)), ("eval", range(train, train + held_out))):
            pq.write_table(pa.Table.from_pylist([_row(number) for number in rows]), out / f"{name}.parquet")

    return write


def _row(number: int) -> Mapping[str, str]:
    text = f"What is {number} + 1?"
    return {"row_id": str(number), "question": text, "answer": "1", "kind": "integer", "prompt_text": text}


def keep_rows(folder: Path, keys: Sequence[str]) -> None:
    """Keep an answer for each key."""
    from ernie_pipeline.store.row_cache import KeptRows, open_rows

    with open_rows(KeptRows(folder=folder)) as rows:
        for key in keys:
            rows.keep(key, [1])
