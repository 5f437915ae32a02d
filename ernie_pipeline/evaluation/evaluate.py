"""One model on the held-out rows: the loss on their completions, greedy answers, grades, metrics."""

import json
import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ernie_pipeline.evaluation.job import EvaluationJob
from ernie_pipeline.evaluation.metrics import by_kind, summarise
from ernie_pipeline.evaluation.part import answer_kept, answer_part
from ernie_pipeline.grading.attempts import grade_values
from ernie_pipeline.grading.grade import Grade, grade, is_strict
from ernie_pipeline.models import backend_named
from ernie_pipeline.models.backend import LoadedModel
from ernie_pipeline.models.checkpoint.tokenizer import answer_texts, token_ids
from ernie_pipeline.models.device import choose_device
from ernie_pipeline.models.documents import document
from ernie_pipeline.recipe.execution import Execution
from ernie_pipeline.store.row_cache import open_rows
from ernie_pipeline.utils.json_file import write_json
from ernie_pipeline.utils.reporter import Reporter

PROBE_TOKENS = 50

Row = dict[str, Any]
"""A held-out row, by column."""


def evaluate(job: EvaluationJob, report: Reporter) -> None:
    """Measure the model that `job` describes and fill its folder `out`.

    Writes `predictions.parquet` (one row a held-out problem), `metrics.json`, `model.json` (by which backend it was
    computed), and `probe.json`: the highest logits after the first held-out prompt, by which a copy of the model can be
    told from another one; and below `reports/` what it ran on.
    """
    device = choose_device(job.limits, job.execution, report)
    spec, settings, out = job.spec, job.evaluation, job.out
    rows: list[Row] = pq.read_table(job.split / "eval.parquet").to_pylist()
    asked = rows[: settings.rows or None]
    if job.part:
        answer_part(job, [row["prompt_text"] for row in asked], job.part, device, report)
        return

    report(f"loading {spec.base.name}" + (" and its adapter" if spec.adapter else ""), {})
    loaded = backend_named(spec.backend).load(spec, device.name)

    prompts = token_ids(loaded.tokenizer, [row["prompt_text"] for row in rows])
    completions = token_ids(loaded.tokenizer, [row["completion_text"] for row in rows])
    loss = completion_loss(loaded, prompts, completions)
    report(f"loss on the completions {loss:.4f} on {len(rows)} rows", {"loss_completion": loss})

    answers, ended, ran_on = _answer(loaded, prompts[: len(asked)], job, device.execution, report)
    grades = grade(answers, [row["answer"] for row in asked], timeout_s=settings.grading_timeout_s)
    kinds = by_kind([row["kind"] for row in asked], grades)
    metrics = {"loss_completion": loss, "validation_rows": len(rows), **summarise(grades, ended), "by_kind": kinds}
    report(
        f"accuracy {metrics['accuracy']:.1%} ({metrics['accuracy_low']:.1%} to {metrics['accuracy_high']:.1%}), "
        f"strictly {metrics['accuracy_strict']:.1%}",
        {"accuracy": metrics["accuracy"], "accuracy_strict": metrics["accuracy_strict"]},
    )
    pq.write_table(_predictions(asked, answers, ended, grades), out / "predictions.parquet")
    (out / "reports").mkdir()
    for name, values in {
        "metrics": metrics,
        "model": {"backend": spec.backend},
        "reports/run": {"backend": spec.backend, "device": device.description, **ran_on},
    }.items():
        write_json(out / f"{name}.json", values)
    (out / "probe.json").write_text(json.dumps(_probe(loaded, prompts[0])) + "\n", encoding="utf-8")


def completion_loss(loaded: LoadedModel, prompts: Sequence[list[int]], completions: Sequence[list[int]]) -> float:
    """Mean negative log-likelihood, in nats a token, over all completion tokens given their prompts (token ids)."""
    documents = [
        document(prompt + completion, len(prompt)) for prompt, completion in zip(prompts, completions, strict=True)
    ]
    return loaded.loss_sum(documents) / sum(each.counted for each in documents)


def _answer(
    loaded: LoadedModel, prompts: Sequence[list[int]], job: EvaluationJob, execution: Execution, report: Reporter
) -> tuple[list[str], list[bool], dict[str, str | int | float]]:
    """An answer to each prompt, whether it ended by itself, and how they were made."""
    report(f"answering {len(prompts)} rows", {})
    start = time.monotonic()
    with open_rows(job.rows) as kept:
        made = answer_kept(loaded, prompts, job, kept, execution, lambda line: report(line, {}))
    seconds = time.monotonic() - start
    report(f"problems sampled {made.sampled}, reused {made.reused}", {})
    ends = loaded.end_tokens
    return (
        answer_texts(loaded.tokenizer, made.tokens),
        [bool(tokens) and tokens[-1] in ends for tokens in made.tokens],
        {
            "generation": made.how,
            "problems_sampled": made.sampled,
            "problems_reused": made.reused,
            "generated_tokens": made.generated,
            "generated_tokens_per_s": round(made.generated / seconds, 1),  # with the time that merging took
        },
    )


def _predictions(rows: list[Row], answers: list[str], ended: list[bool], grades: list[Grade]) -> pa.Table:
    """row_id, question, reference, prediction, correct, ended, strict, and the grade's outcome, reason, boxed and
    extracted."""
    return pa.Table.from_pylist(
        [
            {
                "row_id": row["row_id"],
                "question": row["question"],
                "reference": row["answer"],
                "prediction": answer,
                "correct": result.outcome == "correct",
                "ended": end,
                "strict": is_strict(result, end),
                **grade_values(result),
            }
            for row, answer, end, result in zip(rows, answers, ended, grades, strict=True)
        ],
        schema=pa.schema(
            [
                *((name, pa.string()) for name in ("row_id", "question", "reference", "prediction")),
                *((name, pa.bool_()) for name in ("correct", "ended", "strict")),
                ("outcome", pa.string()),
                ("boxed", pa.bool_()),
                ("extracted", pa.string()),
                ("reason", pa.string()),
            ]
        ),
    )


def _probe(loaded: LoadedModel, prompt: list[int]) -> dict[str, list[int] | list[list[float]]]:
    values, tokens = loaded.logits(prompt)[-1].topk(PROBE_TOKENS)
    top = [[token, value] for token, value in zip(tokens.tolist(), values.tolist(), strict=True)]
    return {"input_ids": prompt, "top": top}
