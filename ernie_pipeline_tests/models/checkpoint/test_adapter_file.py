"""An adapter's file is the same from both engines: each loads what the other saved, and refuses what does not fit."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ernie_pipeline.models.checkpoint.adapter_file import CONFIG, WEIGHTS, read_shape
from ernie_pipeline.models.grouped import backend as grouped_backend
from ernie_pipeline.models.peft import backend as peft_backend
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.models.conftest import logits_of
from ernie_pipeline_tests.models.grouped.demo import FLAT, LORA, change, read_demo

IDS = torch.tensor([1, 20, 30, 40, 50, 60, 70])
TARGETS = [
    LORA["targets"],
    ("q_proj", "up_proj"),
    ("down_proj",),
    ("q_proj", "o_proj"),
]

NewBase = Callable[[ModuleType], Any]


@pytest.fixture
def new_base(quantized_short: Path, short_base: Any) -> NewBase:
    """Two layers of the demo, as an engine has them."""
    checkpoint = short_base.checkpoint

    def make(engine: ModuleType) -> Any:
        if engine is unsloth_engine:
            return read_demo(quantized_short, FLAT, Path(checkpoint))
        return peft_backend.load_base(checkpoint, None, FLAT, "cpu")

    return make


def save(engine: ModuleType, base: Any, folder: Path, lora: dict[str, Any] = LORA) -> torch.Tensor:
    """Save an adapter that changes the logits; its logits."""
    model = engine.add_adapter(base, lora, seed=0)
    change(model)
    engine.save_adapter(model.eval(), folder, "demo", "abc")
    return logits_of(model, IDS)


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize(
    ("one", "other"), [(unsloth_engine, peft_engine), (peft_engine, unsloth_engine), (unsloth_engine, unsloth_engine)]
)
def test_what_one_engine_saved_has_the_same_logits_in_the_other(
    new_base: NewBase, tmp_path: Path, one: ModuleType, other: ModuleType, targets: tuple[str, ...]
) -> None:
    wanted = save(one, new_base(one), tmp_path / "saved", LORA | {"targets": targets})
    bare = logits_of(new_base(other), IDS)
    loaded = other.load_adapter(new_base(other), tmp_path / "saved")
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    found = logits_of(loaded, IDS)
    assert (found - wanted).norm() < 1e-5 * wanted.norm()
    assert (bare - wanted).norm() > 1e-3 * wanted.norm()  # so the comparison can tell
    with loaded.disable_adapter():
        assert torch.equal(logits_of(loaded, IDS), bare)

    other.save_adapter(loaded, tmp_path / "again", "demo", "abc")
    first, second = (load_file(tmp_path / name / WEIGHTS) for name in ("saved", "again"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (tmp_path / "saved" / CONFIG).read_bytes() == (tmp_path / "again" / CONFIG).read_bytes()


def test_each_expert_has_its_own_tensors_in_the_file(new_base: NewBase, tmp_path: Path) -> None:
    model = grouped_backend.with_adapter(new_base(unsloth_engine), LORA, seed=0)
    change(model)
    grouped_backend.save_adapter(model, tmp_path, "demo", None)
    saved = load_file(tmp_path / WEIGHTS)
    adapter = model.get_submodule("base_model.model.model.layers.1.mlp.experts.adapter")
    for number in range(8):
        for which, stacks in (("A", adapter.lora_A), ("B", adapter.lora_B)):
            name = f"base_model.model.model.layers.1.mlp.experts.{number}.up_proj.lora_{which}.weight"
            assert torch.equal(saved[name], stacks["up_proj"][number])
    config = json.loads((tmp_path / CONFIG).read_text())
    assert (config["base_model_name_or_path"], config["inference_mode"]) == ("demo", True)
    assert model.peft_config["default"].inference_mode is False  # the model goes on being trained
    shape = read_shape(tmp_path)
    assert (shape.pop("targets"), shape) == (sorted(LORA["targets"]), {"rank": 4, "alpha": 8, "dropout": 0.0})


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
def test_what_does_not_fit_is_told_in_one_sentence(
    new_base: NewBase, tmp_path: Path, act: Callable[[Path], None], told: str
) -> None:
    save(unsloth_engine, new_base(unsloth_engine), tmp_path)
    act(tmp_path)
    with pytest.raises(PipelineError, match=told) as raised:
        grouped_backend.load_adapter(new_base(unsloth_engine), tmp_path)
    assert str(raised.value).startswith(f"adapter {tmp_path}")
    assert "\n" not in str(raised.value)
