"""What follows from a problem alone: its place among those that are solved, its seeds, and on which side it is."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ernie_pipeline.solutions.problems import attempt_seed, for_validation, read_problems, seeds_of
from ernie_pipeline.utils.errors import PipelineError

Write = Callable[[Iterable[int]], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(numbers: Iterable[int]) -> Path:
        rows = [
            {"row_id": f"{n:016x}", "question": f"q{n}", "answer": "1", "kind": "integer", "prompt_text": f"p{n}"}
            for n in numbers
        ]
        names = ("row_id", "question", "answer", "kind", "prompt_text")
        schema = pa.schema([(name, pa.string()) for name in names])
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "train.parquet")
        return tmp_path / "train.parquet"

    return written


def asked(file: Path, rows: int) -> list[str]:
    return [problem.question for problem in read_problems(file, rows, seed=1)]


def test_all_are_read_in_the_split_s_order(write: Write) -> None:
    assert asked(write([3, 1, 2]), 0) == asked(write([3, 1, 2]), 9) == ["q3", "q1", "q2"]


@pytest.mark.parametrize(("problems", "rows"), [([1], 0), ([1], 9), ([1, 2, 3], 1)])
def test_one_alone_cannot_both_teach_and_measure(write: Write, problems: list[int], rows: int) -> None:
    """Told before anything is sampled."""
    with pytest.raises(
        PipelineError, match=rf"^one training problem alone .*rows = {rows}, and the split has {len(problems)}"
    ):
        asked(write(problems), rows)


def test_which_are_solved_does_not_shift_when_rows_come_and_go(write: Write) -> None:
    first = asked(write(range(100)), 20)
    assert len(first) == 20
    assert {*asked(write(reversed(range(100))), 20)} == {*first}
    more = {*asked(write(range(110)), 20)}
    appended = more & {f"q{n}" for n in range(100, 110)}
    assert len({*first} - more) == len(appended) <= 10
    lost = first[7]
    fewer = asked(write(n for n in range(100) if f"q{n}" != lost), 20)
    assert {*first} - {lost} < {*fewer}
    assert {*asked(write(range(100)), 10)} < {*first}


def test_an_empty_split_is_one_sentence(write: Write) -> None:
    with pytest.raises(PipelineError, match=r"^the split has no training problems to solve; give it more rows"):
        read_problems(write([]), 0, seed=1)


def test_a_seed_is_of_the_prompt_the_round_the_sample_and_the_recipe_s_seed_alone(write: Write) -> None:
    one, two = read_problems(write([1, 2]), 0, seed=1)
    seeds = {
        attempt_seed(text, seed, round_, sample)
        for text in ("p1", "p2")
        for seed in (1, 2)
        for round_ in (1, 2)
        for sample in (0, 1)
    }
    assert len(seeds) == 16
    assert all(0 <= seed < 2**62 for seed in seeds)
    assert seeds_of([one, two], 4, 1, 1)[::4] == [attempt_seed("p1", 1, 1, 0), attempt_seed("p2", 1, 1, 0)]
    assert seeds_of([two], 8, 1, 1)[:4] == seeds_of([one, two], 4, 1, 1)[4:]


def test_about_the_fraction_measures_and_none_moves_when_others_come_or_go() -> None:
    questions = [f"question {n}" for n in range(2000)]
    apart = for_validation(questions, 0.1, seed=1)
    assert 150 < len(apart) < 250
    assert for_validation(questions[:1000], 0.1, seed=1) == apart & {*questions[:1000]}
    assert for_validation(questions, 0.1, seed=2) != apart


@pytest.mark.parametrize("fraction", [0.0001, 0.5, 0.9999])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_either_side_has_one(fraction: float, count: int) -> None:
    for start in range(0, 50, count):
        questions = [f"question {n}" for n in range(start, start + count)]
        assert 1 <= len(for_validation(questions, fraction, seed=1)) <= count - 1
