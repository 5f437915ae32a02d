"""Which prompts a step practises, by which seeds, and what is set aside."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ernie_pipeline.recipe.sections import Grpo, Training
from ernie_pipeline.training.grpo.plan import GrpoPlan, grpo_plan
from ernie_pipeline.training.grpo.problems import Problem, read_problems, set_aside
from ernie_pipeline.training.schedule.shares import share_of
from ernie_pipeline.utils.errors import PipelineError

PROBLEMS = [Problem(f"{n:016x}", [5] * (3 + n % 7), str(n)) for n in range(20)]


def plan(number: int = 20, grpo: dict[str, Any] | None = None, **training: Any) -> GrpoPlan:
    own = Grpo(**{"group": 4, "max_new_tokens": 9, "eval_problems": 4, **(grpo or {})})
    settings = Training(**{"method": "grpo", "samples_per_step": 12, "max_steps": 6, **training})
    return grpo_plan(settings, own, set_aside(PROBLEMS[:number], 4, 3))


def test_each_epoch_practises_each_problem_once() -> None:
    prompts = [number for batch in plan(max_steps=12).prompts for number in batch]
    assert sorted(prompts[:16]) == sorted(prompts[16:32]) == list(range(16))
    assert prompts[:16] != prompts[16:32]
    assert plan().steps[0] == [number for number in prompts[:3] for _ in range(4)]


@pytest.mark.parametrize(
    ("settings", "updates", "steps", "batches"),
    [
        ({"max_steps": 5}, 1, 5, 5),
        ({"max_steps": 5}, 2, 5, 3),
        ({"max_steps": 0, "max_samples": 30}, 1, 3, 3),
        ({"max_steps": 0, "epochs": 2.0}, 1, 11, 11),  # 2 x 16 problems x 4 answers / 12
        ({"max_steps": 0, "epochs": 2.0}, 3, 33, 11),
    ],
)
def test_how_many_steps_and_batches(settings: dict[str, Any], updates: int, steps: int, batches: int) -> None:
    made = plan(grpo={"updates_per_batch": updates}, **settings)
    assert (len(made.steps), len(made.prompts)) == (steps, batches)
    assert all(made.steps[n] == made.steps[n - n % updates] for n in range(steps))


def test_what_memory_is_planned_for_is_the_most_that_can_come() -> None:
    made = plan()
    assert {*made.lengths} == {9 + 9}
    assert [len(share_of(made.steps[0], made.lengths, rank, 5)) for rank in range(5)] == [3, 3, 2, 2, 2]


def test_further_prompts_are_others_and_the_same_each_time() -> None:
    made = plan()
    used = made.prompts[0]
    further = made.further_prompts(0, 2, used, 3)
    assert further == plan().further_prompts(0, 2, used, 3)
    assert further != made.further_prompts(0, 3, used, 3)
    assert len({*further, *used}) == 6
    assert sorted(made.further_prompts(0, 2, used, 99)) == sorted({*range(16)} - {*used})


def test_no_two_answers_are_drawn_alike() -> None:
    made = plan()
    seeds = [made.seed(batch, place, answer) for batch in range(9) for place in range(9) for answer in range(9)]
    assert len({*seeds}) == len(seeds)
    assert all(0 <= seed < 2**62 for seed in seeds)
    assert seeds[0] == plan().seed(0, 0, 0) != plan(grpo={"seed": 1}).seed(0, 0, 0)


def test_what_is_set_aside_stays_so_when_problems_come_and_go() -> None:
    held = {problem.row_id for problem in set_aside(PROBLEMS, 4, 3).held}
    fewer = set_aside(PROBLEMS[1:], 4, 3)
    assert len(held) == len(fewer.held) == 4
    assert len(held & {problem.row_id for problem in fewer.held}) >= 3
    assert {p.row_id for p in fewer.practised} | {p.row_id for p in fewer.held} == {p.row_id for p in PROBLEMS[1:]}


def test_too_few_problems_are_told() -> None:
    with pytest.raises(PipelineError) as told:
        set_aside(PROBLEMS[:6], 4, 3)
    assert str(told.value) == (
        "there are 6 problems to practise, and GRPO needs 7: 3 for a step (training.samples_per_step / grpo.group) and "
        "4 to measure it (grpo.eval_problems); lower these, or give it more rows"
    )


def test_of_solutions_those_are_practised_that_were_solved_sometimes(tiny_split: Path, tmp_path: Path) -> None:
    from ernie_pipeline.demo import BASE
    from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(str(BASE))
    everything = read_problems(tiny_split, tokenizer)
    assert len(everything) == 64
    classes = ("always", "sometimes", "never", "truncated")
    rows = [{"row_id": problem.row_id, "class": classes[n % 4]} for n, problem in enumerate(everything)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "problems.parquet")
    assert read_problems(tiny_split, tokenizer, tmp_path) == everything[1::4]
    assert json.dumps(everything[0]).startswith('["0000000000000000", [')
