from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ernie_pipeline.demo.problems import INSTRUCTION
from ernie_pipeline.models.peft.backend import PeftBackend
from ernie_pipeline.models.spec import BaseCheckpoint, ModelSpec
from ernie_pipeline.recipe.sections import TARGETS, Lora, Quantization
from ernie_pipeline.registry.export.source import Source
from ernie_pipeline_tests.models.hub_format import write_hub_checkpoint

MakeSource = Callable[..., Source]


@pytest.fixture(scope="session")
def make_source(tmp_path_factory: pytest.TempPathFactory) -> MakeSource:
    """A `Source` of an adapter on `base` that changes its answers: random B, on `targets` alone."""
    made: dict[Any, Source] = {}

    def make(base: BaseCheckpoint, targets: Sequence[str] = TARGETS, rank: int = 4) -> Source:
        key = (base.checkpoint, tuple(targets), rank)
        if key not in made:
            lora = Lora(rank=rank, alpha=8, targets=tuple(targets))
            quantization = Quantization(compute_dtype="float32", double=False)
            spec = ModelSpec(backend="peft", base=base, quantization=quantization, lora=lora)
            model = PeftBackend().load(spec, "cpu")
            model.add_adapter(lora, seed=0)
            torch.manual_seed(1)
            for name, parameter in model.trainable().items():
                if "lora_B" in name:
                    torch.nn.init.normal_(parameter, std=0.05)
            folder = tmp_path_factory.mktemp("adapter")
            model.save_adapter(folder)
            spec = spec.model_copy(update={"adapter": folder})
            made[key] = Source("models:/test/1", spec, INSTRUCTION, 24, "", "made for a test")
        return made[key]

    return make


@pytest.fixture(scope="session")
def source(make_source: MakeSource, short_base: BaseCheckpoint) -> Source:
    """Every target of the demo's first two layers."""
    return make_source(short_base)


@pytest.fixture(scope="session")
def hub_source(make_source: MakeSource, tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Of a checkpoint as the hub has it, with an output layer of its own, of which its config.json does not know."""
    folder = write_hub_checkpoint(tmp_path_factory.mktemp("hub") / ".", untied=True, says_tied=True)
    return make_source(BaseCheckpoint(name="hub", checkpoint=str(folder), version="the hub's"))


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder
