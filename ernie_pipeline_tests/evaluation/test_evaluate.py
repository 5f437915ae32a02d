"""One real evaluation of the demo model: loss, answers, grades, and that they are of the rows that were asked."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ernie_pipeline.evaluation.evaluate import completion_loss, evaluate
from ernie_pipeline.evaluation.job import EvaluationJob
from ernie_pipeline.models.peft import rows as peft_rows
from ernie_pipeline.models.peft.backend import PeftModel4bit
from ernie_pipeline.models.spec import ModelSpec
from ernie_pipeline.store.row_cache import KeptRows, read_rows

MakeJob = Callable[..., EvaluationJob]


def quiet(line: str, values: dict[str, Any]) -> None:
    pass


def test_every_held_out_row_gets_one_graded_answer(make_evaluation: MakeJob) -> None:
    job = make_evaluation()
    evaluate(job, quiet)
    out = job.out
    rows = pq.read_table(job.split / "eval.parquet").to_pylist()
    predictions = pq.read_table(out / "predictions.parquet").to_pylist()
    metrics = json.loads((out / "metrics.json").read_text())
    assert [p["row_id"] for p in predictions] == [row["row_id"] for row in rows]
    assert [p["reference"] for p in predictions] == [row["answer"] for row in rows]
    assert metrics["rows"] == metrics["validation_rows"] == 16
    assert metrics["accuracy"] == sum(p["correct"] for p in predictions) / 16
    assert sum(kind["rows"] for kind in metrics["by_kind"].values()) == 16
    run = json.loads((out / "reports" / "run.json").read_text())
    assert run.pop("generated_tokens_per_s") > 0
    assert 16 <= run.pop("generated_tokens") <= 16 * job.evaluation.max_new_tokens
    assert run.pop("device").startswith("CPU, ")
    assert run == {"backend": "peft", "generation": "4-bit", "problems_sampled": 16, "problems_reused": 0}
    assert json.loads((out / "model.json").read_text()) == {"backend": "peft"}  # by which comparisons tell
    assert metrics["accuracy_strict"] == sum(p["strict"] for p in predictions) / 16
    assert metrics["unended_share"] == sum(not p["ended"] for p in predictions) / 16
    assert all(p["reason"] for p in predictions)
    assert metrics["unboxed_share"] == sum(not p["boxed"] for p in predictions) / 16


def test_only_the_rows_asked_for_are_answered_but_the_loss_is_over_all(make_evaluation: MakeJob) -> None:
    job = make_evaluation(evaluation={"rows": 3})
    evaluate(job, quiet)
    metrics = json.loads((job.out / "metrics.json").read_text())
    assert (metrics["rows"], metrics["validation_rows"]) == (3, 16)


def test_the_same_model_gives_the_same_bytes(make_evaluation: MakeJob) -> None:
    files = []
    for name in ("first", "second"):
        job = make_evaluation(name)
        evaluate(job, quiet)
        files.append({file.name: file.read_bytes() for file in job.out.glob("*.*")})  # reports: with times
    assert sorted(files[0]) == ["metrics.json", "model.json", "predictions.parquet", "probe.json"]
    assert files[0] == files[1]


class Uniform(torch.nn.Module):
    """A model that gives every token of eight the same chance, and notes its batches: rows, width."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor, num_items_in_batch: float, **_: Any) -> Any:
        self.shapes.append(tuple(input_ids.shape))
        counted = (labels[:, 1:] != -100).sum()
        return type("Output", (), {"loss": counted * torch.tensor(8.0).log() / num_items_in_batch})


@pytest.fixture
def uniform(short_spec: ModelSpec) -> PeftModel4bit:
    """That model, where the seam has one of transformers."""
    return PeftModel4bit(short_spec, "cpu", Uniform())


@pytest.mark.parametrize("max_tokens", [1, 8, 10, 4096])
def test_a_uniform_model_pays_the_logarithm_of_the_vocabulary_a_token(
    uniform: PeftModel4bit, max_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peft_rows, "MAX_TOKENS", max_tokens)
    prompts, completions = [[1, 2], [3], [4, 5, 6]], [[1], [2, 3, 4, 5], [6, 7]]
    loss = completion_loss(uniform, prompts, completions)
    assert loss == pytest.approx(torch.tensor(8.0).log().item())


def test_rows_of_like_length_share_a_batch_of_so_many_tokens_and_a_longer_one_has_its_own(
    uniform: PeftModel4bit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peft_rows, "MAX_TOKENS", 20)
    completion_loss(uniform, [[1] * n for n in (9, 1, 40, 8, 2)], [[1]] * 5)
    assert sorted(uniform.module.shapes) == [(1, 41), (2, 3), (2, 10)]


def test_a_changed_held_out_row_costs_one_answer(make_evaluation: MakeJob, tmp_path: Path) -> None:
    """Rows appended cost themselves, rows removed nothing: counted in tokens too."""
    kept = KeptRows(folder=tmp_path / "set")

    def cost(name: str, rows: slice) -> tuple[int, int, int]:
        job = make_evaluation(name)
        held_out = pq.read_table(job.split / "eval.parquet").to_pylist()[rows]
        (tmp_path / f"split {name}").mkdir()
        pq.write_table(pa.Table.from_pylist(held_out), tmp_path / f"split {name}" / "eval.parquet")
        evaluate(job.model_copy(update={"split": tmp_path / f"split {name}", "rows": kept}), quiet)
        run = json.loads((job.out / "reports" / "run.json").read_text())
        return run["problems_sampled"], run["problems_reused"], run["generated_tokens"]

    first = cost("first", slice(6))
    known = read_rows(kept.folder)
    assert first == (6, 0, sum(map(len, known.values())))
    appended = cost("appended", slice(8))
    new = {key: tokens for key, tokens in read_rows(kept.folder).items() if key not in known}
    assert appended == (2, 6, sum(map(len, new.values())))
    assert cost("removed", slice(1, 7)) == (0, 6, 0)
