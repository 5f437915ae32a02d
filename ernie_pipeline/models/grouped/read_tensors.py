"""safetensors files read to a device by way of pinned memory, which threads fill while the device takes what they have.

Of a memory map, pages would be copied one by one. https://huggingface.co/docs/safetensors/index#format
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ernie_pipeline.utils.errors import PipelineError

THREADS = 8
CHUNK = 2**24
"""Bytes that are read at once. Each thread has two pieces of pinned memory of this size."""
LARGEST_HEADER = 10**8
"""Bytes, as safetensors has it."""
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""By their names in a file's header."""

Tensors = dict[str, torch.Tensor]


def read_tensors(files: Sequence[Path], device: str) -> Tensors:
    """The tensors of all files, each in memory of its own on `device` ("cpu", "cuda:0"), there when this returns.

    Raises `PipelineError` for a file that is cut off or is not in this format, and `OSError`.
    """
    with ThreadPoolExecutor(THREADS) as threads:
        found = threads.map(lambda file: _read_file(file, torch.device(device)), files)
        return {name: tensor for tensors in found for name, tensor in tensors.items()}


class _Place(NamedTuple):
    """Where a tensor's bytes are in the file, counted from the end of its header, and what they fill."""

    begin: int
    end: int
    into: torch.Tensor


class _Piece:
    """Memory to read into, pinned where the device is a GPU, which then takes its bytes in its own time."""

    def __init__(self, device: torch.device):
        self.device, on_gpu = device, device.type == "cuda"
        self.memory = torch.empty(CHUNK, dtype=torch.uint8, pin_memory=on_gpu)
        self.view = memoryview(self.memory.numpy())  # type: ignore[arg-type]
        self.taken = torch.cuda.Event() if on_gpu else None  # type: ignore[no-untyped-call]

    def is_being_taken(self) -> None:
        """From now on, until all is done that the device has been told."""
        if self.taken:
            self.taken.record(torch.cuda.current_stream(self.device))

    def wait(self) -> None:
        """Until it may be filled anew."""
        if self.taken:
            self.taken.synchronize()


def _read_file(file: Path, device: torch.device) -> Tensors:
    with FileIO(file) as stream:
        try:
            header = _header(stream)
            tensors = {
                name: torch.empty(entry["shape"], dtype=DTYPES[entry["dtype"]], device=device)
                for name, entry in header.items()
            }
            places = [_place(header[name], tensor) for name, tensor in tensors.items()]
            _fill(places, stream, device)
        except (ValueError, KeyError, TypeError, EOFError) as error:
            raise PipelineError(f"{file} cannot be read as safetensors ({error}); remove {file.parent}") from error
    return tensors


def _header(stream: FileIO) -> dict[str, Any]:
    """What the file says of each of its tensors: `dtype`, `shape` and `data_offsets`."""
    size = int.from_bytes(_read_into(stream, memoryview(bytearray(8))), "little")
    if size > LARGEST_HEADER:
        raise ValueError(f"its header would have {size} bytes")
    header: dict[str, Any] = json.loads(bytes(_read_into(stream, memoryview(bytearray(size)))))
    header.pop("__metadata__", None)
    return header


def _place(entry: dict[str, Any], tensor: torch.Tensor) -> _Place:
    begin, end = entry["data_offsets"]
    if end - begin != tensor.nbytes:
        raise ValueError(f"{end - begin} bytes where {tensor.nbytes} belong")
    return _Place(begin, end, tensor.view(-1).view(torch.uint8))


def _fill(places: Sequence[_Place], stream: FileIO, device: torch.device) -> None:
    pieces, end = (_Piece(device), _Piece(device)), max((place.end for place in places), default=0)
    for start in range(0, end, CHUNK):
        piece, stop = pieces[start // CHUNK % 2], min(start + CHUNK, end)
        piece.wait()
        _read_into(stream, piece.view[: stop - start])
        for place in places:
            first, last = max(place.begin, start), min(place.end, stop)
            if first < last:
                into = place.into[first - place.begin : last - place.begin]
                into.copy_(piece.memory[first - start : last - start], non_blocking=True)
        piece.is_being_taken()
    for piece in pieces:
        piece.wait()


def _read_into(stream: FileIO, view: memoryview) -> memoryview:
    """Fill it with what comes next in the file. Raises `EOFError` where that is too little."""
    done = 0
    while done < len(view):
        read = stream.readinto(view[done:])
        if not read:
            raise EOFError("it is cut off")
        done += read
    return view
