"""All that an export is made from, read and held against one another before anything is written."""

from contextlib import ExitStack
from dataclasses import dataclass

from ernie_pipeline.registry.export.adapter import Adapter, read_adapter
from ernie_pipeline.registry.export.base import BaseWeights
from ernie_pipeline.registry.export.merge import Plan, make_plan
from ernie_pipeline.registry.export.source import Source
from ernie_pipeline.utils.errors import PipelineError

QUESTIONS = ("Compute 12 + 30.", "What is 7 * 8 - 5?", "Solve for x: 3x + 4 = 19.")
MAX_NEW_TOKENS = 24


@dataclass(frozen=True)
class Probe:
    """Prompts as token ids, and what ends and pads an answer."""

    prompts: tuple[tuple[int, ...], ...]
    end_tokens: tuple[int, ...]
    pad_token: int
    max_new_tokens: int


def make_probe(source: Source) -> Probe:
    """A few questions in the model's chat template, as it was trained."""
    from transformers import GenerationConfig

    from ernie_pipeline.models.checkpoint.tokenizer import end_tokens, load_tokenizer, prompt_text, token_ids

    base = source.spec.base
    tokenizer = load_tokenizer(base.checkpoint, base.revision)
    try:
        generation = GenerationConfig.from_pretrained(base.checkpoint, revision=base.revision)
    except OSError:
        generation = GenerationConfig()
    texts = [
        prompt_text(tokenizer, [{"role": "user", "content": source.instruction + question}]) for question in QUESTIONS
    ]
    ids = token_ids(tokenizer, texts)
    return Probe(
        tuple(tuple(prompt) for prompt in ids),
        tuple(end_tokens(tokenizer, generation)),
        tokenizer.pad_token_id,
        min(MAX_NEW_TOKENS, source.max_new_tokens),
    )


@dataclass(frozen=True)
class Material:
    """All that an export is made from."""

    source: Source
    adapter: Adapter
    base: BaseWeights
    plan: Plan
    probe: Probe


def make_material(source: Source, stack: ExitStack) -> Material:
    """Read and held against one another; `stack` closes the files. Raises `PipelineError`."""
    from ernie_pipeline.models.checkpoint.config import full_precision_config

    spec = source.spec
    assert spec.adapter, "a source has an adapter"
    adapter = read_adapter(spec.adapter)
    config = full_precision_config(spec.base.checkpoint, spec.base.revision)
    base = stack.enter_context(BaseWeights(spec.base))
    plan = make_plan(config, base)
    adapter.check_fits(base.shapes, plan.targets(spec.lora.targets), spec.base.name)
    if (adapter.rank, adapter.alpha) != (spec.lora.rank, spec.lora.alpha):
        raise PipelineError(
            f"adapter {adapter.folder} has rank {adapter.rank} and alpha {adapter.alpha:g}, and its record says "
            f"{spec.lora.rank} and {spec.lora.alpha:g}; register it again"
        )
    return Material(source, adapter, base, plan, make_probe(source))
