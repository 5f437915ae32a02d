"""The process that packs, with a package `unsloth` that quantises as the tests do: what it asks and says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ernie_pipeline.models.grouped.quantized_base import packed_base
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.models.conftest import logits_of
from ernie_pipeline_tests.models.grouped.demo import NESTED, pack_demo, read_demo

Unsloth = Callable[[str], Path]

# The contract of the package: `FastModel.from_pretrained(**kwargs)` gives the quantised model and a tokenizer.
QUANTISES = """
import json, os
from pathlib import Path
from ernie_pipeline_tests.models.grouped.demo import NESTED, quantised_demo

class FastModel:
    @staticmethod
    def from_pretrained(**kwargs):
        here = Path(__file__).parent
        (here / "asked.json").write_text(json.dumps(kwargs))
        (here / "environment.json").write_text(json.dumps(dict(os.environ)))
        Path(os.environ["UNSLOTH_COMPILE_LOCATION"]).mkdir()
        return quantised_demo(NESTED, Path(kwargs["model_name"])), None
"""
FAILS = "raise RuntimeError('\\n  No GPU has been found.\\nSee the manual.')"
DIES = "import os; os._exit(9)"


@pytest.fixture
def unsloth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Unsloth:
    """A package of that name for the processes that are started; the folder of its files."""

    def make(source: str) -> Path:
        folder = tmp_path / "packages" / "unsloth"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(source)
        monkeypatch.setenv("PYTHONPATH", str(folder.parent))  # this package is found all the same
        monkeypatch.chdir(tmp_path)
        return folder

    return make


def test_it_packs_what_the_package_quantised(
    unsloth: Unsloth, short_base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "1")
    folder = unsloth(QUANTISES)
    place = packed_base(short_base | {"version": "1"}, NESTED, str(tmp_path / "bases"))
    names = sorted(file.name for file in place.iterdir())
    assert names == ["base.json", "layer-000.safetensors", "layer-001.safetensors", "rest.safetensors"]

    asked = json.loads((folder / "asked.json").read_text())
    assert asked == {
        "model_name": short_base.checkpoint,
        "revision": None,
        "load_in_4bit": True,
        "dtype": None,
        "local_files_only": True,
        "use_exact_model_name": True,
        "trust_remote_code": False,
    }
    environment = json.loads((folder / "environment.json").read_text())
    assert not {"RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"} & set(environment)
    assert environment["UNSLOTH_DISABLE_STATISTICS"] == environment["HF_HUB_DISABLE_TELEMETRY"] == "1"

    checkpoint, ids = Path(short_base.checkpoint), torch.arange(5, 25)
    (tmp_path / "here").mkdir()
    pack_demo(tmp_path / "here", NESTED, checkpoint)
    found, wanted = (read_demo(packed, NESTED, checkpoint) for packed in (place, tmp_path / "here"))
    assert torch.equal(logits_of(found, ids), logits_of(wanted, ids))


@pytest.mark.parametrize(
    ("source", "told"), [(FAILS, "No GPU has been found."), (DIES, "the process ended with status 9")]
)
def test_its_failure_is_one_sentence(unsloth: Unsloth, tmp_path: Path, source: str, told: str) -> None:
    unsloth(source)
    base = {"name": "short", "checkpoint": "somewhere", "revision": None, "version": "1"}
    with pytest.raises(PipelineError) as raised:
        packed_base(base, NESTED, str(tmp_path / "bases"))
    assert str(raised.value) == f"base model short could not be loaded in 4 bits by Unsloth: {told}"
    assert not [path for path in (tmp_path / "bases").iterdir() if path.suffix != ".lock"]
