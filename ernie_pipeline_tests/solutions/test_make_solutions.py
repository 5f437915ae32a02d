"""Real rounds of the demo model: the files and what they say of each other; and what a change samples anew."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer
from ernie_pipeline.solutions.job import SolutionsJob
from ernie_pipeline.training.rows import read_rows
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.solutions.conftest import Rounds


def cost(job: SolutionsJob) -> tuple[int, int, int]:
    """Problems sampled, problems reused, generated tokens."""
    run = json.loads((job.out / "reports" / "run.json").read_text())
    return run["problems_sampled"], run["problems_reused"], run["generated_tokens"]


def metrics(job: SolutionsJob) -> Any:
    return json.loads((job.out / "metrics.json").read_text())


def test_the_files_agree_and_training_reads_them(rounds: Rounds) -> None:
    job = rounds("out")
    out, found = job.out, metrics(job)
    attempts, problems = pl.read_parquet(out / "attempts.parquet"), pl.read_parquet(out / "problems.parquet")
    train, validation = (pl.read_parquet(out / f"{part}.parquet") for part in ("train", "validation"))
    assert (attempts.height, problems.height, found["attempts"], found["problems"]) == (40, 10, 40, 10)
    assert attempts.group_by("row_id").len()["len"].to_list() == [4] * 10
    assert attempts["sample"].to_list() == [0, 1, 2, 3] * 10
    strict = (pl.col("outcome") == "correct") & pl.col("boxed") & pl.col("ended")
    assert attempts.filter(strict != pl.col("strict")).is_empty()
    kept = attempts.filter("kept")
    assert kept.filter(~pl.col("strict")).is_empty()
    assert kept.height == train.height + validation.height == found["kept"]
    assert (found["train_solutions"], found["validation_solutions"]) == (train.height, validation.height)
    assert train.height > 0 < validation.height
    assert train.join(validation, on="question", how="semi").is_empty()
    assert kept.group_by("row_id").len()["len"].max() <= 2
    assert set(train["completion_text"]) <= {f"{text}</s>" for text in kept["text"]}
    tokenizer = load_tokenizer(job.spec.base.checkpoint)
    rows = read_rows(out / "train.parquet", tokenizer, completion_only_loss=True)
    assert [row.counted for row in rows] == train["tokens"].to_list() or found["same_tokens_share"] < 1
    assert all(row.ids[-1] == tokenizer.eos_token_id for row in rows)


def test_the_same_again_is_the_same_bytes_and_samples_none(rounds: Rounds) -> None:
    first, again = rounds("first"), rounds("again")
    files = [{file.name: file.read_bytes() for file in job.out.glob("*.*")} for job in (first, again)]
    assert sorted(files[0]) == [
        "attempts.parquet",
        "metrics.json",
        "problems.parquet",
        "train.parquet",
        "validation.parquet",
    ]
    assert files[0] == files[1]
    assert cost(first) == (10, 0, sum(map(len, rounds.kept.values())))
    assert cost(again) == (0, 10, 0)


def test_a_changed_row_costs_one_row(rounds: Rounds, sums: list[dict[str, Any]], split_of: Callable[..., Path]) -> None:
    rounds("first")
    before = rounds.kept
    appended = rounds("appended", split=split_of("twelve", sums))
    new = {key: tokens for key, tokens in rounds.kept.items() if key not in before}
    assert len(new) == 2 * 4
    assert cost(appended) == (2, 10, sum(map(len, new.values())))
    moved = [{**row, "answer": "1"} if row is sums[3] else row for row in reversed(sums[2:11])]
    assert cost(rounds("removed", split=split_of("nine", moved))) == (0, 9, 0), "another reference answer is graded"
    assert cost(rounds("chosen", keep=1, min_solved=0.5, grading_timeout_s=4.0)) == (0, 10, 0)
    assert sum("loading" in line for line in rounds.lines) == 2, "where nothing is to be made, nothing is loaded"


def test_more_samples_reuse_those_that_are_there(rounds: Rounds, tmp_path: Path) -> None:
    rounds("four", samples=4)
    before = rounds.kept
    eight = rounds("eight", samples=8)
    new = {key: tokens for key, tokens in rounds.kept.items() if key not in before}
    assert len(new) == 10 * 4
    assert cost(eight) == (10, 0, sum(map(len, new.values())))
    run = json.loads((eight.out / "reports" / "run.json").read_text())
    assert (run["attempts_sampled"], run["attempts_reused"]) == (40, 40)
    four = pl.read_parquet(tmp_path / "four" / "attempts.parquet").drop("kept")
    of_eight = pl.read_parquet(eight.out / "attempts.parquet").filter(pl.col("sample") < 4).drop("kept")
    assert of_eight.equals(four)


def test_a_round_pools_the_attempts_of_the_one_before(rounds: Rounds) -> None:
    first = rounds("first", keep=4)
    second = rounds("second", keep=8, rounds=2, earlier=first.out)
    one, two = (pl.read_parquet(job.out / "attempts.parquet") for job in (first, second))
    assert two.filter(pl.col("round") == 1).drop("kept").equals(one.drop("kept"))
    assert two.filter(pl.col("round") == 2).height == 40
    assert cost(second)[0] == 10, "other seeds"
    assert [each["round"] for each in metrics(second)["rounds"]] == [1, 2]
    assert metrics(second)["kept"] >= metrics(first)["kept"]


def test_attempts_that_are_all_cut_off_are_one_sentence(rounds: Rounds) -> None:
    with pytest.raises(PipelineError, match=r"^none of 40 attempts at 10 problems ended within .* = 2 tokens; raise"):
        rounds("out", max_new_tokens=2)


def test_what_is_longer_than_the_model_s_context_is_told_before_anything_is_sampled(rounds: Rounds) -> None:
    with pytest.raises(
        PipelineError, match=r"^the longest problem's prompt has \d+ tokens, and with solutions.max_new"
    ):
        rounds("out", max_new_tokens=2048)
    assert not rounds.kept
    assert not any("loading" in line for line in rounds.lines)
