from pathlib import Path
from typing import Any

import pytest
import torch

from ernie_pipeline.demo import BASE
from ernie_pipeline.models.checkpoint.config import causal_lm_config
from ernie_pipeline.models.generation.decode import decode
from ernie_pipeline.models.generation.fused import FusedExperts
from ernie_pipeline.models.generation.memory_plan import (
    WORKING_BYTES,
    Weights,
    experts_to_leave_quantized,
    row_bytes,
    rows_that_fit,
)
from ernie_pipeline.models.generation.merged import decodable, fast_generator, merge, merged_weights, only_argmax
from ernie_pipeline.models.peft import backend as peft_backend
from ernie_pipeline.models.peft.experts import UnfusedExperts, unfuse_experts
from ernie_pipeline.models.weights import dense_weight
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.models.conftest import LORA, QUANTIZATION, new_adapted, new_base
from ernie_pipeline_tests.models.grouped.demo import FLAT, adapted_grouped, read_demo

GIB = 2**30
ATOL = 1e-4  # logits up to 20 in fp32: the same products, summed in another order
ERNIE_21B = causal_lm_config(str(BASE), None)
ERNIE_21B.update({"num_hidden_layers": 28, "num_attention_heads": 20, "num_key_value_heads": 4, "hidden_size": 2560})


def logits(model: Any, seed: int = 0) -> torch.Tensor:
    ids = torch.randint(3, 768, (3, 33), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def adapted() -> Any:
    return new_adapted()


@pytest.fixture(scope="module")
def merged(adapted: Any) -> Any:
    return merge(adapted)


@pytest.fixture(scope="module")
def in_bfloat16() -> Any:
    quantization = QUANTIZATION | {"compute_dtype": "bfloat16"}
    model = peft_backend.with_adapter(peft_backend.load_base(str(BASE), None, quantization, "cpu"), LORA, seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model.eval()


def test_the_logits_are_those_of_the_4_bit_model_with_its_adapter(adapted: Any, merged: Any) -> None:
    torch.testing.assert_close(logits(merged), logits(adapted), atol=ATOL, rtol=0)


def test_without_an_adapter_they_are_the_base_s_and_others(base: Any, merged: Any) -> None:
    torch.testing.assert_close(logits(merge(base)), logits(base), atol=ATOL, rtol=0)
    assert (logits(merged) - logits(base)).abs().max() > 100 * ATOL


def test_a_switched_off_adapter_is_left_out(adapted: Any, base: Any) -> None:
    with adapted.disable_adapter():
        without = merge(adapted)
    torch.testing.assert_close(logits(without), logits(base), atol=ATOL, rtol=0)


def test_it_is_transformers_own_class_without_4_bit_layers_or_adapters(adapted: Any, merged: Any) -> None:
    from transformers import Ernie4_5_MoeForCausalLM

    assert type(merged) is Ernie4_5_MoeForCausalLM
    assert merged.config.model_type == "ernie4_5_moe"
    assert not [n for n, p in merged.named_parameters() if hasattr(p, "quant_state") or "lora" in n or p.requires_grad]
    assert sum(isinstance(module, FusedExperts) for module in merged.modules()) == 5
    assert decodable(merged)
    assert not decodable(adapted)


def test_the_model_it_came_from_stays_as_it_is_and_shares_what_was_not_packed(adapted: Any) -> None:
    before = logits(adapted)
    first, second = merge(adapted), merge(adapted)
    assert torch.equal(logits(adapted), before)
    assert torch.equal(logits(first), logits(second))
    embeddings = [model.get_input_embeddings().weight.data_ptr() for model in (adapted, first, second)]
    assert len(set(embeddings)) == 1
    assert first.lm_head.weight.data_ptr() == embeddings[0]


def test_in_bfloat16_the_router_stays_in_fp32_and_each_weight_is_rounded_once(in_bfloat16: Any) -> None:
    merged = merge(in_bfloat16)
    layers, sources = merged.model.layers, in_bfloat16.get_base_model().model.layers
    assert {layer.mlp.gate.weight.dtype for layer in layers[1:]} == {torch.float32}
    others = {p.dtype for n, p in merged.named_parameters() if "gate.weight" not in n and "moe_statics" not in n}
    assert others == {torch.bfloat16}
    of_expert = layers[2].mlp.experts.gate_up_proj[3]
    pairs = [
        (layers[0].mlp.down_proj.weight, sources[0].mlp.down_proj),
        (layers[1].mlp.shared_experts.up_proj.weight, sources[1].mlp.shared_experts.up_proj),
        (of_expert[:160], sources[2].mlp.experts[3].gate_proj),
        (of_expert[160:], sources[2].mlp.experts[3].up_proj),
        (layers[2].mlp.experts.down_proj[7], sources[2].mlp.experts[7].down_proj),
    ]
    for weight, source in pairs:
        wanted = dense_weight(source.base_layer).float() + source.get_delta_weight("default").float()
        assert torch.equal(weight, wanted.to(torch.bfloat16))


def test_fused_experts_give_what_the_taken_apart_ones_give() -> None:
    from transformers import AutoModelForCausalLM

    fused = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    own = fused.model.layers[1].mlp.experts
    gate_up, down = own.gate_up_proj.detach().clone(), own.down_proj.detach().clone()
    unfuse_experts(fused)
    apart: UnfusedExperts = fused.model.layers[1].mlp.experts
    for wanted, got in zip((gate_up, down), apart.dense(), strict=True):
        assert torch.equal(got, wanted)
    together = FusedExperts(gate_up, down, own.act_fn)
    assert together.dense()[0] is together.gate_up_proj
    generator = torch.Generator().manual_seed(0)
    for tokens in (1, 2, 50):  # some experts get nothing
        hidden = torch.randn(tokens, 256, generator=generator)
        chosen = torch.rand(tokens, 8, generator=generator).topk(2).indices
        weights = torch.rand(tokens, 2, generator=generator)
        torch.testing.assert_close(together(hidden, chosen, weights), apart(hidden, chosen, weights), atol=1e-5, rtol=0)


def test_its_bytes_are_known_before(adapted: Any, merged: Any) -> None:
    weights = {p.data_ptr(): p.numel() * p.element_size() for p in merged.parameters()}
    known = merged_weights(adapted)
    assert known.rest + sum(known.experts.values()) == sum(weights.values())
    assert list(known.experts) == [f"model.layers.{number}.mlp.experts" for number in range(1, 6)]


def test_the_cache_of_the_real_model_takes_56_kib_a_token() -> None:
    assert row_bytes(ERNIE_21B, 256, torch.bfloat16) == 256 * 56 * 2**10
    assert row_bytes(ERNIE_21B, 129, torch.bfloat16) == 256 * 56 * 2**10


@pytest.mark.parametrize(
    ("spare_gib", "rows"), [(-4, 0), (-0.1, 0), (0, 0), (0.2, 5), (14, 400)], ids=lambda value: str(value)
)
def test_as_many_rows_as_the_free_memory_holds_beside_the_work(spare_gib: float, rows: int) -> None:
    a_row = 35 * 2**20  # 640 tokens of the real model
    assert min(400, rows_that_fit(a_row, WORKING_BYTES + int(spare_gib * GIB))) == rows


LAYERS = {f"layer {number}": int(1.5 * GIB) for number in range(1, 28)}
LARGE = Weights(int(3.2 * GIB), LAYERS, capturable=True)
"""About what ERNIE-4.5-21B-A3B's are."""


@pytest.mark.parametrize(
    ("spare_gib", "rows", "mib_a_row", "left"),
    [
        (61, 400, 35, 0),  # 80 GiB less the 4-bit model and the work: everything, and a cache for all
        (23, 400, 35, 23),  # 40 GiB: a cache for all first, since two batches read all the weights twice
        (7, 400, 35, 27),  # 24 GiB: four batches, and no layer to merge
        (3.3, 400, 35, None),  # not eight rows
        (59, 1000, 100, 23),  # two batches and 23 layers to dequantize, where all merged would be seven batches
        (
            60,
            26,
            600,
            0,
        ),  # two batches with all merged, where one with 24 layers to dequantize would take 2.1 times as long
    ],
)
def test_memory_goes_to_the_cache_or_to_merged_experts_whichever_is_faster(
    spare_gib: float, rows: int, mib_a_row: int, left: int | None
) -> None:
    found = experts_to_leave_quantized(
        LARGE, rows=rows, bytes_a_row=mib_a_row * 2**20, free=WORKING_BYTES + int(spare_gib * GIB)
    )
    assert found == (None if left is None else list(LAYERS)[27 - left :])


def test_experts_that_cannot_be_captured_are_merged_all_or_none() -> None:
    apart = LARGE._replace(capturable=False)
    assert experts_to_leave_quantized(apart, rows=400, bytes_a_row=35 * 2**20, free=WORKING_BYTES + 61 * GIB) == []
    assert experts_to_leave_quantized(apart, rows=400, bytes_a_row=35 * 2**20, free=WORKING_BYTES + 23 * GIB) is None


def test_experts_stay_in_4_bits_where_they_are_told_to_and_are_the_model_s_own(
    quantized_short: Path, short_base: Any
) -> None:
    adapted = adapted_grouped(read_demo(quantized_short, FLAT, Path(short_base.checkpoint))).eval()
    known = merged_weights(adapted)
    assert known.capturable
    (quantized,) = known.experts
    merged = merge(adapted, [quantized])
    assert decodable(merged)
    assert merged.get_submodule(quantized) is adapted.get_base_model().get_submodule(quantized)
    assert not hasattr(merged.model.layers[1].self_attn.q_proj, "base_layer")
    torch.testing.assert_close(logits(merged), logits(adapted), atol=ATOL, rtol=0)
    ids = [[5, 9, 20], [7, 30, 31, 32, 33]]
    left, all_merged = (
        decode(model, ids, max_new_tokens=8, end_tokens=[2], rows=2, capture=False).tokens
        for model in (merged, merge(adapted))
    )
    assert left == all_merged


def test_on_a_cpu_the_4_bit_model_generates(adapted: Any) -> None:
    assert fast_generator(adapted, rows=16, length=64) == (adapted, "4-bit")


def test_an_adapter_that_is_no_plain_lora_is_refused() -> None:
    from peft import LoraConfig, get_peft_model

    dora = LoraConfig(r=2, target_modules=["o_proj"], use_dora=True, task_type="CAUSAL_LM")
    with pytest.raises(PipelineError, match="default is no plain LoRA"):
        merge(get_peft_model(new_base(), dora))


def test_a_part_that_is_missing_or_of_another_size_is_named() -> None:
    model = new_base()
    del model.model.layers[1].self_attn
    with pytest.raises(PipelineError, match=r"model\.layers\.1\.self_attn is missing"):
        merge(model)
    model = new_base()
    model.model.layers[1].self_attn.q_proj = torch.nn.Identity()
    with pytest.raises(PipelineError, match=r"self_attn\.q_proj\.weight .* has not the shape \(256, 256\)"):
        merge(model)
    model = new_base()
    model.model.norm.weight = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(PipelineError, match=r"model\.norm\.weight .* has not the shape \(256,\)"):
        merge(model)


@pytest.mark.parametrize(
    ("setting", "neutral"),
    [
        ({}, True),
        ({"do_sample": True, "temperature": 0.8, "top_p": 0.8, "repetition_penalty": 1.0}, True),
        ({"repetition_penalty": 1.1}, False),
        ({"min_new_tokens": 4}, False),
        ({"num_beams": 4}, False),
        ({"suppress_tokens": [5]}, False),
    ],
)
def test_a_checkpoint_that_changes_greedy_answers_is_recognised(setting: dict[str, Any], neutral: bool) -> None:
    from transformers import GenerationConfig

    assert only_argmax(GenerationConfig(**setting)) is neutral
