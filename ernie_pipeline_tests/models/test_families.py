"""Model families through backend `peft`: those that it trains faithfully, and those that it refuses in one sentence.

The README's list of families is `TRAINED`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ernie_pipeline.models.audit import check_model
from ernie_pipeline.models.checkpoint.config import causal_lm_config
from ernie_pipeline.models.peft import backend as peft_backend
from ernie_pipeline.models.peft.backend import PeftBackend
from ernie_pipeline.models.quantize import quantize_linears
from ernie_pipeline.models.spec import BaseCheckpoint, ModelSpec
from ernie_pipeline.models.weights import dense_weight
from ernie_pipeline.recipe.sections import TARGETS, Lora, Quantization
from ernie_pipeline.utils.errors import PipelineError

SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
HEADS = {"head_dim": 16}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
TRAINED: dict[str, dict[str, Any]] = {
    "ernie4_5_moe": {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 32, "moe_num_shared_experts": 1},
    "ernie4_5": HEADS,
    "llama": {},
    "mistral": HEADS,
    "qwen2": {},
    "qwen3": HEADS,
    "gemma3_text": HEADS,
    "olmo2": {},
    "smollm3": {},
    "mixtral": HEADS | LOCAL,
    "qwen3_moe": HEADS | {"moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "phimoe": LOCAL,  # its router is a class under nn.Linear
    "granitemoe": LOCAL,
}
LATENT = {"num_key_value_heads": 4, "q_lora_rank": 32, "kv_lora_rank": 32, "qk_rope_head_dim": 16} | {
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
}
GROUPS = {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2, "n_shared_experts": 1}
WITH_FEWER_TARGETS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "phi3": ({}, ("o_proj", "down_proj")),
    "glm4": (HEADS, ("q_proj", "k_proj", "v_proj", "o_proj", "down_proj")),
    "starcoder2": ({}, ("q_proj", "k_proj", "v_proj", "o_proj")),
    "phi": ({}, ("q_proj", "k_proj", "v_proj")),
    "deepseek_v3": (LATENT | GROUPS | {"moe_intermediate_size": 32, "first_k_dense_replace": 1}, TARGETS[3:]),
}
OTHER_FORM = "cannot be held in 4 bits faithfully: "
NO_LAYER = "lora.targets names " + ", ".join(TARGETS)
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "gpt_oss": (HEADS | LOCAL, OTHER_FORM + "model.layers.0.mlp.experts.gate_up_proj"),
    "llama4_text": (HEADS | LOCAL, OTHER_FORM + "model.layers.0.feed_forward.experts.gate_up_proj"),
    "aria_text": (HEADS | {"moe_num_experts": 4, "moe_topk": 2}, OTHER_FORM + "model.layers.0.mlp.experts.fc1.weight"),
    "jetmoe": (LOCAL | {"num_key_value_heads": 4, "kv_channels": 16}, OTHER_FORM + "model.layers.0.mlp.input_linear"),
    "gpt2": ({"n_embd": 64, "n_layer": 2, "n_head": 4}, OTHER_FORM + "transformer.h.0.attn.c_attn.weight"),
    "falcon": ({}, OTHER_FORM + "transformer.h.0.self_attention.query_key_value.weight"),
    "gpt_neox": ({}, NO_LAYER),
    "bloom": ({"n_layer": 2, "n_head": 4}, NO_LAYER),
}
IDS = torch.randint(3, 290, (1, 24), generator=torch.Generator().manual_seed(0))
Save = Callable[[str, dict[str, Any]], tuple[Path, Any]]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes a small checkpoint of a family: its folder, and the model in memory."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    def saved(family: str, changes: dict[str, Any]) -> tuple[Path, Any]:
        model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**SHAPE | changes), dtype=torch.float32).eval()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.15 + ("norm" in name))
        model.save_pretrained(tmp_path)
        return tmp_path, model

    return saved


def adapted(folder: Path, lora: Lora) -> Any:
    """The checkpoint in 4 bits with a fresh adapter, audited."""
    quantization = Quantization(compute_dtype="float32", double=False).model_dump(mode="json")
    model = peft_backend.with_adapter(peft_backend.load_base(str(folder), None, quantization, "cpu"), lora, seed=0)
    check_model(model, causal_lm_config(str(folder), None), lora, training=True)
    return model


def dequantized_logits(model: Any, module: Any) -> torch.Tensor:
    """What transformers' own `model` computes with the values that the 4-bit layers of `module` stand for."""
    weights = {
        name.replace(".base_layer", ""): dense_weight(layer)
        for name, layer in module.get_base_model().named_modules()
        if getattr(getattr(layer, "weight", None), "quant_state", None) is not None
    }
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in own.items():
            owner, _, last = name.removesuffix(".weight").rpartition(".")
            if parameter.ndim == 3:
                parts = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}[last]
                for number, stack in enumerate(parameter):
                    stack.copy_(torch.cat([weights.pop(f"{owner}.{number}.{part}") for part in parts]))
            elif name.removesuffix(".weight") in weights and name.endswith(".weight"):
                parameter.copy_(weights.pop(name.removesuffix(".weight")))
        assert not weights
        return model(input_ids=IDS, use_cache=False).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("family", [*TRAINED, *WITH_FEWER_TARGETS])
def test_a_family_is_quantized_adapted_and_trained_faithfully(family: str, save: Save) -> None:
    changes, targets = WITH_FEWER_TARGETS.get(family) or (TRAINED[family], TARGETS)
    folder, model = save(family, changes)
    module = adapted(folder, Lora(rank=4, alpha=8, targets=targets))
    output = module(input_ids=IDS, labels=IDS, use_cache=False)
    torch.testing.assert_close(output.logits, dequantized_logits(model, module), atol=2e-4, rtol=1e-4)
    output.loss.backward()
    missing = [name for name, p in module.named_parameters() if "lora_B" in name and p.grad is None]
    assert all(".experts." in name for name in missing)  # an expert to which no token went
    total = sum(p.grad.abs().sum() for n, p in module.named_parameters() if "lora_B" in n and p.grad is not None)
    assert total > 0


def refusal(folder: Path, lora: Lora) -> str:
    """Why the backend does not load the checkpoint."""
    base = BaseCheckpoint(name=str(folder), checkpoint=str(folder))
    spec = ModelSpec(backend="peft", base=base, quantization=Quantization(compute_dtype="float32"), lora=lora)
    with pytest.raises(PipelineError) as caught:
        PeftBackend().load(spec, "cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("family", REFUSED)
def test_a_family_that_does_not_fit_is_refused_in_one_sentence(family: str, save: Save) -> None:
    changes, reason = REFUSED[family]
    folder, _ = save(family, changes)
    assert reason in refusal(folder, Lora())


@pytest.mark.parametrize("family", WITH_FEWER_TARGETS)
def test_a_target_without_a_layer_is_refused_by_name(family: str, save: Save) -> None:
    changes, targets = WITH_FEWER_TARGETS[family]
    folder, _ = save(family, changes)
    lost = ", ".join(target for target in TARGETS if target not in targets)
    told = refusal(folder, Lora())
    assert f"lora.targets names {lost}, and a model of the type {family} has no such layer" in told
    assert "take it out of lora.targets" in told


def test_a_matrix_that_is_no_target_and_not_in_4_bits_is_found(save: Save) -> None:
    folder, _ = save("phi3", {})
    lora = Lora(rank=4, alpha=8, targets=("o_proj", "down_proj"))
    model = adapted(folder, lora)
    attention = model.get_submodule("base_model.model.model.layers.1.self_attn")
    attention.qkv_proj = torch.nn.Linear(64, 128, bias=False)
    attention.qkv_proj.requires_grad_(False)
    with pytest.raises(PipelineError, match=r"1 matrices .* among them .*layers\.1\.self_attn\.qkv_proj\.weight"):
        check_model(model, causal_lm_config(str(folder), None), lora, training=True)


def test_a_matrix_that_was_lost_is_missed(save: Save) -> None:
    folder, _ = save("phi3", {})
    lora = Lora(rank=4, alpha=8, targets=("o_proj", "down_proj"))
    model = adapted(folder, lora)
    del model.get_submodule("base_model.model.model.layers.1.self_attn").qkv_proj
    with pytest.raises(PipelineError, match=r"holds matrices of .* values, and its configuration says"):
        check_model(model, causal_lm_config(str(folder), None), lora, training=True)


def test_a_class_under_a_linear_layer_is_left_as_it_is() -> None:
    class Own(torch.nn.Linear):
        pass

    class TwoKinds(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain, self.own = torch.nn.Linear(64, 8), Own(64, 8)

        def get_output_embeddings(self) -> None:
            return None

    model = TwoKinds()
    quantization = {"type": "nf4", "double": False, "compute_dtype": "float32"}
    assert quantize_linears(model, quantization, torch.device("cpu")) == 1
    assert type(model.own) is Own
    assert model.own.weight.dtype == torch.float32
