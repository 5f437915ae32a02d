"""An adapter's file is the same from both backends: each loads what the other saved, and refuses what does not fit."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ernie_pipeline.models.checkpoint.adapter_file import CONFIG, WEIGHTS, read_shape
from ernie_pipeline.models.grouped.backend import GroupedModel
from ernie_pipeline.models.peft import backend as peft_backend
from ernie_pipeline.models.peft.backend import PeftModel4bit
from ernie_pipeline.models.spec import ModelSpec
from ernie_pipeline.recipe.sections import Lora
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.models.conftest import logits_of
from ernie_pipeline_tests.models.grouped.demo import FLAT, LORA, change, read_demo

IDS = torch.tensor([1, 20, 30, 40, 50, 60, 70])
TARGETS = [
    LORA.targets,
    ("q_proj", "up_proj"),
    ("down_proj",),
    ("q_proj", "o_proj"),
]

Model = PeftModel4bit | GroupedModel
NewModel = Callable[[str], Model]


@pytest.fixture
def new_model(quantized_short: Path, short_spec: ModelSpec) -> NewModel:
    """Two layers of the demo, as a backend has them. Its name and revision: "demo" at "abc"."""
    checkpoint = short_spec.base.checkpoint
    base = short_spec.base.model_copy(update={"name": "demo", "revision": "abc"})

    def make(backend: str) -> Model:
        if backend == "grouped":
            return GroupedModel(spec_of(backend), "cpu", read_demo(quantized_short, FLAT, Path(checkpoint)))
        return PeftModel4bit(spec_of(backend), "cpu", peft_backend.load_base(checkpoint, None, FLAT, "cpu"))

    def spec_of(backend: str) -> ModelSpec:
        return short_spec.model_copy(update={"backend": backend, "base": base})

    return make


def load_adapter(model: Model, folder: Path) -> None:
    """Give a base the saved adapter, as its backend does."""
    if isinstance(model, GroupedModel):
        model.read_adapter(folder)
    else:
        model.module = peft_backend.load_adapter(model.module, folder)


def save(model: Model, folder: Path, lora: Lora = LORA) -> torch.Tensor:
    """Save an adapter that changes the logits; its logits."""
    model.add_adapter(lora, seed=0)
    change(model.module)
    model.module.eval()
    model.save_adapter(folder)
    logits: torch.Tensor = logits_of(model.module, IDS)
    return logits


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize(("one", "other"), [("grouped", "peft"), ("peft", "grouped"), ("grouped", "grouped")])
def test_what_one_backend_saved_has_the_same_logits_in_the_other(
    new_model: NewModel, tmp_path: Path, one: str, other: str, targets: tuple[str, ...]
) -> None:
    wanted = save(new_model(one), tmp_path / "saved", Lora(rank=4, alpha=8, targets=targets))
    loaded = new_model(other)
    bare = logits_of(loaded.module, IDS)
    load_adapter(loaded, tmp_path / "saved")
    assert not loaded.module.training
    assert loaded.trainable() == {}
    assert not any(parameter.requires_grad for parameter in loaded.module.parameters())
    found = logits_of(loaded.module, IDS)
    assert (found - wanted).norm() < 1e-5 * wanted.norm()
    assert (bare - wanted).norm() > 1e-3 * wanted.norm()  # so the comparison can tell
    with loaded.without_adapter():
        assert torch.equal(logits_of(loaded.module, IDS), bare)

    loaded.save_adapter(tmp_path / "again")
    first, second = (load_file(tmp_path / name / WEIGHTS) for name in ("saved", "again"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (tmp_path / "saved" / CONFIG).read_bytes() == (tmp_path / "again" / CONFIG).read_bytes()


def test_each_expert_has_its_own_tensors_in_the_file(new_model: NewModel, tmp_path: Path) -> None:
    model = new_model("grouped")
    save(model, tmp_path)
    saved = load_file(tmp_path / WEIGHTS)
    save_file(saved, tmp_path / "as_others_do", metadata={"format": "pt"})
    assert (tmp_path / WEIGHTS).read_bytes() == (tmp_path / "as_others_do").read_bytes()
    adapter = model.module.get_submodule("base_model.model.model.layers.1.mlp.experts.adapter")
    for number in range(8):
        for which, stacks in (("A", adapter.lora_A), ("B", adapter.lora_B)):
            name = f"base_model.model.model.layers.1.mlp.experts.{number}.up_proj.lora_{which}.weight"
            assert torch.equal(saved[name], stacks["up_proj"][number])
    config = json.loads((tmp_path / CONFIG).read_text())
    assert (config["base_model_name_or_path"], config["revision"], config["inference_mode"]) == ("demo", "abc", True)
    assert model.module.peft_config["default"].inference_mode is False  # the model goes on being trained
    shape = read_shape(tmp_path)
    assert (shape.pop("targets"), shape) == (sorted(LORA.targets), {"rank": 4, "alpha": 8, "dropout": 0.0})


def changed(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return act


def configured(**values: Any) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(config | values))

    return act


ONE = "base_model.model.model.layers.1.mlp.experts.3.up_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (changed(lambda tensors: tensors.pop(ONE)), rf"1 tensors did not find their place, among them {ONE}$"),
        (changed(lambda tensors: tensors.update(x=torch.ones(1))), "1 tensors did not find their place, among them x$"),
        (changed(lambda tensors: tensors.update({ONE: torch.ones(4, 255)})), rf"did not find their place.* {ONE}$"),
        (configured(r=8), "tensors did not find their place"),
        (configured(target_modules=["q_proj"]), "tensors did not find their place"),
        (lambda folder: os.truncate(folder / WEIGHTS, 1000), "cannot be loaded"),
        (lambda folder: (folder / WEIGHTS).unlink(), "cannot be loaded"),
        (lambda folder: (folder / CONFIG).unlink(), rf"cannot be loaded \({CONFIG}"),
        (lambda folder: (folder / CONFIG).write_text("{}"), rf"cannot be loaded \({CONFIG}: 'r'\)"),
        (lambda folder: (folder / CONFIG).write_text("nothing"), rf"cannot be loaded \({CONFIG}"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(
    new_model: NewModel, tmp_path: Path, act: Callable[[Path], None], told: str
) -> None:
    save(new_model("grouped"), tmp_path)
    act(tmp_path)
    with pytest.raises(PipelineError, match=told) as raised:
        load_adapter(new_model("grouped"), tmp_path)
    assert str(raised.value).startswith(f"adapter {tmp_path}")
    assert "\n" not in str(raised.value)
