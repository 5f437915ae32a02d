"""A part of an evaluation's answers, made and kept, where several processes share them."""

from collections.abc import Sequence

from ernie_pipeline.evaluation.job import EvaluationJob
from ernie_pipeline.models import backend_named
from ernie_pipeline.models.backend import Sampling
from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer, token_ids
from ernie_pipeline.models.device import Device
from ernie_pipeline.models.generation.kept import answer_rows, row_key
from ernie_pipeline.store.row_cache import open_rows
from ernie_pipeline.store.row_part import RowPart
from ernie_pipeline.utils.reporter import Reporter


def answer_part(job: EvaluationJob, texts: Sequence[str], part: RowPart, device: Device, report: Reporter) -> None:
    """Answer and keep one part of the prompts `texts`. Who evaluates when all parts are kept finds them."""
    base = job.spec.base
    prompts = token_ids(load_tokenizer(base.checkpoint, base.revision), texts)
    with open_rows(job.rows) as kept:
        own = [prompt for prompt in prompts if part.has(key := row_key(prompt, 0)) and kept.get(key) is None]
        report(f"{part}: {len(own)} rows to answer", {})
        if own:
            answer_rows(
                backend_named(job.spec.backend).load(job.spec, device.name),
                own,
                Sampling(job.evaluation.max_new_tokens),
                kept,
                rows=device.execution.generation_rows,
                progress=lambda done, total: report(f"{part}: answered {done} of {total}", {}),
            )
