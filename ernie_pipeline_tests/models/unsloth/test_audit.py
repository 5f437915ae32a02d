"""The table of Unsloth's form, on the same form made by PEFT and bitsandbytes alone: its package needs a GPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from ernie_pipeline.models.audit import TargetCount, totals
from ernie_pipeline.models.checkpoint.config import causal_lm_config
from ernie_pipeline.models.unsloth.audit import check_unsloth_model, expected_table
from ernie_pipeline.recipe.sections import TARGETS, Lora
from ernie_pipeline.utils.errors import PipelineError

LORA = Lora(rank=4, alpha=8)


@pytest.fixture(scope="module")
def config(short_base: Any) -> Any:
    return causal_lm_config(short_base.checkpoint, None)


@pytest.fixture
def make_model(short_base: Any) -> Callable[..., Any]:
    """Two layers of the demo as Unsloth loads them: linear layers and stacks of experts in 4 bits."""

    def make(adapter: bool = True, targets: tuple[str, ...] = TARGETS, quantized: bool = True) -> Any:
        from bitsandbytes.nn import Params4bit
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        from ernie_pipeline.models.quantize import quantize_linears

        model = AutoModelForCausalLM.from_pretrained(short_base.checkpoint)
        quantize_linears(model, {"type": "nf4", "double": True, "compute_dtype": "bfloat16"}, torch.device("cpu"))
        for module in model.modules():
            for name in ("gate_up_proj", "down_proj"):
                stack = module._parameters.get(name)
                if quantized and stack is not None:
                    setattr(module, name, Params4bit(stack.detach(), requires_grad=False, quant_type="nf4").to("cpu"))
        model.requires_grad_(False)
        if not adapter:
            return model
        model.config.model_type = "another"  # Unsloth keeps PEFT from renaming targets by the model's type
        stacks = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"] if "up_proj" in targets else []
        config = LoraConfig(r=LORA.rank, lora_alpha=8, target_modules=list(targets), target_parameters=stacks)
        with stacks_with_shapes():
            adapted = get_peft_model(model, config)
        return adapted.float() if not quantized else adapted

    return make


@contextmanager
def stacks_with_shapes() -> Iterator[None]:
    """PEFT reads a parameter's shape, and a 4-bit one's is its bytes': Unsloth gives it the shape it stands for."""
    from peft.tuners.lora.layer import ParamWrapper

    def of_state(wrapper: Any, module: nn.Module) -> tuple[int, int]:
        parameter = wrapper.get_param()
        state = getattr(parameter, "quant_state", None)
        wrapper.num_experts, inputs, outputs = parameter.shape if state is None else state.shape
        wrapper._param_ndim = 3
        return inputs, outputs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ParamWrapper, "_get_in_out_features", of_state)
        yield


def rows_of(found: list[TargetCount]) -> dict[tuple[str, str], TargetCount]:
    return {(row.part, row.target): row for row in found}


def test_every_target_is_counted_where_it_is(make_model: Callable[..., Any], config: Any) -> None:
    found = check_unsloth_model(make_model(), config, LORA, adapted=True, training=True)
    rows = rows_of(found)
    assert set(rows) == {
        *(("attention", target) for target in TARGETS[:4]),
        *((part, target) for part in ("dense", "shared") for target in TARGETS[4:]),
        ("routed", "gate_up_proj"),
        ("routed", "down_proj"),
    }
    fused = rows["routed", "gate_up_proj"]
    assert fused == TargetCount("routed", "gate_up_proj", 8, 8 * 320 * 256, 8 * 320 * 256, *2 * (8 * 4 * (256 + 320),))
    assert totals(found)["base_parameters"] == totals(found)["four_bit_parameters"]
    assert totals(found)["lora_parameters"] == totals(found)["trainable_parameters"]


def test_the_real_model_gets_what_unsloth_was_measured_to_train() -> None:
    from transformers import Ernie4_5_MoeConfig

    table = expected_table(Ernie4_5_MoeConfig(), TARGETS, 16, training=True)
    assert sum(row.trainable_parameters for row in table.values()) == 284_311_552


def test_the_base_alone_is_4_bit_without_an_adapter(make_model: Callable[..., Any], config: Any) -> None:
    found = check_unsloth_model(make_model(adapter=False), config, LORA, adapted=False, training=False)
    assert totals(found)["lora_parameters"] == 0
    assert totals(found)["four_bit_parameters"] > 0


def broken(model: Any, how: str) -> None:
    for name, module in model.named_modules():
        if how == "frozen" and name.endswith("experts.lora_A.default"):
            module.requires_grad_(False)
        if how == "in 16 bits" and name.endswith("shared_experts.up_proj.lora_B.default"):
            module.bfloat16()
        if how == "trainable" and name.endswith("input_layernorm"):
            module.requires_grad_(True)
        if how == "without a layer" and name.endswith("shared_experts"):
            module.up_proj = module.up_proj.base_layer


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("frozen", "not what the recipe asks for"),
        ("without a layer", "not what the recipe asks for"),
        ("in 16 bits", "not float32"),
        ("trainable", "outside lora.targets: base_model.*input_layernorm"),
    ],
)
def test_what_is_amiss_is_told(make_model: Callable[..., Any], config: Any, how: str, said: str) -> None:
    model = make_model()
    broken(model, how)
    with pytest.raises(PipelineError, match=said):
        check_unsloth_model(model, config, LORA, adapted=True, training=True)


def test_experts_left_in_16_bits_or_without_an_adapter_are_told(make_model: Callable[..., Any], config: Any) -> None:
    with pytest.raises(PipelineError, match="not what the recipe asks for"):
        check_unsloth_model(make_model(quantized=False), config, LORA, adapted=True, training=True)
    with pytest.raises(PipelineError, match="not what the recipe asks for"):
        check_unsloth_model(make_model(targets=TARGETS[:4]), config, LORA, adapted=True, training=True)


def test_half_of_a_fused_stack_is_refused(config: Any) -> None:
    with pytest.raises(PipelineError, match="names only gate_proj"):
        expected_table(config, ("q_proj", "gate_proj"), 4, training=True)


def test_a_target_that_no_layer_has_is_refused() -> None:
    from transformers import Phi3Config

    small = Phi3Config(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, vocab_size=99, pad_token_id=0
    )
    with pytest.raises(PipelineError, match="names q_proj, k_proj, v_proj, gate_proj, up_proj, and"):
        expected_table(small, TARGETS, 4, training=True)


def test_experts_of_an_unknown_form_are_refused(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ernie_pipeline.models.unsloth import audit

    monkeypatch.delitem(audit.STACKS, "gate_up_proj")
    with pytest.raises(PipelineError, match="does not know the form of the experts"):
        expected_table(config, TARGETS, 4, training=True)
