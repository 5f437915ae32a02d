"""What compiles a training's kernels while a base is quantized: a small model of the same layers."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ernie_pipeline.demo import BASE
from ernie_pipeline.models.checkpoint.config import causal_lm_config
from ernie_pipeline.models.documents import Document
from ernie_pipeline.models.grouped import quantized_base as quantized
from ernie_pipeline.models.grouped.backend import GroupedModel
from ernie_pipeline.models.grouped.compile_kernels import compile_kernels, small_base
from ernie_pipeline.models.grouped.training import GroupedTraining
from ernie_pipeline.models.spec import ModelSpec
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.models.grouped.demo import FLAT, read_demo


def facts_of(model: Any) -> dict[str, tuple[Any, ...]]:
    """What of each parameter chooses a kernel."""
    facts = {}
    for name, parameter in model.named_parameters():
        state = getattr(parameter, "quant_state", None)
        more = state and (state.shape, state.dtype, state.blocksize, state.nested, state.quant_type, len(state.absmax))
        facts[name] = parameter.shape, parameter.dtype, more
    return facts


def test_it_has_a_layer_of_its_base_without_experts_and_one_with_them(quantized_short: Path, short_base: Any) -> None:
    config = causal_lm_config(str(BASE), None)
    base = facts_of(read_demo(quantized_short, FLAT, Path(short_base.checkpoint)))
    assert facts_of(small_base(config, FLAT, "cpu")) == base
    assert config.model_type == "ernie4_5_moe"
    config.moe_layer_start_index = 3
    assert facts_of(small_base(config, FLAT, "cpu")) == base
    config.moe_layer_start_index = 9
    dense = facts_of(small_base(config, FLAT, "cpu"))
    assert dense == {name: facts for name, facts in base.items() if "layers.1." not in name}


def test_it_computes_steps_of_few_rows_and_of_many_and_a_validation(
    short_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = GroupedModel(short_spec, "cpu", small_base(causal_lm_config(str(BASE), None), FLAT, "cpu"))
    model.add_adapter(short_spec.lora, seed=0)
    computed: list[int] = []
    own = GroupedTraining._pass

    def noted(self: GroupedTraining, documents: list[Document], *rest: Any, **more: Any) -> torch.Tensor:
        computed.append(sum(len(each.ids) for each in documents))
        return own(self, documents, *rest, **more)

    monkeypatch.setattr(GroupedTraining, "_pass", noted)
    compile_kernels(model)
    # 96 and 480 rows for each of 8 experts, of which a token has 2
    assert computed == [384, 1920]
    assert all(parameter.grad is not None for parameter in model.trainable().values())
    monkeypatch.setattr(GroupedModel, "loss_sum", None)
    with pytest.raises(TypeError):
        compile_kernels(model)


def make(spec: ModelSpec, folder: Path, meanwhile: Callable[[], Callable[[], None]]) -> Path:
    quantization = spec.quantization.model_dump(mode="json")
    config = causal_lm_config(spec.base.checkpoint, None)
    return quantized.quantized_base(spec.base, config, quantization, folder, "cpu", meanwhile)


def test_another_thread_does_something_only_while_a_base_is_quantized(short_spec: ModelSpec, tmp_path: Path) -> None:
    seen: list[tuple[str, bool]] = []

    def note(what: str) -> None:
        seen.append((what, threading.current_thread() is threading.main_thread()))

    def meanwhile() -> Callable[[], None]:
        note("prepared")
        return lambda: note("done")

    place = make(short_spec, tmp_path, meanwhile)
    assert seen == [("prepared", True), ("done", False)]
    assert make(short_spec, tmp_path, meanwhile) == place
    assert len(seen) == 2


def test_what_fails_meanwhile_is_told_and_the_base_is_kept(short_spec: ModelSpec, tmp_path: Path) -> None:
    def fail() -> None:
        raise PipelineError("no compiler")

    with pytest.raises(PipelineError, match="no compiler"):
        make(short_spec, tmp_path, lambda: fail)
    make(short_spec, tmp_path, lambda: pytest.fail("it was not kept"))
