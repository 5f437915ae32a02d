"""A model's tensors as vLLM is to load them: merged as `merged.merge` has them, by the names that a checkpoint has."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ernie_pipeline.models.generation.merged import base_model, skeleton
from ernie_pipeline.models.weights import dense_weight, is_linear
from ernie_pipeline.utils.errors import PipelineError


@torch.no_grad()
def checkpoint_tensors(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and tensor of each weight that a backend's `model` applies, module by module, where `model` is.

    transformers may hold a checkpoint's tensors under other names and together (a layer's experts): its own table,
    turned round, says what they are called outside. A tied output layer is left out. Raises `PipelineError` for a part
    that cannot be merged.
    """
    from transformers.core_model_loading import revert_weight_conversion

    base = base_model(model)
    outside = skeleton(base)
    output = outside.get_output_embeddings() if base.config.get_text_config().tie_word_embeddings else None
    for path, own in _merged(outside, base, "", output):
        yield from revert_weight_conversion(outside, {f"{path}{name}": tensor for name, tensor in own.items()}).items()


Own = tuple[str, dict[str, torch.Tensor]]
"""A module's path, with a dot at its end, and its parameters by name."""


def _merged(target: nn.Module, twin: Any, path: str, left_out: nn.Module | None) -> Iterator[Own]:
    """Each module of `twin`, merged; `target`, its like on the meta device, says which there are."""
    if target is left_out:
        return
    if twin is None:
        raise PipelineError(f"{path.rstrip('.')} is missing in the model in memory: it cannot be handed to vLLM")
    if hasattr(twin, "dense"):
        yield path, dict(zip(("gate_up_proj", "down_proj"), twin.dense(), strict=True))
        return
    if isinstance(target, nn.Linear) and is_linear(twin):
        bias = getattr(twin, "base_layer", twin).bias
        yield path, {"weight": dense_weight(twin), **({} if bias is None else {"bias": bias.detach()})}
        return
    held = {**target._parameters, **_persistent(target)}
    if own := {name: getattr(twin, name).detach() for name, value in held.items() if value is not None}:
        yield path, own
    for name, child in target.named_children():
        yield from _merged(child, getattr(twin, name, None), f"{path}{name}.", left_out)


def _persistent(module: nn.Module) -> dict[str, torch.Tensor | None]:
    return {k: v for k, v in module._buffers.items() if k not in module._non_persistent_buffers_set}
