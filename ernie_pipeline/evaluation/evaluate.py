"""One model on the held-out rows: validation loss, greedy answers, grades, metrics."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ernie_pipeline.evaluation.answers.grading import Grade, grade
from ernie_pipeline.evaluation.loss import completion_loss
from ernie_pipeline.evaluation.metrics import by_kind, summarise
from ernie_pipeline.models import engine_module, engine_name
from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer, token_ids
from ernie_pipeline.models.device import choose_device
from ernie_pipeline.models.generation.generate import answer_texts, end_tokens, generate_tokens
from ernie_pipeline.models.generation.merged import fast_generator
from ernie_pipeline.utils.reporter import Reporter

PROBE_TOKENS = 50


def evaluate(job: dict[str, Any], report: Reporter) -> None:
    """Measure the model that `job` describes and fill its folder `out`.

    `job`: engine, base {name, checkpoint, revision}, quantization, lora, adapter (a folder, or None for the base
    model), evaluation (the recipe's section), split (a folder with eval.parquet), out, gpu (see `choose_device`).
    Writes `predictions.parquet` (one row a held-out problem), `metrics.json`, and `probe.json`: the highest logits
    after the first held-out prompt, by which a copy of the model can be told from another one; and below `reports/`
    what it ran on.
    """
    device = choose_device(job["gpu"], report)
    settings, out, base = job["evaluation"], Path(job["out"]), job["base"]
    rows = pq.read_table(Path(job["split"]) / "eval.parquet").to_pylist()
    asked = rows[: settings["rows"] or None]

    report(f"loading {base['name']}" + (" and its adapter" if job["adapter"] else ""), {})
    tokenizer = load_tokenizer(base["checkpoint"], base["revision"])
    engine = engine_module(job["engine"], job["quantization"])
    model = engine.load(job, device)

    prompts = token_ids(tokenizer, [row["prompt_text"] for row in rows])
    completions = token_ids(tokenizer, [row["completion_text"] for row in rows])
    loss = completion_loss(model, prompts, completions)
    report(f"validation loss {loss:.4f} on {len(rows)} rows", {"validation_loss": loss})

    answers, generation = _answer(model, tokenizer, asked, prompts, settings, report)
    grades = grade(answers, [row["answer"] for row in asked], timeout_s=settings["grading_timeout_s"])
    kinds = by_kind([row["kind"] for row in asked], grades)
    metrics = {"validation_loss": loss, "validation_rows": len(rows), **summarise(grades), "by_kind": kinds}
    report(
        f"accuracy {metrics['accuracy']:.1%} ({metrics['accuracy_low']:.1%} to {metrics['accuracy_high']:.1%})",
        {"accuracy": metrics["accuracy"]},
    )
    pq.write_table(_predictions(asked, answers, grades), out / "predictions.parquet")
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    (out / "reports").mkdir()
    ran_on = {"engine": engine_name(engine), "device": device, **generation}
    (out / "reports" / "run.json").write_text(json.dumps(ran_on, indent=1) + "\n", encoding="utf-8")
    (out / "probe.json").write_text(json.dumps(_probe(engine, model, prompts[0])) + "\n", encoding="utf-8")


def _answer(
    model: Any,
    tokenizer: Any,
    rows: list[dict[str, Any]],
    prompts: list[list[int]],
    settings: dict[str, Any],
    report: Reporter,
) -> tuple[list[str], dict[str, Any]]:
    """A greedy answer to each row, and how it was made. `prompts`: token ids, of these rows and perhaps of more."""
    longest = max(map(len, prompts[: len(rows)])) + settings["max_new_tokens"]
    start = time.monotonic()
    generator = fast_generator(model, len(rows), longest)
    report(f"answering {len(rows)} rows with the {generator.kind} model", {})
    tokens = generate_tokens(
        generator.model,
        prompts[: len(rows)],
        max_new_tokens=settings["max_new_tokens"],
        pad_token_id=tokenizer.pad_token_id,
        end_tokens=end_tokens(generator.model),
        rows=settings["batch_size"],
        progress=lambda done, total: report(f"answered {done} of {total}", {}),
    )
    seconds, number = time.monotonic() - start, sum(map(len, tokens))
    made = {
        "generation": generator.kind,
        "generated_tokens": number,
        "generated_tokens_per_s": round(number / seconds, 1),  # with the time that merging took
    }
    return answer_texts(tokenizer, tokens), made


def _predictions(rows: list[dict[str, Any]], answers: list[str], grades: list[Grade]) -> pa.Table:
    """row_id, question, gold, prediction, right, and the grade's outcome, boxed and extracted."""
    return pa.Table.from_pylist(
        [
            {
                "row_id": row["row_id"],
                "question": row["question"],
                "gold": row["answer"],
                "prediction": answer,
                "right": result.outcome == "right",
                # how long grading took is no property of the prediction
                **{name: value for name, value in asdict(result).items() if name != "seconds"},
            }
            for row, answer, result in zip(rows, answers, grades, strict=True)
        ],
        schema=pa.schema(
            [
                *((name, pa.string()) for name in ("row_id", "question", "gold", "prediction")),
                ("right", pa.bool_()),
                ("outcome", pa.string()),
                ("boxed", pa.bool_()),
                ("extracted", pa.string()),
            ]
        ),
    )


def _probe(engine: Any, model: Any, prompt: list[int]) -> dict[str, Any]:
    values, tokens = engine.logits(model, torch.tensor(prompt))[-1].topk(PROBE_TOKENS)
    top = [[token, value] for token, value in zip(tokens.tolist(), values.tolist(), strict=True)]
    return {"input_ids": prompt, "top": top}
