"""Base and adapter as one GGUF file, for llama.cpp and what is built on it, written by the package `gguf`.

Names, metadata and which tensors stay in fp32 are those of llama.cpp's architecture "ernie4_5-moe" (facts of its
conversion/ernie.py, conversion/base.py and src/models/ernie4-5-moe.cpp). Its rotary embedding of this architecture
turns neighbouring values, as ERNIE's does, so no weight is permuted. llama.cpp itself is not run here.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ernie_pipeline.models.architecture import FUSED_PROJECTIONS
from ernie_pipeline.registry.export.checks import against_measured, ask_measured, fill_dense
from ernie_pipeline.registry.export.gguf_tokenizer import GgufTokenizer, gguf_tokenizer
from ernie_pipeline.registry.export.material import Material
from ernie_pipeline.registry.export.merge import Onto, merged
from ernie_pipeline.registry.export.readme import Report
from ernie_pipeline.utils.errors import PipelineError

MODEL_TYPE = "ernie4_5_moe"
FILE_TYPES = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
"""The names that gguf's `LlamaFileType` has for the types of matrices."""
TOLERANCES = {"f32": 0.01, "f16": 0.05, "bf16": 0.05, "q8_0": 0.1}
"""How far logits may be from those measured (`Distance.share`); a value in q8_0 is off by up to 1/254 of the largest
of its block."""

Entries = Mapping[str, tuple[str, ...]]
"""The weights that make up each tensor of the file, in its order: one, or those of all experts of a layer."""


def write_gguf(material: Material, onto: Onto, kind: str, file: Path) -> None:
    """Write the file, tensor by tensor. `kind`: of its matrices. Raises `PipelineError` for what GGUF cannot hold."""
    gguf, config = _package(), _config(material)
    entries = _entries(gguf, material, config)
    writer = gguf.GGUFWriter(None, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.ERNIE4_5_MOE])
    for key, value in _metadata(gguf, material, config, kind).items():
        getattr(writer, f"add_{key}")(value)
    _add_tokenizer(writer, _tokenizer(material, config))
    for name, weights in entries.items():
        shape = _shape(material, weights)
        own = _kind(gguf, name, shape, kind)
        size = _bytes(gguf, own, shape)
        writer.add_tensor_info(name, size, np.dtype(np.uint8), int(np.prod(size)), raw_dtype=own)
    try:
        writer.write_header_to_file(file)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, values in _tensors(entries, material, onto):
            writer.write_tensor_data(_encoded(gguf, values, _kind(gguf, name, values.shape, kind)))
    finally:
        writer.close()


def _package() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise PipelineError(
            "export gguf needs the package gguf, which is not installed here: pip install ernie_pipeline[export]"
        ) from error
    return gguf


def _config(material: Material) -> Any:
    """The base's. Raises `PipelineError` for a model that llama.cpp's architecture would compute otherwise."""
    from ernie_pipeline.models.checkpoint.config import causal_lm_config

    base = material.source.spec.base
    config = causal_lm_config(base.checkpoint, base.revision)
    if config.model_type != MODEL_TYPE:
        raise PipelineError(
            f"export gguf is for models of the type {MODEL_TYPE}, and {base.name} is a {config.model_type}; export it "
            "merged, and convert it with llama.cpp's own converter"
        )
    last = config.num_hidden_layers - 1
    unlike = {
        f"moe_layer_end_index = {config.moe_layer_end_index}": config.moe_layer_end_index not in (-1, last),
        f"hidden_act = {config.hidden_act!r}": config.hidden_act != "silu",
        "a rope_type other than default": config.rope_parameters.get("rope_type", "default") != "default",
    }
    if found := next((what for what, is_unlike in unlike.items() if is_unlike), ""):
        raise PipelineError(f"base model {base.name} has {found}, which llama.cpp's architecture for it does not have")
    return config


def _tokenizer(material: Material, config: Any) -> GgufTokenizer:
    from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer

    base = material.source.spec.base
    return gguf_tokenizer(load_tokenizer(base.checkpoint, base.revision), config.vocab_size, f"base model {base.name}")


def _metadata(gguf: Any, material: Material, config: Any, kind: str) -> dict[str, Any]:
    """By the names of `GGUFWriter`'s methods, which are those of the keys without the architecture."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    experts = {
        "expert_count": config.moe_num_experts,
        "expert_used_count": config.moe_k,
        "expert_feed_forward_length": config.moe_intermediate_size,
        "interleave_moe_layer_step": config.moe_layer_interval,
        "leading_dense_block_count": config.moe_layer_start_index,
    }
    if shared := config.moe_num_shared_experts:
        experts["expert_shared_count"] = shared
        # llama.cpp's converter writes intermediate_size / num_key_value_heads, which is the same for the 21B alone
        experts["expert_shared_feed_forward_length"] = shared * config.moe_intermediate_size
    return {
        "type": "model",
        "name": material.source.name,
        "file_type": int(gguf.LlamaFileType[FILE_TYPES[kind]]),
        "quantization_version": gguf.GGML_QUANT_VERSION,
        "vocab_size": config.vocab_size,
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "head_count": config.num_attention_heads,
        "head_count_kv": config.num_key_value_heads,
        "key_length": head,
        "value_length": head,
        "rope_dimension_count": head,
        "rope_freq_base": float(config.rope_parameters["rope_theta"]),
        "layer_norm_rms_eps": float(config.rms_norm_eps),
        **experts,
    }


def _add_tokenizer(writer: Any, tokenizer: GgufTokenizer) -> None:
    writer.add_tokenizer_model(tokenizer.model)
    writer.add_tokenizer_pre(tokenizer.pre)
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_types(tokenizer.types)
    if tokenizer.model == "llama":
        writer.add_token_scores(tokenizer.scores)
        writer.add_add_space_prefix(tokenizer.add_space_prefix)
    else:
        writer.add_token_merges(tokenizer.merges)
    for name, number in tokenizer.ids.items():
        getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(tokenizer.add_bos)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _entries(gguf: Any, material: Material, config: Any) -> Entries:
    """In the order in which `merged` makes them. Raises `PipelineError` for a weight that llama.cpp has no name for."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.ERNIE4_5_MOE, config.num_hidden_layers)
    entries: dict[str, tuple[str, ...]] = {}

    def add(weight: str, weights: tuple[str, ...]) -> None:
        name = names.get_name(weight.replace("_correction_bias", "_correction.bias"), try_suffixes=(".weight", ".bias"))
        if name is None:
            raise PipelineError(f"llama.cpp has no name for {weight} of the base model, so there is no GGUF of it")
        entries[name] = weights

    for name in material.plan.others:
        add(name, (name,))
    for unit in material.plan.units:
        experts, _, last = unit.parameter.rpartition(".")
        if last not in FUSED_PROJECTIONS:
            add(unit.parameter, unit.weights)
            continue
        for target in FUSED_PROJECTIONS[last]:
            own = tuple(weight for weight in unit.weights if weight.endswith(f".{target}.weight"))
            add(f"{experts}.{target}.weight", own)
    return entries


def _tensors(entries: Entries, material: Material, onto: Onto) -> Iterator[tuple[str, np.ndarray]]:
    """(name in the file, fp32 values), no more of them in memory than a layer's stack of gate and up."""
    place = {weight: name for name, weights in entries.items() for weight in weights}
    held: dict[str, dict[str, torch.Tensor]] = {}
    for weight, value in merged(material.plan, material.base, material.adapter, material.source.spec, onto):
        name = place[weight]
        held.setdefault(name, {})[weight] = value.float()
        if len(held[name]) == len(entries[name]):
            own = held.pop(name)
            parts = [own.pop(each) for each in entries[name]]
            yield name, _squeezed(torch.stack(parts) if len(parts) > 1 else parts[0]).numpy()


def _squeezed(value: torch.Tensor) -> torch.Tensor:
    """A router's bias [1, experts] as [experts]."""
    return value[0] if value.ndim == 2 and value.shape[0] == 1 else value


def _shape(material: Material, weights: tuple[str, ...]) -> tuple[int, ...]:
    shape = material.base.shapes[weights[0]]
    if len(weights) > 1:
        return (len(weights), *shape)
    return shape[1:] if len(shape) == 2 and shape[0] == 1 else shape


def _kind(gguf: Any, name: str, shape: tuple[int, ...], kind: str) -> Any:
    """The type of a tensor: vectors, norms and routers stay in fp32, and what q8_0 cannot cut into blocks is f16."""
    types = gguf.GGMLQuantizationType
    if len(shape) == 1 or "ffn_gate_inp" in name or not name.endswith(".weight"):
        return types.F32
    wanted = types[kind.upper()]
    block, _ = gguf.GGML_QUANT_SIZES[wanted]
    return wanted if shape[-1] % block == 0 else types.F16


def _bytes(gguf: Any, kind: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in bytes."""
    return tuple(gguf.quant_shape_to_byte_shape(shape, kind))


def _encoded(gguf: Any, values: np.ndarray, kind: Any) -> np.ndarray:
    return np.ascontiguousarray(gguf.quants.quantize(values, kind)).view(np.uint8)


def check_gguf(material: Material, onto: Onto, kind: str, file: Path) -> Report:
    """Read the file back: each tensor against base plus adapter, metadata against the configuration, then the logits.

    Raises `PipelineError` where something differs.
    """
    gguf, config = _package(), _config(material)
    reader = gguf.GGUFReader(file)
    entries = _entries(gguf, material, config)
    found = {tensor.name: tensor for tensor in reader.tensors}
    if found.keys() != entries.keys():
        lost = sorted(found.keys() ^ entries.keys())
        raise PipelineError(f"{file.name}, read back, has other tensors than the model, among them {lost[0]}")
    for name, values in _tensors(entries, material, onto):
        _check_tensor(gguf, name, values, found[name])
    fields = _check_metadata(gguf, material, config, kind, reader)
    measured = ask_measured(material)
    computed = fill_dense(material, _weights(gguf, entries, found))
    figures: dict[str, float | int | str] = {
        "tensors": len(found),
        "fields": fields,
        **against_measured(measured, computed),
    }
    apart = float(figures.get("measured_logits_differ_share", 0))
    if onto == "quantized" and not apart <= TOLERANCES[kind]:
        raise PipelineError(
            f"with the weights of {file.name} the logits differ by {apart:.2%} from those measured, tolerated "
            f"are {TOLERANCES[kind]:.0%}"
        )
    return Report(True, _sentences(figures, onto, kind), figures)


def _sentences(figures: Mapping[str, float | int | str], onto: Onto, kind: str) -> list[str]:
    sentences = [
        f"Read back by gguf's reader: all {figures['tensors']} tensors are base (the {onto} one) plus adapter, rounded "
        f"to {kind}, and all {figures['fields']} fields are as the configuration and the tokenizer say.",
        "llama.cpp was NOT run: it is not part of this package.",
    ]
    if "measured_logits_differ" in figures:
        sentences.append(
            f"With the file's weights in transformers' model, the logits differ by up to "
            f"{figures['measured_logits_differ']:.2g} ({figures['measured_logits_differ_share']:.2%}) from those "
            f"measured; {figures['answers_alike']} of {figures['answers']} greedy answers are the same."
        )
    return sentences


def _decoded(gguf: Any, tensor: Any) -> np.ndarray:
    """The values in fp32, in the order of axes that NumPy has."""
    shape = tuple(int(size) for size in reversed(tensor.shape))
    return np.asarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32).reshape(shape)


def _check_tensor(gguf: Any, name: str, values: np.ndarray, tensor: Any) -> None:
    types, read = gguf.GGMLQuantizationType, _decoded(gguf, tensor)
    dtypes = {types.F32: torch.float32, types.F16: torch.float16, types.BF16: torch.bfloat16}
    if dtype := dtypes.get(tensor.tensor_type):
        right = np.array_equal(read, torch.from_numpy(values).to(dtype).float().numpy())
    else:  # q8_0: blocks of 32 values, each a multiple of its largest / 127, the step itself in f16
        blocks, apart = values.reshape(-1, 32), (read - values).reshape(-1, 32)
        step = np.abs(blocks).max(axis=1, keepdims=True) / 127
        right = bool((np.abs(apart) <= 0.5 * step + 127 * step * 2.0**-11 + 1e-7).all())
    if read.shape != values.shape or not right:
        raise PipelineError(f"{name}, read back, is not base plus adapter in {tensor.tensor_type.name}")


def _check_metadata(gguf: Any, material: Material, config: Any, kind: str, reader: Any) -> int:
    """How many fields there are; each that was meant is there, and says what it should."""
    arch = gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.ERNIE4_5_MOE]
    wanted = _metadata(gguf, material, config, kind)
    tokenizer = _tokenizer(material, config)
    by_key = {key.rpartition(".")[2]: field for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    renamed = {"layer_norm_rms_eps": "layer_norm_rms_epsilon", "rope_dimension_count": "dimension_count"}
    renamed |= {"rope_freq_base": "freq_base"}
    for key, value in wanted.items():
        field = by_key.get(renamed.get(key, key))
        said = None if field is None else field.contents()
        if said != (np.float32(value) if isinstance(value, float) else value):
            raise PipelineError(f"the file's field {key}, read back, is {said!r}, and should be {value!r}")
    if reader.fields["general.architecture"].contents() != arch:
        raise PipelineError(f"the file's architecture, read back, is not {arch}")
    read = by_key["tokens"].contents(), by_key["token_type"].contents()
    if read != (list(tokenizer.tokens), list(tokenizer.types)):
        raise PipelineError("the file's tokens, read back, are not the tokenizer's")
    return len(by_key)


def _weights(gguf: Any, entries: Entries, found: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """(name in the checkpoint, values) of the file's tensors."""
    for name, weights in entries.items():
        values = torch.from_numpy(_decoded(gguf, found[name]).copy())  # the file is mapped, for reading only
        yield from zip(weights, values if len(weights) > 1 else [values], strict=True)
