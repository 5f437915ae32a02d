"""Unsloth's form of an adapter, loaded by Unsloth itself, which needs a GPU."""

import json
from pathlib import Path

import pytest
import torch

from ernie_pipeline.demo import BASE
from ernie_pipeline.demo.problems import INSTRUCTION
from ernie_pipeline.models.checkpoint.version import checkpoint_version
from ernie_pipeline.models.peft.backend import PeftBackend
from ernie_pipeline.models.spec import BaseCheckpoint, ModelSpec
from ernie_pipeline.recipe.sections import Lora, Quantization
from ernie_pipeline.registry.export.export import Asked, export_source
from ernie_pipeline.registry.export.source import Source

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and this machine has none"),
]


def test_unsloth_loads_its_form_to_the_measured_logits(tmp_path: Path) -> None:
    pytest.importorskip("unsloth", reason="needs the package unsloth: the extra gpu")
    lora = Lora(rank=4, alpha=8)
    base = BaseCheckpoint(name="demo", checkpoint=str(BASE), version=checkpoint_version(BASE))
    spec = ModelSpec(backend="peft", base=base, quantization=Quantization(), lora=lora)
    model = PeftBackend().load(spec, "cpu")
    model.add_adapter(lora, seed=0)
    torch.manual_seed(1)
    for name, parameter in model.trainable().items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    (tmp_path / "adapter").mkdir()
    model.save_adapter(tmp_path / "adapter")
    spec = spec.model_copy(update={"adapter": tmp_path / "adapter"})
    source = Source("models:/test/1", spec, INSTRUCTION, 24, "", "made for a test")

    (tmp_path / "scratch").mkdir()
    report = export_source(source, Asked("unsloth", tmp_path / "out"), tmp_path / "scratch", print)
    assert report.loaded, report
    checked = json.loads((tmp_path / "out" / "export.json").read_text())["checked"]
    assert checked["tensors_placed"] == checked["tensors"]
    assert "unsloth_logits_differ" in checked  # within the bound of a bf16 model, or nothing would be exported
