"""Each form, written and loaded back; and that nothing is left of one that fails."""

import json
import os
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.registry.export import export as exporting
from ernie_pipeline.registry.export.checks import check_merged
from ernie_pipeline.registry.export.export import Asked, export, export_source
from ernie_pipeline.registry.export.gguf_form import check_gguf, write_gguf
from ernie_pipeline.registry.export.material import make_material
from ernie_pipeline.registry.export.merged_form import write_merged
from ernie_pipeline.registry.export.reference import Dense
from ernie_pipeline.registry.export.source import Source
from ernie_pipeline.utils.errors import PipelineError

IDS = [5, 17, 99, 200, 31, 44, 12]
AS_TOLD = """
import sys
sys.modules["ernie_pipeline"] = None
{lines}
import torch
from safetensors.torch import save_file
with torch.no_grad():
    logits = model.float()(input_ids=torch.tensor([{ids}])).logits[0]
save_file({{"logits": logits.contiguous()}}, "logits.safetensors")
"""


def silent(line: str) -> None:
    pass


def run_readme(out: Path) -> torch.Tensor:
    """The logits after `IDS`, by the README's own lines in a process that cannot import this package."""
    blocks = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), flags=re.DOTALL)
    code = AS_TOLD.format(lines=blocks[0].replace('"auto"', '"float32"'), ids=IDS)
    subprocess.run([sys.executable, "-P", "-c", code], cwd=out, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return load_file(out / "logits.safetensors")["logits"]


def test_plain_peft_loads_all_of_it_to_the_same_logits_by_the_lines_of_its_readme(
    source: Source, scratch: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    report = export_source(source, Asked("peft", out), scratch, silent)
    found = report.figures
    assert report.loaded
    assert found["tensors_placed"] == found["tensors"] == 7 * 2 + 4 * 2 + 3 * 2 + 2 * 2
    assert float(found["logits_differ"]) <= 1e-5
    assert float(found["measured_logits_differ"]) > 1e-2  # the base in 4 bits is another
    assert sorted(json.loads((out / "export.json").read_text())["files"]) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    with ExitStack() as stack:
        material = make_material(source, stack)
        dense = Dense(source.spec, material.plan, material.base, material.adapter, torch.float32)
        torch.testing.assert_close(run_readme(out), dense.onto("original").logits([IDS])[0], atol=1e-5, rtol=0)


def test_merged_it_has_the_hub_s_names_and_the_measured_logits_but_for_bf16(
    hub_source: Source, scratch: Path, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        material = make_material(hub_source, stack)
        parts = (material.plan, material.base, material.adapter, hub_source.spec, "quantized", tmp_path)
        write_merged(*parts, shard_bytes=300_000)  # type: ignore[arg-type]
        report = check_merged(material, "quantized", tmp_path, scratch)
        names = {name for name in material.base.shapes if "mtp" not in name}
    assert report.loaded
    rounding = float(report.figures["logits_differ_by_rounding_share"])
    assert 0 < rounding < 0.02 < 0.1 < float(report.figures["logits_differ_quantized_original_share"])
    # what differs from the model that was measured is what rounding alone makes
    assert float(report.figures["measured_logits_differ_share"]) == pytest.approx(rounding, rel=0.01)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = {*index["weight_map"].values()}
    assert index["weight_map"].keys() == names
    assert len(files) > 2
    assert all((tmp_path / file).stat().st_size < 320_000 for file in files)
    dtypes = {}
    for file in files:
        with safe_open(tmp_path / file, framework="pt") as opened:
            dtypes |= {name: opened.get_slice(name).get_dtype() for name in opened.keys()}  # noqa: SIM118
    assert {name for name, dtype in dtypes.items() if dtype != "BF16"} == {
        n for n in names if ".gate.w" in n or "moe_st" in n
    }
    assert (tmp_path / "tokenizer_config.json").is_file()
    assert json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"] is False


@pytest.mark.parametrize("kind", ["bf16", "q8_0"])
def test_a_gguf_file_holds_the_same_tensors_and_says_what_the_configuration_says(
    kind: str, source: Source, hub_source: Source, tmp_path: Path
) -> None:
    pytest.importorskip("gguf")
    with ExitStack() as stack:
        material = make_material(source if kind == "bf16" else hub_source, stack)
        write_gguf(material, "quantized", kind, tmp_path / "a.gguf")
        report = check_gguf(material, "quantized", kind, tmp_path / "a.gguf")
        assert float(report.figures["measured_logits_differ_share"]) < 0.05
        content = bytearray((tmp_path / "a.gguf").read_bytes())
        content[-200] ^= 0x40  # in the last tensor
        (tmp_path / "a.gguf").write_bytes(content)
        with pytest.raises(PipelineError, match="is not base plus adapter"):
            check_gguf(material, "quantized", kind, tmp_path / "a.gguf")


def test_nothing_is_left_of_an_export_that_fails(
    source: Source, scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "exports" / "out"
    assert source.spec.adapter
    broken = source.spec.model_copy(update={"adapter": tmp_path / "nowhere"})
    with pytest.raises(PipelineError, match="cannot be read"):
        export_source(Source("a", broken, "", 8, "", ""), Asked("peft", out), scratch, silent)

    def full(material: Any, asked: Asked, folder: Path, *others: Any) -> Any:
        (folder / "half").write_bytes(b"written")
        with Path("/dev/full").open("wb", buffering=0) as stream:
            stream.write(b"no more")

    monkeypatch.setitem(exporting._WRITERS, "merged", full)
    with pytest.raises(PipelineError, match=r"is full; make room .* nothing half-written is left"):
        export_source(source, Asked("merged", out), scratch, silent)
    assert list((tmp_path / "exports").iterdir()) == []


def test_a_place_that_is_taken_or_the_pipeline_s_own_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERNIE_PIPELINE_HOME", str(tmp_path / "home"))
    settings = Settings.from_environment()
    with pytest.raises(PipelineError, match="exists already; remove it or name another"):
        export(settings, Asked("peft", tmp_path))
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(PipelineError, match="exists already"):
        export(settings, Asked("peft", tmp_path / "link"))
    (tmp_path / "way").symlink_to(tmp_path / "home")
    with pytest.raises(PipelineError, match="is inside the home"):
        export(settings, Asked("peft", tmp_path / "way" / "store" / "out"))
    with pytest.raises(PipelineError, match="nothing is registered yet in"):
        export(settings, Asked("peft", tmp_path / "out"))
    with pytest.raises(PipelineError, match="is no artifact of qlora_adapter in"):
        export(settings, Asked("peft", tmp_path / "out", model="0123456789abcdef"))
    assert not (tmp_path / "home").exists()
    assert not (tmp_path / "out").exists()
