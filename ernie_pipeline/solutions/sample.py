"""A round's attempts: those that are kept already, and the others from the model, which is loaded only for them."""

import time
from collections.abc import Sequence
from typing import NamedTuple

from ernie_pipeline.models import backend_named
from ernie_pipeline.models.backend import Sampling
from ernie_pipeline.models.checkpoint.context import check_context
from ernie_pipeline.models.checkpoint.ends import checkpoint_end_tokens
from ernie_pipeline.models.checkpoint.tokenizer import Tokenizer, answer_texts, load_tokenizer, token_ids
from ernie_pipeline.models.device import Device
from ernie_pipeline.models.generation.kept import Answered, answer_rows, row_key
from ernie_pipeline.models.generation.vllm.generator import generator_of
from ernie_pipeline.solutions.job import SolutionsJob
from ernie_pipeline.solutions.problems import Problem, seeds_of
from ernie_pipeline.store.row_cache import RowCache, open_rows
from ernie_pipeline.store.row_part import RowPart
from ernie_pipeline.utils.reporter import Reporter

COMPARED = 1000

Prompts = Sequence[list[int]]


class Sampled(NamedTuple):
    """`texts`, `tokens` and `ended` of each attempt, `samples` a problem; `end`: the end token's text; `same_tokens`:
    see `_same_tokens`; `ran_on`: how they were made, and at what cost."""

    texts: list[str]
    tokens: list[list[int]]
    ended: list[bool]
    end: str
    same_tokens: float
    ran_on: dict[str, str | int | float]


def sample(job: SolutionsJob, problems: Sequence[Problem], device: Device, report: Reporter) -> Sampled:
    """`samples` attempts at each problem, those of one problem next to each other. None is made that is kept."""
    base, settings = job.spec.base, job.solutions
    tokenizer, prompts, seeds = _asked(job, problems)
    with open_rows(job.rows) as kept:
        known = [kept.get(row_key(*each)) for each in zip(prompts, seeds, strict=True)]
        per_problem = [known[at : at + settings.samples] for at in range(0, len(known), settings.samples)]
        reused = sum(None not in attempts for attempts in per_problem)
        to_make = known.count(None)
        report(
            f"problems sampled {len(problems) - reused}, reused {reused}: {to_make} attempts to make, "
            f"{len(known) - to_make} kept",
            {},
        )
        if reused == len(problems):
            made, cost = Answered([tokens or [] for tokens in known], 0, len(known), 0, "kept answers"), _Cost()
        else:
            made, cost = _from_the_model(job, prompts, seeds, device, kept, report)
    texts, ends = answer_texts(tokenizer, made.tokens), checkpoint_end_tokens(tokenizer, base)
    return Sampled(
        texts=texts,
        tokens=made.tokens,
        ended=[bool(tokens) and tokens[-1] in ends for tokens in made.tokens],
        end=tokenizer.eos_token,
        same_tokens=_same_tokens(tokenizer, texts, made.tokens),
        ran_on={
            "generation": made.how,
            "problems_sampled": len(problems) - reused,
            "problems_reused": reused,
            "attempts_sampled": made.sampled,
            "attempts_reused": made.reused,
            "generated_tokens": made.generated,
            "generated_tokens_per_s": round(made.generated / cost.sampling, 1) if made.generated else 0.0,
            "loading_seconds": round(cost.loading, 1),
            "sampling_seconds": round(cost.sampling, 1),
            "gpu_seconds": round(cost.loading + cost.sampling, 1) if device.name != "cpu" else 0.0,
        },
    )


def sample_part(
    job: SolutionsJob, problems: Sequence[Problem], part: RowPart, device: Device, report: Reporter
) -> None:
    """Make and keep the attempts of one part of `sample`'s rows. Who samples when all parts are kept finds them."""
    _, prompts, seeds = _asked(job, problems)
    with open_rows(job.rows) as kept:
        keys = map(row_key, prompts, seeds)
        own = [i for i, key in enumerate(keys) if part.has(key) and kept.get(key) is None]
        report(f"{part}: {len(own)} attempts to make", {})
        if own:
            _from_the_model(job, [prompts[i] for i in own], [seeds[i] for i in own], device, kept, report)


def _asked(job: SolutionsJob, problems: Sequence[Problem]) -> tuple[Tokenizer, Prompts, list[int]]:
    """The tokenizer, and each attempt's prompt and seed, those of one problem next to each other."""
    settings = job.solutions
    tokenizer = load_tokenizer(job.spec.base.checkpoint, job.spec.base.revision)
    own = token_ids(tokenizer, [problem.prompt_text for problem in problems])
    base, limit = job.spec.base, settings.max_new_tokens
    check_context(base.checkpoint, base.revision, own, limit, "solutions.max_new_tokens")
    prompts = [prompt for prompt in own for _ in range(settings.samples)]
    return tokenizer, prompts, seeds_of(problems, settings.samples, settings.seed, settings.rounds)


class _Cost(NamedTuple):
    """Seconds; those of sampling with the time that merging the weights took."""

    loading: float = 0.0
    sampling: float = 0.0


def _from_the_model(
    job: SolutionsJob, prompts: Prompts, seeds: Sequence[int], device: Device, kept: RowCache, report: Reporter
) -> tuple[Answered, _Cost]:
    spec, settings = job.spec, job.solutions
    start = time.monotonic()
    report(f"loading {spec.base.name}" + (" and the adapter of the round before" if spec.adapter else ""), {})
    loaded = backend_named(spec.backend).load(spec, device.name)
    ready = time.monotonic()
    made = answer_rows(
        generator_of(loaded, device.execution),
        prompts,
        Sampling(settings.max_new_tokens, settings.temperature, settings.top_p),
        kept,
        rows=device.execution.generation_rows,
        seeds=seeds,
        progress=lambda done, total: report(f"made {done} of {total} attempts", {}),
    )
    return made, _Cost(ready - start, time.monotonic() - ready)


def _same_tokens(tokenizer: Tokenizer, texts: Sequence[str], tokens: Prompts) -> float:
    """The share of attempts whose text, which is what is trained on, gives the very tokens again that were drawn.

    Of the first `COMPARED` that ended by the tokenizer's end token.
    """
    ended = [i for i, own in enumerate(tokens) if own and own[-1] == tokenizer.eos_token_id][:COMPARED]
    again = token_ids(tokenizer, [texts[i] + tokenizer.eos_token for i in ended]) if ended else []
    return sum(tokens[i] == own for i, own in zip(ended, again, strict=True)) / max(1, len(ended))
