"""The demo model's first layers, for what does not depend on a model's depth."""

import json
import re
import shutil
from pathlib import Path

from ernie_pipeline.demo import BASE
from ernie_pipeline.models.spec import BaseCheckpoint


def write_first_layers(folder: Path, layers: int) -> BaseCheckpoint:
    """The checkpoint of a dense layer and `layers - 1` of experts, in the new folder `folder`."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(BASE, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_hidden_layers": layers, "moe_layer_end_index": layers - 1}
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(BASE / "model.safetensors")
    kept = {name: w for name, w in weights.items() if _layer(name) < layers}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return BaseCheckpoint(name="short", checkpoint=str(folder), version="short")


def _layer(name: str) -> int:
    """-1 for what is in no layer."""
    found = re.match(r"model\.layers\.(\d+)\.", name)
    return int(found[1]) if found else -1
