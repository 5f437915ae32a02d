import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.demo import BASE
from ernie_pipeline.recipe.sections import Lora, Quantization

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

QUANTIZATION = Quantization(compute_dtype="float32", double=False).model_dump(mode="json")
LORA = Lora(rank=4, alpha=8).model_dump(mode="json")


def new_base(checkpoint: Path = BASE) -> Any:
    """The demo's base in 4 bits, to break or to adapt."""
    from ernie_pipeline.models.peft import backend as peft_engine

    return peft_engine.load_base(str(checkpoint), None, QUANTIZATION, "cpu")


def new_adapted(lora: dict[str, Any] = LORA, seed: int = 0, checkpoint: Path = BASE) -> Any:
    """The demo's base with an adapter that changes its answers."""
    import torch

    from ernie_pipeline.models.peft import backend as peft_engine

    model = peft_engine.add_adapter(new_base(checkpoint), lora, seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model.eval()


@pytest.fixture(scope="session")
def base() -> Any:
    """The demo's base in 4 bits, for tests that only read it."""
    return new_base()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A copy of the demo's checkpoint folder, to damage."""
    return Path(shutil.copytree(BASE, tmp_path / "a_base"))


@pytest.fixture
def without(checkpoint: Path) -> Callable[..., Path]:
    """The copy of the checkpoint without some of its files."""

    def remove(*names: str) -> Path:
        for name in names:
            (checkpoint / name).unlink()
        return checkpoint

    return remove
