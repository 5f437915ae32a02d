"""What an export has to compute, by two ways that share no code with its loader.

`measured`: the model as it was trained, evaluated and registered, 4-bit with its adapter. `dense`: transformers' model
of the base, each weight replaced by the sum of base and adapter in fp32, onto the quantized base or the original.
"""

from collections.abc import Sequence
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

    @torch.no_grad()
    def logits(self, prompts: Prompts, onto: Onto) -> list[torch.Tensor]:
        """The logits [tokens, vocabulary] of each prompt, in fp32, with the adapter `onto` that base."""
        parameters = dict(self.model.named_parameters())
        places = _places(self.plan, parameters)
        for name, value in merged(self.plan, self.base, self.adapter, self.spec, onto):
            if name in places:
                places[name].copy_(value)
        return [self.model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0].float() for ids in prompts]


def _places(plan: Plan, parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Where in the model's parameters each weight of the units lies."""
    places: dict[str, torch.Tensor] = {}
    for unit in plan.units:
        parameter = parameters[unit.parameter]
        if len(unit.weights) == 1:
            places[unit.weights[0]] = parameter
            continue
        parts = len(FUSED_PROJECTIONS[unit.parameter.rpartition(".")[2]])
        pieces = [piece for expert in parameter for piece in expert.chunk(parts)]
        places |= dict(zip(unit.weights, pieces, strict=True))
    return places
