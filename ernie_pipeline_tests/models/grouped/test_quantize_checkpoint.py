"""Every form in which a checkpoint may come: it becomes what bitsandbytes makes of what transformers loads.

The forms are those of the hub's ERNIE-4.5 checkpoints (per-expert keys, heads for further tokens, shards) and what
transformers writes itself.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ernie_pipeline.models.checkpoint.config import causal_lm_config
from ernie_pipeline.models.grouped.quantize_checkpoint import INDEX, ONE_FILE, OUTPUT, quantize_checkpoint
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.models.grouped.demo import quantize_demo, quantized_by_bitsandbytes, read_demo

BF16 = {"type": "nf4", "double": True, "compute_dtype": "bfloat16"}
BIAS = "model.layers.1.mlp.moe_statics.e_score_correction_bias"
GATE = "model.layers.1.mlp.gate.weight"
EMBEDDINGS = "model.embed_tokens.weight"
COMMIT = "0123456789abcdef0123456789abcdef01234567"

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def weights(short_base: Any) -> Tensors:
    """The short base's, but for a router in fp32 whose biases are not zero, as on the hub."""
    tensors = load_file(Path(short_base.checkpoint) / ONE_FILE)
    bias = torch.linspace(-0.2, 0.2, tensors[BIAS].numel()).view(tensors[BIAS].shape)
    return tensors | {BIAS: bias, GATE: tensors[GATE].float() + 1e-4}


@pytest.fixture
def checkpoint(short_base: Any, tmp_path: Path) -> Path:
    """The short base without its weights."""
    return Path(shutil.copytree(short_base.checkpoint, tmp_path / "a_base", ignore=lambda *_: [ONE_FILE]))


def as_on_the_hub(checkpoint: Path, weights: Tensors) -> None:
    """Shards that part what belongs together, an index, and a head for further tokens."""
    tensors = weights | {
        "model.mtp_linear_proj.0.weight": torch.ones(2, 2),
        "model.mtp_emb_norm.0.weight": torch.ones(2),
    }
    names = sorted(tensors)
    shards = {f"model-0000{n + 1}-of-00003.safetensors": names[n::3] for n in range(3)}
    for shard, own in shards.items():
        save_file({name: tensors[name] for name in own}, checkpoint / shard, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: shard for shard, own in shards.items() for name in own}}
    (checkpoint / INDEX).write_text(json.dumps(index))


def in_one_file(checkpoint: Path, weights: Tensors) -> None:
    save_file(weights, checkpoint / ONE_FILE, metadata={"format": "pt"})


def in_float32(checkpoint: Path, weights: Tensors) -> None:
    generator = torch.Generator().manual_seed(0)  # values that bf16 has not
    wide = {name: w.float() * (1 + 1e-3 * torch.rand(w.shape, generator=generator)) for name, w in weights.items()}
    in_one_file(checkpoint, wide)


def in_float16(checkpoint: Path, weights: Tensors) -> None:
    in_one_file(checkpoint, {name: w if name in (BIAS, GATE) else w.half() for name, w in weights.items()})


def with_a_copy_of_the_embeddings(checkpoint: Path, weights: Tensors) -> None:
    in_one_file(checkpoint, weights | {OUTPUT: weights[EMBEDDINGS].clone()})


def with_another_output_layer(checkpoint: Path, weights: Tensors) -> None:
    in_one_file(checkpoint, weights | {OUTPUT: weights[EMBEDDINGS].flip(0).contiguous()})


def not_tied(checkpoint: Path, weights: Tensors) -> None:
    with_another_output_layer(checkpoint, weights)
    change_config(checkpoint, tie_word_embeddings=False)


def by_transformers(checkpoint: Path, weights: Tensors) -> None:
    from transformers import AutoModelForCausalLM

    in_one_file(checkpoint, weights)
    AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16).save_pretrained(checkpoint)


def as_the_module_names_them(checkpoint: Path, weights: Tensors) -> None:
    """A layer's experts in two tensors, as transformers holds them."""
    from transformers import AutoModelForCausalLM

    in_one_file(checkpoint, weights)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16)
    in_one_file(checkpoint, {name: p.detach().clone() for name, p in model.named_parameters()})


def change_config(checkpoint: Path, **changes: Any) -> None:
    file = checkpoint / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


FORMS: list[Callable[[Path, Tensors], None]] = [
    as_on_the_hub,
    in_float32,
    in_float16,
    with_a_copy_of_the_embeddings,
    with_another_output_layer,
    not_tied,
    by_transformers,
    as_the_module_names_them,
]


@pytest.mark.parametrize("write", FORMS)
def test_each_form_gives_bit_for_bit_what_bitsandbytes_makes_of_what_transformers_loads(
    checkpoint: Path, weights: Tensors, tmp_path: Path, write: Callable[[Path, Tensors], None]
) -> None:
    write(checkpoint, weights)
    quantize_demo(out := new(tmp_path / "out"), BF16, checkpoint)
    wanted = bytes_of(quantized_by_bitsandbytes(BF16, checkpoint))
    found = bytes_of(read_demo(out, BF16, checkpoint))
    assert found.keys() == wanted.keys()
    assert [name for name, value in wanted.items() if not same(found[name], value)] == []
    assert (OUTPUT in wanted) == (write in (with_another_output_layer, not_tied))


def bytes_of(model: Any) -> Tensors:
    """Each parameter, tied ones once, and each tensor of its quantization state."""
    found: Tensors = {}
    for name, parameter in model.named_parameters():
        state = getattr(parameter, "quant_state", None)
        found[name] = parameter.detach()
        found |= {f"{name}.{part}": value for part, value in (state.as_dict(packed=True) if state else {}).items()}
    return found


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def test_an_output_layer_of_its_own_stays_one_when_the_model_ties_again(
    checkpoint: Path, weights: Tensors, tmp_path: Path
) -> None:
    with_another_output_layer(checkpoint, weights)
    quantize_demo(out := new(tmp_path / "out"), BF16, checkpoint)
    model = read_demo(out, BF16, checkpoint)
    model.tie_weights()
    assert torch.equal(model.lm_head.weight, weights[EMBEDDINGS].flip(0))


def test_what_is_no_safetensors_file_is_refused_with_what_to_do(
    checkpoint: Path, weights: Tensors, tmp_path: Path
) -> None:
    torch.save(weights, checkpoint / "pytorch_model.bin")
    with pytest.raises(PipelineError, match="save it again as safetensors") as raised:
        quantize_demo(tmp_path, BF16, checkpoint)
    assert "\n" not in str(raised.value)


# From the hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, empty; the network is not asked (see the top `conftest.py`)."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_checkpoint_of_the_hub_is_found_in_its_cache(
    checkpoint: Path, weights: Tensors, hub: Path, tmp_path: Path
) -> None:
    as_on_the_hub(checkpoint, weights)
    quantize_demo(of_folder := new(tmp_path / "of_folder"), BF16, checkpoint)
    config = causal_lm_config(str(checkpoint), None)
    shutil.move(checkpoint, hub / "models--maker--model" / "snapshots" / COMMIT)
    quantize_checkpoint("maker/model", COMMIT, config, BF16, of_hub := new(tmp_path / "of_hub"), "cpu")
    assert [file.read_bytes() for file in sorted(of_hub.iterdir())] == [
        file.read_bytes() for file in sorted(of_folder.iterdir())
    ]


def test_one_that_is_not_in_the_cache_and_cannot_be_had_is_one_sentence(
    short_base: Any, hub: Path, tmp_path: Path
) -> None:
    snapshot = hub / "models--maker--model" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    shutil.copy(Path(short_base.checkpoint) / "config.json", snapshot)  # as it is once that has been read
    config = causal_lm_config(short_base.checkpoint, None)
    with pytest.raises(PipelineError, match=r"^base model maker/model: its weights cannot be loaded \(") as raised:
        quantize_checkpoint("maker/model", COMMIT, config, BF16, tmp_path, "cpu")
    assert "\n" not in str(raised.value)


def new(folder: Path) -> Path:
    folder.mkdir()
    return folder
