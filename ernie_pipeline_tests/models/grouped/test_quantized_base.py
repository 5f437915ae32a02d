"""A packed base: the model that was written, read back; packed once, and anew when it is not whole any more."""

import json
import multiprocessing
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ernie_pipeline.models.checkpoint.config import causal_lm_config
from ernie_pipeline.models.grouped.experts import GroupedExperts
from ernie_pipeline.models.grouped.quantized_base import packed_base, read_packed
from ernie_pipeline.models.peft import backend as peft_backend
from ernie_pipeline.store.quantized_base import MANIFEST, PLACE, damage
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.models.conftest import logits_of
from ernie_pipeline_tests.models.grouped.demo import FLAT, NESTED, pack_demo, quantised_demo, read_demo

IDS = torch.tensor([1, 20, 30, 40, 50, 60, 70])
UNSLOTHS = {"bits": 4, "type": "nf4", "double": True, "compute_dtype": "bfloat16"}
BASE = {"name": "short", "checkpoint": "somewhere", "revision": None, "version": "1"}


# Written and read


@pytest.mark.parametrize("quantization", [FLAT, NESTED])
def test_the_model_that_is_read_is_the_one_that_was_written(
    short_base: Any, tmp_path: Path, quantization: dict[str, Any]
) -> None:
    from bitsandbytes.functional import dequantize_4bit

    checkpoint = Path(short_base.checkpoint)
    pack_demo(tmp_path, quantization, checkpoint)
    assert sorted(file.stem for file in tmp_path.iterdir()) == ["layer-000", "layer-001", "rest"]
    read = read_demo(tmp_path, quantization, checkpoint)
    assert not any(parameter.requires_grad for parameter in read.parameters())
    assert not read.training

    written = quantised_demo(quantization, checkpoint)
    parameters = dict(read.named_parameters())
    assert parameters.keys() == dict(written.named_parameters()).keys()
    stacks = 0
    for name, parameter in written.named_parameters():
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
    assert (logits_of(read, IDS) - wanted).norm() < 1e-5 * wanted.norm()


def test_read_it_has_the_logits_of_the_other_engine_s_base(packed_short: Path, short_base: Any) -> None:
    """Where their constants are the same ones: without a second quantisation, in groups across a layer's experts."""
    checkpoint = short_base.checkpoint
    wanted = logits_of(peft_backend.load_base(checkpoint, None, FLAT, "cpu"), IDS)
    read = read_demo(packed_short, FLAT, Path(checkpoint))
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
def test_a_lost_tensor_is_told_in_one_sentence(
    packed_short: Path, short_base: Any, tmp_path: Path, file: str, name: str
) -> None:
    for source in packed_short.iterdir():
        tensors = load_file(source)
        if source.stem == file:
            del tensors[name]
        save_file(tensors, tmp_path / source.name)
    config = causal_lm_config(short_base.checkpoint, None)
    with pytest.raises(PipelineError) as told:
        read_packed(tmp_path, config, FLAT, "cpu")
    assert str(told.value).startswith(f"packed base model {tmp_path} lacks ")
    assert name.removesuffix(".absmax").removesuffix(".quant_map") in str(told.value)
    assert "\n" not in str(told.value)


# Packed once


class Packing:
    """In the place of the process that packs. Its contract: `python -m ernie_pipeline.models.grouped.pack JOB` fills
    the folder `out` of the JSON file JOB with safetensors files and ends with 0, or writes a line `problem.txt`
    beside JOB and ends with another status."""

    def __init__(self, log: Path):
        self.log, self.problem, self.takes_s = log, "", 0.0
        log.touch()

    def __call__(self, command: list[str], env: dict[str, str], stdin: int) -> Any:
        *start, job_file = command
        assert start[1:] == ["-m", "ernie_pipeline.models.grouped.pack"]
        job = json.loads(Path(job_file).read_text())
        with self.log.open("a") as log:
            log.write(json.dumps(job) + "\n")
        time.sleep(self.takes_s)
        save_file({"one": torch.arange(9)}, Path(job["out"]) / "rest.safetensors")
        if self.problem:
            (Path(job_file).parent / "problem.txt").write_text(self.problem)
        return subprocess.CompletedProcess(command, 1 if self.problem else 0)

    @property
    def jobs(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture
def packing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Packing:
    made = Packing(tmp_path / "log")
    monkeypatch.setattr(subprocess, "run", made)
    return made


@pytest.fixture
def bases(tmp_path: Path) -> Path:
    return tmp_path / "bases"


def visible(folder: Path) -> list[str]:
    """What lies there beside locks."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_it_is_packed_once_for_a_version_and_a_quantisation(packing: Packing, bases: Path) -> None:
    place = packed_base(BASE, UNSLOTHS, str(bases))
    assert packed_base(BASE, UNSLOTHS, str(bases)) == place
    assert packed_base(BASE | {"checkpoint": "moved"}, UNSLOTHS, str(bases)) == place
    [job] = packing.jobs
    assert (job["base"], job["quantization"]) == (BASE, UNSLOTHS)
    assert visible(place) == [MANIFEST, "rest.safetensors"]
    assert visible(bases) == [place.name]
    assert damage(place) == ""

    others = {
        packed_base(BASE | {"version": "2"}, UNSLOTHS, str(bases)),
        packed_base(BASE, UNSLOTHS | {"type": "fp4"}, str(bases)),
    }
    assert len(others | {place}) == len(packing.jobs) == 3


def test_where_no_folder_is_named_it_lies_where_the_environment_says_or_in_the_user_s_cache(
    packing: Packing, bases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PLACE, raising=False)
    monkeypatch.setattr("ernie_pipeline.models.grouped.quantized_base.users_cache", lambda: tmp_path / "cache")
    assert packed_base(BASE, UNSLOTHS, None).parent == tmp_path / "cache" / "bases"
    monkeypatch.setenv(PLACE, str(tmp_path / "there"))
    assert packed_base(BASE, UNSLOTHS, None).parent == tmp_path / "there"
    assert packed_base(BASE, UNSLOTHS, str(bases)).parent == bases


def test_another_version_of_what_packs_packs_anew(
    packing: Packing, bases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = packed_base(BASE, UNSLOTHS, str(bases))
    monkeypatch.setattr("ernie_pipeline.store.quantized_base.version", lambda library: "99")
    assert packed_base(BASE, UNSLOTHS, str(bases)) != place
    assert len(packing.jobs) == 2


def altered(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def truncated(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


@pytest.mark.parametrize("break_", [altered, truncated, Path.unlink])
@pytest.mark.parametrize("file", [MANIFEST, "rest.safetensors"])
def test_what_is_not_whole_any_more_is_packed_anew(
    packing: Packing, bases: Path, file: str, break_: Callable[[Path], None]
) -> None:
    place = packed_base(BASE, UNSLOTHS, str(bases))
    whole = (place / "rest.safetensors").read_bytes()
    break_(place / file)
    assert damage(place)
    assert packed_base(BASE, UNSLOTHS, str(bases)) == place
    assert len(packing.jobs) == 2
    assert damage(place) == ""
    assert (place / "rest.safetensors").read_bytes() == whole
    assert visible(bases) == [place.name]


def test_a_manifest_that_lists_less_is_none(packing: Packing, bases: Path) -> None:
    place = packed_base(BASE, UNSLOTHS, str(bases))
    manifest = json.loads((place / MANIFEST).read_text())
    (place / MANIFEST).write_text(json.dumps(manifest | {"files": {}}))
    assert damage(place) == MANIFEST


def test_a_failed_packing_is_one_sentence_and_leaves_nothing(packing: Packing, bases: Path) -> None:
    packing.problem = "CUDA driver version is insufficient"
    with pytest.raises(PipelineError) as told:
        packed_base(BASE, UNSLOTHS, str(bases))
    assert str(told.value) == "base model short could not be loaded in 4 bits by Unsloth: " + packing.problem
    assert visible(bases) == []
    packing.problem = ""
    assert visible(packed_base(BASE, UNSLOTHS, str(bases))) == [MANIFEST, "rest.safetensors"]


def test_what_a_killed_packing_left_goes_with_the_next(packing: Packing, bases: Path) -> None:
    place = packed_base(BASE, UNSLOTHS, str(bases))
    left, another = bases / f".{place.name}.01234567", bases / ".another.01234567"
    for folder in (left, another):
        folder.mkdir()
        (folder / "rest.safetensors").touch()
    packed_base(BASE, UNSLOTHS, str(bases))
    assert left.is_dir()  # nothing was packed
    (place / MANIFEST).unlink()
    packed_base(BASE, UNSLOTHS, str(bases))
    assert visible(bases) == sorted([another.name, place.name])


def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    packing: Packing, bases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from ernie_pipeline.models.grouped import quantized_base as packed

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(packed, "write_sealed", full)
    with pytest.raises(PipelineError, match=r"^the packed base model was not kept: ") as told:
        packed_base(BASE, UNSLOTHS, str(bases))
    assert "\n" not in str(told.value)
    assert visible(bases) == []


def test_of_several_processes_one_packs(packing: Packing, bases: Path) -> None:
    packing.takes_s = 0.5
    forked = multiprocessing.get_context("fork")
    processes = [forked.Process(target=packed_base, args=(BASE, UNSLOTHS, str(bases))) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(packing.jobs) == 1
    assert len(visible(bases)) == 1
