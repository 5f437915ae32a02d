"""Workers that share a round's rows: each attempt is made by one of them, and the round finds all of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ernie_pipeline.models.generation.kept import row_key
from ernie_pipeline.solutions.make_solutions import make
from ernie_pipeline.store.row_part import RowPart
from ernie_pipeline_tests.solutions.conftest import Rounds


def test_two_parts_come_to_what_one_process_comes_to(
    rounds: Rounds, sums: list[dict[str, Any]], split_of: Callable[..., Path]
) -> None:
    three = {"split": split_of("three", sums[:3])}
    job = rounds.job.model_copy(update={**three, "out": rounds.folder / "part"})
    job.out.mkdir()
    made: list[set[str]] = []
    for number in (0, 1, 0):
        before = set(rounds.kept)
        make(job.model_copy(update={"part": RowPart(number=number, of=2)}), rounds._hear)
        made.append(set(rounds.kept) - before)
    assert not made[2], "what is kept is not made again"
    assert made[0]
    assert made[1]
    assert len(made[0] | made[1]) == 12
    assert not [*job.out.iterdir()], "a part makes nothing but its rows"
    together = rounds("together", **three)
    found = json.loads((together.out / "reports" / "run.json").read_text())
    assert (found["attempts_sampled"], found["attempts_reused"]) == (0, 12)
    alone = Rounds(rounds.job.model_copy(update={"rows": None}), rounds.folder)("alone", **three)
    assert (together.out / "attempts.parquet").read_bytes() == (alone.out / "attempts.parquet").read_bytes()


def test_each_row_is_in_one_part_whatever_stands_beside_it() -> None:
    keys = [row_key([number], 0) for number in range(500)]
    for of in (1, 2, 3, 7):
        parts = [RowPart(number=number, of=of) for number in range(of)]
        assert all(sum(part.has(key) for part in parts) == 1 for key in keys)
        assert all(sum(map(part.has, keys)) > 500 / of / 2 for part in parts)
