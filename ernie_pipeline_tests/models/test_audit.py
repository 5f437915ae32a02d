from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ernie_pipeline.demo import BASE
from ernie_pipeline.models.architecture import skeleton
from ernie_pipeline.models.audit import check_model, expected_table, totals
from ernie_pipeline.models.checkpoint.config import causal_lm_config
from ernie_pipeline.models.peft import backend as peft_backend
from ernie_pipeline.recipe.sections import TARGETS, Lora
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.models.conftest import LORA, new_adapted, new_base
from ernie_pipeline_tests.models.grouped.demo import FLAT, adapted_grouped, read_demo


@pytest.fixture(scope="module")
def config() -> Any:
    return causal_lm_config(str(BASE), None)


def refused(model: Any, config: Any, expected: str, *, training: bool = True, lora: Lora = LORA) -> str:
    with pytest.raises(PipelineError, match=expected) as caught:
        check_model(model, config, lora, training=training)
    return str(caught.value)


def test_ernie_21b_gets_the_parameters_that_its_paper_shapes_give() -> None:
    from transformers import Ernie4_5_MoeConfig

    rows = list(expected_table(skeleton(Ernie4_5_MoeConfig()), Lora()).values())
    assert totals(rows)["lora_parameters"] == 355_090_432
    assert totals([row for row in rows if row.part != "routed"])["lora_parameters"] == 15_351_808
    routed = totals([row for row in rows if row.part == "routed"])
    assert routed["modules"] == 27 * 64 * 3  # the first of 28 layers is dense
    assert routed["base_parameters"] == 27 * 64 * 3 * 2560 * 1536


def test_an_adapted_model_passes_for_training_and_frozen_for_use(config: Any) -> None:
    model = new_adapted()
    check_model(model, config, LORA, training=True)
    refused(model, config, "not what the recipe asks for", training=False)
    check_model(model.requires_grad_(False), config, LORA, training=False)


def test_a_target_left_in_16_bits_is_refused(config: Any) -> None:
    model = new_base()
    expert = model.model.layers[3].mlp.experts[2]
    with torch.no_grad():
        expert.up_proj = nn.Linear(256, 160, bias=False, dtype=torch.bfloat16).requires_grad_(False)
    told = refused(peft_backend.with_adapter(model, LORA, 0), config, "4-bit")
    wanted, found = told.split("found:")
    assert "1,638,400" in next(line for line in wanted.splitlines() if "routed" in line and "up_proj" in line)
    assert "1,597,440" in next(line for line in found.splitlines() if "routed" in line and "up_proj" in line)


def test_shared_experts_without_an_adapter_are_refused(config: Any) -> None:
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(r=4, target_modules=list(TARGETS), exclude_modules=r".*shared_experts.*", task_type="CAUSAL_LM")
    told = refused(get_peft_model(new_base(), lora), config, "each with its adapter").split("found:")[1]
    assert all(line.split()[-2:] == ["0", "0"] for line in told.splitlines() if "shared" in line)


def test_a_trainable_weight_outside_the_targets_is_refused(config: Any) -> None:
    model = new_adapted()
    model.get_submodule("base_model.model.model.norm").weight.requires_grad_(True)
    refused(model, config, r"outside lora\.targets: base_model\.model\.model\.norm\.weight \(1 in all\)")


def test_a_frozen_adapter_weight_is_refused(config: Any) -> None:
    model = new_adapted()
    next(p for n, p in model.named_parameters() if "lora_A" in n).requires_grad_(False)
    refused(model, config, "not what the recipe asks for")


def test_adapter_weights_in_16_bits_are_refused(config: Any) -> None:
    model = new_adapted()
    for name, parameter in model.named_parameters():
        if "layers.4.mlp.experts.7" in name and "lora_" in name:
            parameter.data = parameter.data.bfloat16()
    refused(model, config, r"not float32: .*layers\.4\.mlp\.experts\.7.* \(6 in all\)")


@pytest.mark.parametrize("training", [True, False])
def test_an_adapter_on_more_than_the_targets_is_refused(config: Any, training: bool) -> None:
    model = new_adapted()
    if not training:
        model.requires_grad_(False)
    fewer = Lora(rank=4, alpha=8, targets=tuple(target for target in TARGETS if target != "o_proj"))
    refused(model, config, r"outside lora\.targets: .*o_proj.* \(12 in all\)", training=training, lora=fewer)


@pytest.mark.parametrize("four_bit", [False, True])
def test_pefts_own_path_misses_experts_and_so_fails_the_audit(config: Any, four_bit: bool) -> None:
    """Why the experts are taken apart: transformers, bitsandbytes and PEFT skip them, each in silence."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    how = {"quantization_config": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")} if four_bit else {}
    model = AutoModelForCausalLM.from_pretrained(BASE, **how).requires_grad_(False)
    with pytest.warns(RuntimeWarning, match="did not match"):
        adapted = get_peft_model(model, LoraConfig(r=4, target_modules=list(TARGETS), task_type="CAUSAL_LM"))
    found = refused(adapted, config, "not what the recipe asks for").split("found:")[1]
    assert "routed" not in found
    without_adapter = [line for line in found.splitlines() if "dense" in line or "shared" in line]
    assert len(without_adapter) == 6
    assert all(line.split()[-2:] == ["0", "0"] for line in without_adapter)


# A layer's experts as stacks


@pytest.fixture(scope="module")
def short_config(short_base: Any) -> Any:
    return causal_lm_config(short_base.checkpoint, None)


@pytest.fixture
def new_grouped(quantized_short: Path, short_base: Any) -> Callable[[], Any]:
    """Two layers of the demo, one of them with its experts in stacks."""
    return lambda: read_demo(quantized_short, FLAT, Path(short_base.checkpoint))


@pytest.fixture
def stacks(new_grouped: Callable[[], Any]) -> tuple[Any, Any]:
    """The adapted model and its one module of stacks."""
    model = adapted_grouped(new_grouped())
    return model, model.get_submodule("base_model.model.model.layers.1.mlp.experts")


def test_stacks_are_counted_as_the_experts_that_they_hold(
    stacks: Any, new_grouped: Any, short_config: Any, short_base: Any
) -> None:
    model, _ = stacks
    found = check_model(model, short_config, LORA, training=True)
    apart = new_adapted(checkpoint=Path(short_base.checkpoint))
    assert found == check_model(apart, short_config, LORA, training=True)
    refused(model, short_config, "not what the recipe asks for", training=False)
    check_model(model.requires_grad_(False), short_config, LORA, training=False)
    check_model(new_grouped(), short_config, LORA, adapted=False, training=False)


@pytest.mark.parametrize("fused", ["gate_up_proj", "down_proj"])
def test_a_stack_left_in_16_bits_is_refused(new_grouped: Any, short_config: Any, fused: str) -> None:
    from bitsandbytes.nn import Params4bit

    model = new_grouped()
    experts = model.model.layers[1].mlp.experts
    experts._parameters[fused] = Params4bit(torch.zeros(getattr(experts, fused).quant_state.shape), requires_grad=False)
    told = refused(adapted_grouped(model), short_config, "4-bit").split("found:")[1]
    missing = {line.split()[1] for line in told.splitlines() if "routed" in line and line.split()[4] == "0"}
    assert missing == ({"down_proj"} if fused == "down_proj" else {"gate_proj", "up_proj"})


def test_a_stack_s_target_without_its_adapter_is_refused(stacks: Any, short_config: Any) -> None:
    model, experts = stacks
    del experts.adapter.lora_A["up_proj"], experts.adapter.lora_B["up_proj"]
    told = refused(model, short_config, "each with its adapter").split("found:")[1]
    bare = [line.split()[:2] for line in told.splitlines() if line.split()[-2:] == ["0", "0"]]
    assert bare == [["routed", "up_proj"]]


def test_stacks_that_nobody_gave_an_adapter_are_refused(new_grouped: Any, short_config: Any) -> None:
    model = peft_backend.with_adapter(new_grouped(), LORA, seed=0)
    told = refused(model, short_config, "each with its adapter").split("found:")[1]
    bare = [line.split()[0] for line in told.splitlines() if line.split()[-2:] == ["0", "0"]]
    assert bare == ["routed"] * 3


@pytest.mark.parametrize("which", ["lora_A", "lora_B"])
def test_a_stack_s_frozen_adapter_is_refused(stacks: Any, short_config: Any, which: str) -> None:
    model, experts = stacks
    getattr(experts.adapter, which)["down_proj"].requires_grad_(False)
    refused(model, short_config, "not what the recipe asks for")


def test_a_stack_s_adapter_in_16_bits_is_refused(stacks: Any, short_config: Any) -> None:
    model, experts = stacks
    experts.adapter.lora_B["down_proj"].data = experts.adapter.lora_B["down_proj"].data.half()
    refused(model, short_config, r"not float32: .*layers\.1\.mlp\.experts\.adapter\.lora_B\.down_proj \(1 in all\)")


def test_a_trainable_router_beside_stacks_is_refused(stacks: Any, short_config: Any) -> None:
    model, _ = stacks
    model.get_submodule("base_model.model.model.layers.1.mlp.gate").weight.requires_grad_(True)
    refused(model, short_config, r"outside lora\.targets: .*layers\.1\.mlp\.gate\.weight \(1 in all\)")


def test_a_stack_s_adapter_on_more_than_the_targets_is_refused(new_grouped: Any, short_config: Any) -> None:
    fewer = Lora(rank=4, alpha=8, targets=tuple(target for target in TARGETS if target != "up_proj"))
    model = adapted_grouped(new_grouped(), fewer)
    check_model(model, short_config, fewer, training=True)
    model.get_submodule("base_model.model.model.layers.1.mlp.experts").add_adapter(4, 8, TARGETS)
    refused(model, short_config, r"outside lora\.targets: .*\.adapter\.lora_A\.up_proj.* \(2 in all\)", lora=fewer)
