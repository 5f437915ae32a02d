"""safetensors files as `read_tensors` reads them, beside safetensors' own reader."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ernie_pipeline.models.grouped import read_tensors as reading
from ernie_pipeline.models.grouped.read_tensors import read_tensors
from ernie_pipeline.utils.errors import PipelineError


def write(folder: Path) -> list[Path]:
    """Two files: of every type, of no elements, of no dimensions, and one that is longer than what is read at once."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(-100, 100, (7, 11), generator=generator)
    kinds = {name: values.to(dtype) for name, dtype in reading.DTYPES.items()}
    save_file({**kinds, "one": torch.tensor(2.5), "none": torch.empty(0, 4)}, folder / "small.safetensors", {"a": "b"})
    save_file({"long": torch.randn(100, 33, generator=generator), "end": values}, folder / "long.safetensors")
    return sorted(folder.glob("*.safetensors"))


@pytest.mark.parametrize("chunk", [64, 1000, 2**24])
def test_it_reads_what_safetensors_itself_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(reading, "CHUNK", chunk)
    files = write(tmp_path)
    found = read_tensors(files, "cpu")
    wanted = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found[name], tensor), name
    memory = [tensor.untyped_storage() for tensor in found.values() if tensor.numel()]
    assert len({storage.data_ptr() for storage in memory}) == len(memory)  # each its own, as large as it is
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in found.values())


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def of_another_length(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b'"shape":[100,33]', b'"shape":[101,33]'))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, "it is cut off"),
        (of_another_length, "13200 bytes where 13332 belong"),
        (lambda file: file.write_bytes(b""), "it is cut off"),
        (lambda file: file.write_bytes(b"\x02\0\0\0\0\0\0\0{]"), "Expecting property name"),
        (lambda file: file.write_bytes(b"\xff" * 100), "its header would have 18446744073709551615 bytes"),
    ],
)
def test_a_file_that_is_none_is_one_sentence(tmp_path: Path, damage: Callable[[Path], None], reason: str) -> None:
    damage(next(file for file in write(tmp_path) if file.stem == "long"))
    with pytest.raises(PipelineError, match=f"long.safetensors cannot be read as safetensors \\({reason}") as told:
        read_tensors(sorted(tmp_path.iterdir()), "cpu")
    assert "\n" not in str(told.value)
