"""One real evaluation of the demo model: loss, answers, grades, and that they are of the rows that were asked."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from ernie_pipeline.evaluation.evaluate import evaluate
from ernie_pipeline.evaluation.loss import completion_loss

MakeJob = Callable[..., dict[str, Any]]


def quiet(line: str, values: dict[str, Any]) -> None:
    pass


def test_every_held_out_row_gets_one_graded_answer(make_job: MakeJob) -> None:
    job = make_job()
    evaluate(job, quiet)
    out = Path(job["out"])
    rows = pq.read_table(Path(job["split"]) / "eval.parquet").to_pylist()
    predictions = pq.read_table(out / "predictions.parquet").to_pylist()
    metrics = json.loads((out / "metrics.json").read_text())
    assert [p["row_id"] for p in predictions] == [row["row_id"] for row in rows]
    assert [p["gold"] for p in predictions] == [row["answer"] for row in rows]
    assert metrics["rows"] == metrics["validation_rows"] == 16
    assert metrics["accuracy"] == sum(p["right"] for p in predictions) / 16
    assert sum(kind["rows"] for kind in metrics["by_kind"].values()) == 16
    run = json.loads((out / "reports" / "run.json").read_text())
    assert run.pop("generated_tokens_per_s") > 0
    assert 16 <= run.pop("generated_tokens") <= 16 * job["evaluation"]["max_new_tokens"]
    assert run == {"engine": "peft", "device": "cpu", "generation": "4-bit"}
    assert metrics["unboxed_share"] == sum(not p["boxed"] for p in predictions) / 16


def test_only_the_rows_asked_for_are_answered_but_the_loss_is_over_all(make_job: MakeJob) -> None:
    job = make_job()
    job["evaluation"] = job["evaluation"] | {"rows": 3}
    evaluate(job, quiet)
    metrics = json.loads((Path(job["out"]) / "metrics.json").read_text())
    assert (metrics["rows"], metrics["validation_rows"]) == (3, 16)


def test_the_same_model_gives_the_same_bytes(make_job: MakeJob) -> None:
    files = []
    for name in ("first", "second"):
        job = make_job(name)
        evaluate(job, quiet)
        files.append({file.name: file.read_bytes() for file in Path(job["out"]).glob("*.*")})  # reports: with times
    assert len(files[0]) == 3
    assert files[0] == files[1]


class Uniform:
    """A model that gives every token of eight the same chance, and notes its batches: rows, width."""

    shapes: list[tuple[int, ...]]

    def __init__(self) -> None:
        self.shapes = []

    def parameters(self) -> Any:
        return iter([torch.zeros(1)])

    def __call__(self, input_ids: torch.Tensor, **_: Any) -> Any:
        self.shapes.append(tuple(input_ids.shape))
        return type("Output", (), {"logits": torch.zeros(*input_ids.shape, 8)})


@pytest.mark.parametrize("max_tokens", [1, 8, 10, 4096])
def test_a_uniform_model_pays_the_logarithm_of_the_vocabulary_a_token(max_tokens: int) -> None:
    prompts, completions = [[1, 2], [3], [4, 5, 6]], [[1], [2, 3, 4, 5], [6, 7]]
    loss = completion_loss(Uniform(), prompts, completions, max_tokens)
    assert loss == pytest.approx(torch.tensor(8.0).log().item())


def test_rows_of_like_length_share_a_batch_of_so_many_tokens_and_a_longer_one_has_its_own() -> None:
    model = Uniform()
    completion_loss(model, [[1] * n for n in (9, 1, 40, 8, 2)], [[1]] * 5, max_tokens=20)
    assert model.shapes == [(2, 3), (2, 10), (1, 41)]
