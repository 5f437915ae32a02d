"""What an adapter's file says it adds to each weight, and what is refused."""

import json
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ernie_pipeline.models.spec import BaseCheckpoint
from ernie_pipeline.registry.export.adapter import read_adapter
from ernie_pipeline.registry.export.material import make_material
from ernie_pipeline.registry.export.peft_form import write_peft
from ernie_pipeline.registry.export.source import Source
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.registry.export.conftest import MakeSource

EXPERT = "model.layers.1.mlp.experts.3"


@pytest.fixture
def copy(source: Source, tmp_path: Path) -> Path:
    """The adapter's folder, to be damaged."""
    assert source.spec.adapter
    return shutil.copytree(source.spec.adapter, tmp_path / "copy")


def change(folder: Path, **values: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def materials(source: Source, adapter: Path) -> None:
    with ExitStack() as stack:
        make_material(Source("a", source.spec.model_copy(update={"adapter": adapter}), "", 8, "", ""), stack)


@pytest.mark.parametrize("targets", [("gate_proj",), ("up_proj", "q_proj"), ("down_proj",), ("gate_proj", "down_proj")])
@pytest.mark.parametrize("form", ["peft", "unsloth"])
def test_what_is_written_for_peft_adds_the_same_to_each_weight(
    form: Any, targets: tuple[str, ...], make_source: MakeSource, short_base: BaseCheckpoint, tmp_path: Path
) -> None:
    source = make_source(short_base, targets)
    assert source.spec.adapter
    adapter = read_adapter(source.spec.adapter)
    write_peft(adapter, short_base, 8, tmp_path, form)
    again = {name: delta.matrix() for name, delta in read_adapter(tmp_path).deltas.items()}
    for name, delta in adapter.deltas.items():
        if name in again or form == "unsloth":
            torch.testing.assert_close(again.pop(name), delta.matrix())
    assert all(not matrix.any() for matrix in again.values())  # half of a stack that is not adapted


def test_gate_and_up_of_an_expert_become_one_pair_of_twice_the_rank(source: Source, tmp_path: Path) -> None:
    assert source.spec.adapter
    adapter = read_adapter(source.spec.adapter)
    write_peft(adapter, source.spec.base, 8, tmp_path, "peft")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["rank_pattern"] == {"mlp.experts.gate_up_proj": 8}
    assert config["alpha_pattern"] == {"mlp.experts.gate_up_proj": 16}
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    fused = "base_model.model.model.layers.1.mlp.experts.base_layer.lora_"
    a, b = tensors[f"{fused}A.weight"].view(8, 8, -1), tensors[f"{fused}B.weight"].view(-1, 8, 8)
    product = b[:, :, 3] @ a[3] * 16 / 8
    gate, up = (adapter.deltas[f"{EXPERT}.{target}.weight"].matrix() for target in ("gate_proj", "up_proj"))
    torch.testing.assert_close(product, torch.cat([gate, up]))


def test_unsloth_s_form_differs_in_what_it_names_alone(source: Source, tmp_path: Path) -> None:
    assert source.spec.adapter
    adapter, configs = read_adapter(source.spec.adapter), []
    for form in ("peft", "unsloth"):
        (tmp_path / form).mkdir()
        write_peft(adapter, source.spec.base, 8, tmp_path / form, form)  # type: ignore[arg-type]
        configs.append(json.loads((tmp_path / form / "adapter_config.json").read_text()))
    files = [(tmp_path / form / "adapter_model.safetensors").read_bytes() for form in ("peft", "unsloth")]
    assert files[0] == files[1]
    assert {key for key in configs[0] if configs[0][key] != configs[1][key]} == {"target_modules", "target_parameters"}
    assert configs[1]["target_parameters"] == ["mlp.experts.down_proj", "mlp.experts.gate_up_proj"]
    assert "mlp.shared_experts.up_proj" in configs[1]["target_modules"]


def test_an_older_unsloth_s_order_of_columns_is_known(source: Source, tmp_path: Path) -> None:
    assert source.spec.adapter
    adapter = read_adapter(source.spec.adapter)
    write_peft(adapter, source.spec.base, 8, tmp_path, "unsloth")
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    down = "base_model.model.model.layers.1.mlp.experts.lora_B.weight"
    b = tensors[down].view(-1, 4, 8).transpose(1, 2).flatten(1).contiguous()
    kept = {name: tensor for name, tensor in {**tensors, down: b}.items() if "base_layer" not in name}
    save_file(kept, tmp_path / "adapter_model.safetensors")
    down_alone = {"target_parameters": ["mlp.experts.down_proj"], "rank_pattern": {}, "alpha_pattern": {}}
    change(tmp_path, lora_B_layout="grouped_by_expert", **down_alone)
    name = f"{EXPERT}.down_proj.weight"
    torch.testing.assert_close(read_adapter(tmp_path).deltas[name].matrix(), adapter.deltas[name].matrix())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"use_dora": True}, "use_dora = True"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"lora_alpha": 16}, "rank 4 and alpha 16, and its record says 4 and 8"),
    ],
)
def test_what_is_no_plain_lora_of_the_record_is_refused(
    values: dict[str, Any], said: str, source: Source, copy: Path
) -> None:
    change(copy, **values)
    with pytest.raises(PipelineError, match=said):
        materials(source, copy)


def test_a_damaged_adapter_is_refused(source: Source, copy: Path) -> None:
    file = copy / "adapter_model.safetensors"
    tensors = load_file(file)
    name = "base_model.model.model.layers.1.mlp.experts.3.up_proj.lora_"
    both = {f"{name}A.weight", f"{name}B.weight"}
    damages: dict[str, dict[str, torch.Tensor]] = {
        "lacks its A or its B": {key: value for key, value in tensors.items() if key != f"{name}B.weight"},
        "1 weights of its targets have nothing in it": {k: v for k, v in tensors.items() if k not in both},
        "no numbers": {**tensors, f"{name}A.weight": tensors[f"{name}A.weight"] * torch.nan},
        "different ranks": {**tensors, f"{name}A.weight": tensors[f"{name}A.weight"][:2].contiguous()},
        "no LoRA's A or B": {**tensors, "base_model.model.lm_head.weight": torch.ones(2, 2)},
    }
    for said, changed in damages.items():
        save_file(changed, file)
        with pytest.raises(PipelineError, match=said):
            materials(source, copy)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(PipelineError, match="cannot be read"):
        materials(source, copy)


def test_an_adapter_of_another_base_is_refused(source: Source, hub_source: Source) -> None:
    assert source.spec.adapter
    with pytest.raises(PipelineError, match="does not belong to the base model hub"):
        materials(hub_source, source.spec.adapter)


def test_a_loader_that_keeps_the_targets_as_unsloth_s_does_places_all_of_its_form(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Unsloth patches of PEFT, where target_parameters are set: nothing is rewritten. The rest needs its GPU."""
    from peft import PeftModel
    from peft.utils import transformers_weight_conversion
    from transformers import AutoModelForCausalLM

    assert source.spec.adapter
    adapter, ids = read_adapter(source.spec.adapter), torch.tensor([[5, 17, 99, 200, 31]])
    logits = {}
    for form in ("peft", "unsloth"):
        if form == "unsloth":
            monkeypatch.setattr(transformers_weight_conversion, "_convert_peft_config_moe", lambda *_: None)
        write_peft(adapter, source.spec.base, 8, tmp_path, form)  # type: ignore[arg-type]
        base = AutoModelForCausalLM.from_pretrained(source.spec.base.checkpoint, dtype=torch.float32)
        model = PeftModel.from_pretrained(base, str(tmp_path)).eval()
        saved = load_file(tmp_path / "adapter_model.safetensors")
        placed = {n.replace(".default.", "."): p for n, p in model.named_parameters() if "lora_" in n}
        assert placed.keys() == saved.keys()
        assert all(torch.equal(placed[name], tensor) for name, tensor in saved.items())
        with torch.no_grad():
            logits[form] = model(ids).logits
            with model.disable_adapter():
                assert (model(ids).logits - logits[form]).abs().max() > 0.01
    torch.testing.assert_close(logits["unsloth"], logits["peft"], atol=1e-5, rtol=0)
