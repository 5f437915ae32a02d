"""A quantized base: bit for bit what bitsandbytes makes; made once, and anew when it is not whole any more."""

import errno
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ernie_pipeline.models.checkpoint.config import causal_lm_config
from ernie_pipeline.models.grouped import quantized_base as quantized
from ernie_pipeline.models.grouped.experts import GroupedExperts
from ernie_pipeline.models.grouped.quantized_base import read_quantized
from ernie_pipeline.models.peft import backend as peft_backend
from ernie_pipeline.store.quantized_base import MANIFEST, PLACE, damage
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.models.conftest import logits_of
from ernie_pipeline_tests.models.grouped.demo import FLAT, NESTED, quantize_demo, quantized_by_bitsandbytes, read_demo

IDS = torch.tensor([1, 20, 30, 40, 50, 60, 70])
BF16 = {"type": "nf4", "double": True, "compute_dtype": "bfloat16"}


# Written and read


@pytest.mark.parametrize("quantization", [FLAT, NESTED, BF16, FLAT | {"type": "fp4"}])
def test_it_is_bit_for_bit_what_bitsandbytes_makes_of_what_transformers_loads(
    short_base: Any, tmp_path: Path, quantization: dict[str, Any]
) -> None:
    from bitsandbytes.functional import dequantize_4bit

    checkpoint = Path(short_base.checkpoint)
    quantize_demo(tmp_path, quantization, checkpoint)
    assert sorted(file.stem for file in tmp_path.iterdir()) == ["layer-000", "layer-001", "rest"]
    read = read_demo(tmp_path, quantization, checkpoint)
    assert not any(parameter.requires_grad for parameter in read.parameters())
    assert not read.training

    written = quantized_by_bitsandbytes(quantization, checkpoint)
    parameters = dict(read.named_parameters())
    assert parameters.keys() == dict(written.named_parameters()).keys()
    stacks = 0
    for name, parameter in written.named_parameters():
        assert parameters[name].dtype == parameter.dtype, name
        assert torch.equal(parameters[name], parameter), name
        if hasattr(parameter, "quant_state"):
            state, other = parameter.quant_state, parameters[name].quant_state
            assert state.nested == other.nested == quantization["double"]
            dense = dequantize_4bit(parameter.data, state)
            assert torch.equal(dequantize_4bit(parameters[name].data, other), dense), name
            if len(state.shape) == 3:  # so that transformers can compute what was written
                owner, _, last = name.rpartition(".")
                written.get_submodule(owner)._parameters[last] = torch.nn.Parameter(dense.view(state.shape))
                stacks += 1
    assert stacks == 2
    wanted = logits_of(written, IDS)
    near = 1e-5 if quantization["compute_dtype"] == "float32" else 2e-2
    assert (logits_of(read, IDS) - wanted).norm() < near * wanted.norm()


def test_read_it_has_the_logits_of_the_other_backend_s_base(quantized_short: Path, short_base: Any) -> None:
    """Where their constants are the same ones: without a second quantization, in groups across a layer's experts."""
    checkpoint = short_base.checkpoint
    wanted = logits_of(peft_backend.load_base(checkpoint, None, FLAT, "cpu"), IDS)
    read = read_demo(quantized_short, FLAT, Path(checkpoint))
    assert sum(isinstance(module, GroupedExperts) for module in read.modules()) == 1
    assert (logits_of(read, IDS) - wanted).norm() < 1e-5 * wanted.norm()


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("rest", "model.norm.weight"),
        ("layer-001", "model.layers.1.mlp.experts.down_proj"),
        ("layer-001", "model.layers.1.mlp.experts.down_proj.absmax"),
        ("layer-001", "model.layers.1.self_attn.q_proj.weight"),
        ("layer-001", "model.layers.1.self_attn.q_proj.weight.absmax"),
        ("layer-001", "model.layers.1.self_attn.q_proj.weight.quant_map"),
    ],
)
def test_a_lost_tensor_is_said_in_one_sentence(
    quantized_short: Path, short_base: Any, tmp_path: Path, file: str, name: str
) -> None:
    for source in quantized_short.iterdir():
        tensors = load_file(source)
        if source.stem == file:
            del tensors[name]
        save_file(tensors, tmp_path / source.name)
    config = causal_lm_config(short_base.checkpoint, None)
    with pytest.raises(PipelineError) as told:
        read_quantized(tmp_path, config, FLAT, "cpu")
    assert str(told.value).startswith(f"quantized base model {tmp_path} lacks ")
    assert name.removesuffix(".absmax").removesuffix(".quant_map") in str(told.value)
    assert "\n" not in str(told.value)


@pytest.fixture
def checkpoint(short_base: Any, tmp_path: Path) -> Path:
    """A copy, to damage."""
    return Path(shutil.copytree(short_base.checkpoint, tmp_path / "a_base"))


def rewrite(checkpoint: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    file = checkpoint / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def without_an_expert(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in tensors.items() if "experts.3.up_proj" not in name}


def of_another_shape(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return tensors | {"model.norm.weight": torch.ones(5)}


@pytest.mark.parametrize(
    ("damage_it", "sentence"),
    [
        (
            lambda folder: rewrite(folder, without_an_expert),
            r"1 are not there, among them .*experts\.3\.up_proj",
        ),
        (lambda folder: rewrite(folder, of_another_shape), r"model\.norm\.weight has the shape \(5,\), not \(256,\)"),
        (lambda folder: os.truncate(folder / "model.safetensors", 10_000), "its weights cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").unlink(), "its weights cannot be loaded"),
    ],
)
def test_a_checkpoint_that_lacks_something_is_one_sentence(
    checkpoint: Path, tmp_path: Path, damage_it: Callable[[Path], None], sentence: str
) -> None:
    damage_it(checkpoint)
    with pytest.raises(PipelineError, match=sentence) as raised:
        quantize_demo(tmp_path, FLAT, checkpoint)
    assert "\n" not in str(raised.value)


def test_shards_and_what_the_model_has_no_place_for_are_no_matter(checkpoint: Path, tmp_path: Path) -> None:
    """As the hub's checkpoint has them: an index, and a head for further tokens."""
    quantize_demo(whole := new(tmp_path / "whole"), FLAT, checkpoint)
    tensors = load_file(checkpoint / "model.safetensors") | {"model.mtp_linear_proj.0.weight": torch.ones(2, 2)}
    names = sorted(tensors)
    shards = {f"model-0000{n + 1}-of-00002.safetensors": names[n::2] for n in range(2)}
    for shard, own in shards.items():
        save_file({name: tensors[name] for name in own}, checkpoint / shard, metadata={"format": "pt"})
    index = {"weight_map": {name: shard for shard, own in shards.items() for name in own}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    (checkpoint / "model.safetensors").unlink()
    quantize_demo(sharded := new(tmp_path / "sharded"), FLAT, checkpoint)
    assert [file.read_bytes() for file in sorted(sharded.iterdir())] == [
        f.read_bytes() for f in sorted(whole.iterdir())
    ]


def new(folder: Path) -> Path:
    folder.mkdir()
    return folder


# Made once


class Making:
    """Makes quantized bases of two layers, and counts how often."""

    def __init__(self, base: Any, log: Path):
        self.base, self.log, self.takes_s, self.usual = base, log, 0.0, quantized.quantize_checkpoint
        log.touch()

    def quantize(self, *given: Any) -> None:
        with self.log.open("a") as log:
            log.write("once\n")
        time.sleep(self.takes_s)
        self.usual(*given)

    def __call__(self, bases: Path | None, quantization: dict[str, Any] = FLAT, **changes: Any) -> Path:
        base = self.base.model_copy(update=changes)
        config = causal_lm_config(self.base.checkpoint, None)
        return quantized.quantized_base(base, config, quantization, bases, "cpu")

    @property
    def made(self) -> int:
        return len(self.log.read_text().splitlines())


@pytest.fixture
def making(short_base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Making:
    making = Making(short_base, tmp_path / "log")
    monkeypatch.setattr(quantized, "quantize_checkpoint", making.quantize)
    return making


@pytest.fixture
def bases(tmp_path: Path) -> Path:
    return tmp_path / "bases"


def visible(folder: Path) -> list[str]:
    """What lies there beside locks."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


FILES = [MANIFEST, "layer-000.safetensors", "layer-001.safetensors", "rest.safetensors"]


def test_it_is_made_once_for_a_version_and_a_quantization(making: Making, bases: Path) -> None:
    place = making(bases)
    assert making(bases) == place
    assert making(bases, name="renamed") == place
    assert making.made == 1
    assert visible(place) == FILES
    assert visible(bases) == [place.name]
    assert damage(place) == ""
    assert len({place, making(bases, version="2"), making(bases, NESTED)}) == making.made == 3


def test_where_no_folder_is_named_it_lies_where_the_environment_says_or_in_the_user_s_cache(
    making: Making, bases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PLACE, raising=False)
    monkeypatch.setattr("ernie_pipeline.store.quantized_base.users_cache", lambda: tmp_path / "cache")
    assert making(None).parent == tmp_path / "cache" / "bases"
    monkeypatch.setenv(PLACE, str(tmp_path / "there"))
    assert making(None).parent == tmp_path / "there"
    assert making(bases).parent == bases


def test_another_version_of_what_quantizes_makes_it_anew(
    making: Making, bases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = making(bases)
    monkeypatch.setattr("ernie_pipeline.store.quantized_base.version", lambda library: "99")
    assert making(bases) != place
    assert making.made == 2


def altered(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def truncated(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


@pytest.mark.parametrize("break_", [altered, truncated, Path.unlink])
@pytest.mark.parametrize("file", [MANIFEST, "rest.safetensors"])
def test_what_is_not_whole_any_more_is_made_anew(
    making: Making, bases: Path, file: str, break_: Callable[[Path], None]
) -> None:
    place = making(bases)
    whole = (place / "rest.safetensors").read_bytes()
    break_(place / file)
    assert damage(place)
    assert making(bases) == place
    assert making.made == 2
    assert damage(place) == ""
    assert (place / "rest.safetensors").read_bytes() == whole
    assert visible(bases) == [place.name]


def test_a_manifest_that_lists_less_is_none(making: Making, bases: Path) -> None:
    place = making(bases)
    manifest = json.loads((place / MANIFEST).read_text())
    (place / MANIFEST).write_text(json.dumps(manifest | {"files": {}}))
    assert damage(place) == MANIFEST


def test_a_failed_one_leaves_nothing(making: Making, bases: Path, checkpoint: Path) -> None:
    rewrite(checkpoint, without_an_expert)
    with pytest.raises(PipelineError, match="are not there"):
        making(bases, checkpoint=str(checkpoint))
    assert visible(bases) == []
    assert visible(making(bases)) == FILES


def test_what_a_killed_making_left_goes_with_the_next(making: Making, bases: Path) -> None:
    place = making(bases)
    left, another = bases / f".{place.name}.01234567", bases / ".another.01234567"
    for folder in (left, another):
        folder.mkdir()
        (folder / "rest.safetensors").touch()
    making(bases)
    assert left.is_dir()  # nothing was made
    (place / MANIFEST).unlink()
    making(bases)
    assert visible(bases) == sorted([another.name, place.name])


def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    making: Making, bases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ernie_pipeline.store.sealed.write_sealed", full)
    with pytest.raises(PipelineError, match=r"^the quantized base model was not kept: ") as raised:
        making(bases)
    assert "\n" not in str(raised.value)
    assert visible(bases) == []


def test_of_several_processes_one_makes_it(making: Making, bases: Path) -> None:
    making.takes_s = 0.5
    spawned = multiprocessing.get_context("fork")
    processes = [spawned.Process(target=making, args=(bases,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert making.made == 1
    assert len(visible(bases)) == 1
