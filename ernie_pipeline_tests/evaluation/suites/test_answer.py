"""The demo model on a suite: every attempt graded, and none made that is kept."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ernie_pipeline.evaluation.suites import answer as answering
from ernie_pipeline.evaluation.suites.answer import answer
from ernie_pipeline.evaluation.suites.attempts import Attempt, read_attempts
from ernie_pipeline.evaluation.suites.compare import write_comparison
from ernie_pipeline.evaluation.suites.figures import summarise
from ernie_pipeline.evaluation.suites.job import SuiteJob
from ernie_pipeline.store.row_cache import KeptRows, read_rows
from ernie_pipeline.store.row_part import RowPart
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.evaluation.suites.conftest import Answered, MakeSuiteJob


def quiet(line: str, values: dict[str, Any]) -> None:
    pass


def run_of(job: SuiteJob) -> dict[str, Any]:
    answer(job, quiet)
    found: dict[str, Any] = json.loads((job.out / "reports" / "run.json").read_text())
    return found


def told(job: SuiteJob) -> dict[tuple[str, int], str]:
    return {(each.row_id, each.sample): each.text for each in read_attempts(job.out)}


def test_each_problem_has_one_greedy_and_its_sampled_attempts(answered: Answered) -> None:
    job, _ = answered
    run = json.loads((job.out / "reports" / "run.json").read_text())
    attempts = read_attempts(job.out)
    problems = pq.read_table(job.problems / "problems.parquet").to_pylist()
    assert [each.row_id for each in attempts] == [row["row_id"] for row in problems for _ in range(3)]
    assert Counter(each.sample for each in attempts) == {0: 8, 1: 8, 2: 8}
    assert {each.row_id: each.reference for each in attempts} == {row["row_id"]: row["answer"] for row in problems}
    assert {each.level for each in attempts} == {"1", "2"}
    assert json.loads((job.out / "metrics.json").read_text()) == summarise(attempts)
    assert json.loads((job.out / "model.json").read_text()) == {"backend": "peft"}
    assert (run["attempts_sampled"], run["attempts_reused"], run["problems_sampled"]) == (24, 0, 8)
    first, second = ([each.text for each in attempts if each.sample == n] for n in (1, 2))
    assert first != second
    assert any(each.correct for each in attempts)


def test_the_same_model_gives_the_same_bytes(answered: Answered, make_suite_job: MakeSuiteJob) -> None:
    again = make_suite_job("again")
    answer(again, quiet)
    files = [{file.name: file.read_bytes() for file in job.out.glob("*.*")} for job in (answered[0], again)]
    assert sorted(files[0]) == ["attempts.parquet", "metrics.json", "model.json"]
    assert files[0] == files[1]


def test_a_changed_setting_costs_the_answers_that_it_changes(
    answered: Answered, kept: KeptRows, make_suite_job: MakeSuiteJob
) -> None:
    """More samples, another temperature, another seed: those of before are found again."""
    first, _ = answered

    def cost(name: str, **answers: Any) -> tuple[SuiteJob, int]:
        job = make_suite_job(name, answers=answers, rows=kept)
        return job, run_of(job)["attempts_sampled"]

    more, made = cost("more", samples=4)
    assert made == 16
    assert told(first).items() <= told(more).items()
    hotter, made = cost("hotter", temperature=0.9)
    assert made == 16
    greedy = {key: text for key, text in told(first).items() if key[1] == 0}
    assert greedy.items() <= told(hotter).items()
    assert cost("graded otherwise", grading_timeout_s=2.0)[1] == 0
    assert cost("greedy alone", samples=0)[1] == 0


def test_what_is_kept_of_problems_that_are_sampled_again_is_told(make_suite_job: MakeSuiteJob, kept: KeptRows) -> None:
    """Another seed leaves the greedy answers as they are."""
    lines: list[str] = []
    answer(make_suite_job("second", answers={"seed": 1}, rows=kept), lambda line, _: lines.append(line))
    assert "problems sampled 8, reused 0: 16 attempts to make, 8 kept" in lines


def test_a_model_whose_answers_are_all_kept_is_not_loaded(
    answered: Answered,
    kept: KeptRows,
    make_suite_job: MakeSuiteJob,
    monkeypatch: pytest.MonkeyPatch,
) -> None:

    def load(name: str) -> Any:
        raise AssertionError("loaded")

    monkeypatch.setattr(answering, "backend_named", load)
    again = make_suite_job("again", rows=kept)
    run = run_of(again)
    assert (run["attempts_sampled"], run["attempts_reused"], run["problems_reused"]) == (0, 24, 8)
    assert (run["generation"], run["generated_tokens_per_s"]) == ("kept answers", 0.0)
    assert read_attempts(again.out) == read_attempts(answered[0].out)


def test_the_parts_are_the_whole(make_suite_job: MakeSuiteJob, tmp_path: Path) -> None:
    kept = KeptRows(folder=tmp_path / "kept")
    for number in range(2):
        job = make_suite_job(f"part {number}", rows=kept, part=RowPart(number=number, of=2))
        answer(job, quiet)
        assert [*job.out.iterdir()] == []
    assert len(read_rows(kept.folder)) == 24
    assert run_of(make_suite_job("whole", rows=kept))["attempts_sampled"] == 0


def test_problems_that_do_not_fit_the_model_are_told_before_it_is_loaded(make_suite_job: MakeSuiteJob) -> None:
    with pytest.raises(PipelineError, match=r"suites\.mine\.max_new_tokens = 100000 that is more than"):
        answer(make_suite_job(answers={"max_new_tokens": 100_000}), quiet)


def test_both_models_side_by_side_from_their_artifacts(
    answered: Answered, kept: KeptRows, make_suite_job: MakeSuiteJob, tmp_path: Path
) -> None:
    (base, _), out = answered, tmp_path / "both"
    adapter = make_suite_job("adapter", answers={"seed": 1}, rows=kept)
    out.mkdir()
    answer(adapter, quiet)
    one: Attempt = read_attempts(base.out)[0]
    pq.write_table(pa.table({"row_id": [one.row_id]}), out / "contamination.parquet")
    write_comparison(base.out, adapter.out, 64, out)
    found = json.loads((out / "comparison.json").read_text())
    assert (found["problems"], found["samples"], found["figures"][0]["gain"]) == (8, 2, 0.0)
    assert found["contamination"] | {"figures_without": []} == {
        "contaminated": 1,
        "share": 0.125,
        "figures_without": [],
        "training_rows": 64,
    }
    assert pq.read_table(out / "changed.parquet").num_rows == found["better"] + found["worse"]
    (adapter.out / "model.json").write_text('{"backend": "grouped"}')
    with pytest.raises(PipelineError, match=r"made by backend peft and .* by grouped"):
        write_comparison(base.out, adapter.out, 64, out)


def test_answers_to_other_problems_are_not_compared(
    answered: Answered, kept: KeptRows, make_suite_job: MakeSuiteJob, tmp_path: Path
) -> None:
    jobs = [answered[0], make_suite_job("fewer", answers={"samples": 1}, rows=kept)]
    answer(jobs[1], quiet)
    with pytest.raises(PipelineError, match="are not to the same; answer it anew by both"):
        write_comparison(jobs[0].out, jobs[1].out, 64, tmp_path)
