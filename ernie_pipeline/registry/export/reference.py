"""What an export has to compute, by two ways that share no code with its loader.

`measured`: the model as it was trained, evaluated and registered, 4-bit with its adapter. `dense`: transformers' model
of the base, each weight replaced by the sum of base and adapter in fp32, onto the quantized base or the original.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ernie_pipeline.models import backend_named
from ernie_pipeline.models.architecture import FUSED_PROJECTIONS
from ernie_pipeline.models.backend import LoadedModel, Sampling
from ernie_pipeline.models.checkpoint.config import causal_lm_config
from ernie_pipeline.models.spec import ModelSpec
from ernie_pipeline.registry.export.adapter import Adapter
from ernie_pipeline.registry.export.base import BaseWeights
from ernie_pipeline.registry.export.load_plain import Computed
from ernie_pipeline.registry.export.merge import Onto, Plan, merged
from ernie_pipeline.utils.errors import PipelineError

Prompts = Sequence[Sequence[int]]


def load_measured(spec: ModelSpec) -> LoadedModel:
    """The model with its adapter, on CUDA where there is one. Raises `PipelineError` where it cannot be had."""
    cuda = torch.cuda.is_available()
    # as in served_model.py: grouped and peft load each other's adapters
    backend = "peft" if spec.backend == "grouped" and not cuda else spec.backend
    if backend == "unsloth" and not cuda:
        raise PipelineError("an adapter that Unsloth trained can only be loaded as it was measured on a CUDA device")
    return backend_named(backend).load(spec.model_copy(update={"backend": backend}), "cuda" if cuda else "cpu")


def ask(model: LoadedModel, prompts: Prompts, max_new_tokens: int) -> Computed:
    """Its logits and greedy answers."""
    answers = [model.generate([prompt], Sampling(max_new_tokens), rows=1).tokens[0] for prompt in prompts]
    return Computed([model.logits(prompt) for prompt in prompts], answers)


class Dense:
    """Transformers' model of a base in `dtype` on the CPU, to be filled with the sums of base and adapter."""

    def __init__(self, spec: ModelSpec, plan: Plan, base: BaseWeights, adapter: Adapter, dtype: torch.dtype):
        from transformers import AutoModelForCausalLM

        self.spec, self.plan, self.base, self.adapter = spec, plan, base, adapter
        checkpoint = spec.base.checkpoint
        config = causal_lm_config(checkpoint, spec.base.revision)
        self.model: Any = AutoModelForCausalLM.from_pretrained(
            checkpoint, revision=spec.base.revision, dtype=dtype, config=config
        ).eval()

    def onto(self, onto: Onto) -> "Dense":
        """With the sums of the adapter and that base."""
        return self.fill(merged(self.plan, self.base, self.adapter, self.spec, onto))

    @torch.no_grad()
    def fill(self, weights: Iterator[tuple[str, torch.Tensor]]) -> "Dense":
        """With these weights, by the names of the checkpoint."""
        places = _places(self.plan, dict(self.model.named_parameters()))
        for name, value in weights:
            if name in places:
                places[name].copy_(value.view(places[name].shape))
        return self

    @torch.no_grad()
    def logits(self, prompts: Prompts) -> list[torch.Tensor]:
        """The logits [tokens, vocabulary] of each prompt, in fp32."""
        return [self.model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0].float() for ids in prompts]

    def answers(self, prompts: Prompts, end_tokens: Sequence[int], pad_token: int, limit: int) -> list[list[int]]:
        """Its greedy answers' tokens, `limit` at most."""
        made = []
        for prompt in prompts:
            ids = torch.tensor([list(prompt)])
            tokens = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_length=None,
                max_new_tokens=limit,
                eos_token_id=list(end_tokens),
                pad_token_id=pad_token,
            )
            made.append(tokens[0, len(prompt) :].tolist())
        return made


def _places(plan: Plan, parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Where in the model's parameters each weight of the checkpoint lies."""
    renamed = {name: name.replace(".mlp.moe_statics.", ".mlp.gate.moe_statics.") for name in plan.others}
    places = {name: parameters[own] for name, own in renamed.items() if own in parameters}
    for unit in plan.units:
        parameter = parameters[unit.parameter]
        if len(unit.weights) == 1:
            places[unit.weights[0]] = parameter
            continue
        parts = len(FUSED_PROJECTIONS[unit.parameter.rpartition(".")[2]])
        pieces = [piece for expert in parameter for piece in expert.chunk(parts)]
        places |= dict(zip(unit.weights, pieces, strict=True))
    return places
