"""A small checkpoint in the form in which the hub has ERNIE-4.5-21B-A3B-PT.

Per-expert weights, heads for further tokens, router biases that are not zero, shards with an index, a configuration
with `auto_map`, and a SentencePiece tokenizer as transformers converts it, with ERNIE's special tokens and template.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

HIDDEN, DENSE, EXPERT, LAYERS, EXPERTS, SHARED, HEADS, KV_HEADS, VOCABULARY = 128, 256, 64, 3, 4, 2, 4, 2, 768
HEAD = HIDDEN // HEADS
MARKS = ("<unk>", "<s>", "</s>", "<|begin_of_sentence|>", "<|end_of_sentence|>", "<mask:1>", "<mask:4>")
CONFIG = {
    "architectures": ["Ernie4_5_MoeForCausalLM"],
    "auto_map": {"AutoModelForCausalLM": "modeling_ernie4_5_moe.Ernie4_5_MoeForCausalLM"},
    "model_type": "ernie4_5_moe",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "intermediate_size": DENSE,
    "max_position_embeddings": 131072,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "num_hidden_layers": LAYERS,
    "head_dim": HEAD,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "use_bias": False,
    "vocab_size": VOCABULARY,
    "moe_num_experts": EXPERTS,
    "moe_num_shared_experts": SHARED,
    "moe_k": 2,
    "moe_intermediate_size": EXPERT,
    "moe_layer_start_index": 1,
    "moe_layer_end_index": LAYERS - 1,
    "moe_layer_interval": 1,
    "moe_use_aux_free": True,
    "num_nextn_predict_layers": 1,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}
TEMPLATE = (
    "{{ '<|begin_of_sentence|>' }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{{ 'Assistant: ' + message['content'] + '<|end_of_sentence|>' }}{% else %}"
    "{{ 'User: ' + message['content'] + '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)
NAMED = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<unk>",
    "cls_token": "<|begin_of_sentence|>",
    "sep_token": "<|end_of_sentence|>",
    "mask_token": "<mask:1>",
}
Tensors = dict[str, torch.Tensor]


def write_hub_checkpoint(
    folder: Path, *, one_file: bool = False, untied: bool = False, says_tied: bool = False, biases: bool = True
) -> Path:
    """Write the checkpoint into `folder`.

    `one_file`: a `pytorch_model.bin` instead of safetensors shards; `untied`: an output layer of its own;
    `says_tied`: config.json says that there is none; `biases`: with the routers' biases, which some conversions
    leave out.
    """
    tensors = _weights(untied, biases)
    if one_file:
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        _write_shards(folder, tensors)
    _write(folder / "config.json", CONFIG | {"tie_word_embeddings": says_tied or not untied})
    sampling = {"do_sample": True, "top_p": 0.8, "temperature": 0.8, "eos_token_id": 2, "pad_token_id": 0}
    _write(folder / "generation_config.json", sampling)
    _write_tokenizer(folder)
    return folder


def _weights(untied: bool, biases: bool) -> Tensors:
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int, scale: float = 0.1) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) * scale).bfloat16()

    def mlp(place: str, inner: int) -> Tensors:
        shapes = {"gate_proj": (inner, HIDDEN), "up_proj": (inner, HIDDEN), "down_proj": (HIDDEN, inner)}
        return {f"{place}.{name}.weight": random(*shape) for name, shape in shapes.items()}

    def layer(place: str) -> Tensors:
        heads = {"q_proj": HEADS, "k_proj": KV_HEADS, "v_proj": KV_HEADS}
        tensors = {f"{place}.self_attn.{name}.weight": random(n * HEAD, HIDDEN) for name, n in heads.items()}
        norms = {
            f"{place}.{name}.weight": 1 + random(HIDDEN) for name in ("input_layernorm", "post_attention_layernorm")
        }
        return tensors | norms | {f"{place}.self_attn.o_proj.weight": random(HIDDEN, HEADS * HEAD)}

    tensors = {"model.embed_tokens.weight": random(VOCABULARY, HIDDEN, scale=0.3)}
    tensors |= layer("model.layers.0") | mlp("model.layers.0.mlp", DENSE)
    for place in (f"model.layers.{number}" for number in range(1, LAYERS)):
        tensors |= layer(place) | mlp(f"{place}.mlp.shared_experts", EXPERT * SHARED)
        for expert in range(EXPERTS):
            tensors |= mlp(f"{place}.mlp.experts.{expert}", EXPERT)
        tensors[f"{place}.mlp.gate.weight"] = torch.randn(EXPERTS, HIDDEN, generator=generator) * 0.3  # fp32
        if biases:
            bias = torch.randn(1, EXPERTS, generator=generator) * 0.2
            tensors[f"{place}.mlp.moe_statics.e_score_correction_bias"] = bias
    tensors["model.norm.weight"] = 1 + random(HIDDEN)
    tensors |= layer("model.mtp_block.0") | mlp("model.mtp_block.0.mlp", DENSE)  # the head for further tokens
    tensors["model.mtp_linear_proj.0.weight"] = random(HIDDEN, 2 * HIDDEN)
    tensors |= {f"model.mtp_{name}_norm.0.weight": 1 + random(HIDDEN) for name in ("emb", "hidden")}
    return tensors | ({"lm_head.weight": random(VOCABULARY, HIDDEN, scale=0.3)} if untied else {})


def _write_shards(folder: Path, tensors: Tensors) -> None:
    """Three shards that part what belongs together, and their index."""
    from safetensors.torch import save_file

    names, files = list(tensors), dict[str, str]()
    for number in range(3):
        file = f"model-{number + 1:05}-of-00003.safetensors"
        save_file({name: tensors[name] for name in names[number::3]}, folder / file, metadata={"format": "pt"})
        files |= dict.fromkeys(names[number::3], file)
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    _write(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": files})


def _write_tokenizer(folder: Path) -> None:
    """What transformers makes of a SentencePiece BPE with byte fallback and without a space in front."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers

    from ernie_pipeline.demo.problems import demo_rows

    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    initial = [*MARKS, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 40, special_tokens=initial, initial_alphabet=list("▁0123456789"), show_progress=False
    )
    questions = [row["responses_create_params"]["input"][-1]["content"] for row in demo_rows(200, seed=3)]
    tokenizer.train_from_iterator(questions, trainer)
    values = json.loads(tokenizer.to_str())
    values["added_tokens"] = [token for token in values["added_tokens"] if token["content"] in MARKS]  # bytes are none
    (folder / "tokenizer.json").write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
    special = {str(number): vars_of(AddedToken(mark, special=True)) for number, mark in enumerate(MARKS)}
    own = {"tokenizer_class": "LlamaTokenizer", "legacy": True, "add_bos_token": False, "add_prefix_space": False}
    _write(folder / "tokenizer_config.json", own | NAMED | {"added_tokens_decoder": special, "chat_template": TEMPLATE})
    _write(folder / "special_tokens_map.json", NAMED)


def vars_of(token: Any) -> dict[str, Any]:
    """An `AddedToken` as transformers writes it."""
    return {
        name: getattr(token, name) for name in ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    }


def _write(file: Path, values: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
