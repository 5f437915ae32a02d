"""Packed base models of some bytes, named and sealed as the real ones."""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from ernie_pipeline.recipe.sections import Quantization
from ernie_pipeline.store.quantized_base import FOLDER, MANIFEST, key_of, made_of
from ernie_pipeline.store.sealed import list_files, write_sealed

QUANTIZATION: dict[str, Any] = Quantization().model_dump(mode="json")


def quantized_base(root: Path, base_version: str, **changes: Any) -> Path:
    """The folder of a quantized base model with two layers and the rest; `changes` of what it is made of."""
    made = made_of(base_version, QUANTIZATION) | changes
    folder = root / FOLDER / key_of(made)
    folder.mkdir(parents=True)
    for number, name in enumerate(("layer-000", "layer-001", "rest")):
        save_file({f"{name}.weight": np.full(64, number, np.uint8)}, folder / f"{name}.safetensors")
    write_sealed(folder / MANIFEST, {"made_of": made, "files": list_files(folder)})
    folder.with_name(f"{folder.name}.lock").touch()
    return folder
