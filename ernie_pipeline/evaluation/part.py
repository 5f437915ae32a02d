"""A part of an evaluation's answers, made and kept, where several processes share them."""

from collections.abc import Callable, Sequence

from ernie_pipeline.evaluation.job import EvaluationJob
from ernie_pipeline.models import backend_named
from ernie_pipeline.models.backend import LoadedModel, Sampling
from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer, token_ids
from ernie_pipeline.models.device import Device
from ernie_pipeline.models.generation.kept import Answered, answer_rows, row_key
from ernie_pipeline.models.generation.vllm.generator import generator_of
from ernie_pipeline.recipe.execution import Execution
from ernie_pipeline.store.row_cache import RowCache, open_rows
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
            loaded = backend_named(job.spec.backend).load(job.spec, device.name)
            answer_kept(loaded, own, job, kept, device.execution, lambda line: report(f"{part}: {line}", {}))


def answer_kept(
    loaded: LoadedModel,
    prompts: Sequence[list[int]],
    job: EvaluationJob,
    kept: RowCache,
    execution: Execution,
    tell: Callable[[str], None],
) -> Answered:
    """The greedy answers to the prompts, by the generator that `execution` names; what is kept is not asked again."""
    return answer_rows(
        generator_of(loaded, execution),
        prompts,
        Sampling(job.evaluation.max_new_tokens),
        kept,
        rows=execution.generation_rows,
        progress=lambda done, total: tell(f"answered {done} of {total}"),
    )
