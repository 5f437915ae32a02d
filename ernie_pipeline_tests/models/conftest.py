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
LORA = Lora(rank=4, alpha=8)


def new_base(checkpoint: Path = BASE) -> Any:
    """The demo's base in 4 bits, to break or to adapt."""
    from ernie_pipeline.models.peft import backend as peft_backend

    return peft_backend.load_base(str(checkpoint), None, QUANTIZATION, "cpu")


def new_adapted(lora: Lora = LORA, seed: int = 0, checkpoint: Path = BASE) -> Any:
    """The demo's base with an adapter that changes its answers."""
    import torch

    from ernie_pipeline.models.peft import backend as peft_backend

    model = peft_backend.with_adapter(new_base(checkpoint), lora, seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model.eval()


def logits_of(module: Any, input_ids: Any) -> Any:
    """The logits [tokens, vocabulary] of a module in memory for token ids [tokens]."""
    import torch

    device = next(module.parameters()).device
    with torch.no_grad():
        return module(input_ids=input_ids[None].to(device), use_cache=False).logits[0].float()


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
