"""A quantized base that threads read while the process imports what will compute with it: seconds of each.

What runs here meanwhile imports nothing: two threads that import each other's modules may find them half made.
"""

from concurrent.futures import Future
from pathlib import Path
from threading import Thread

from ernie_pipeline.models.grouped.read_tensors import Tensors, read_tensors
from ernie_pipeline.models.spec import ModelSpec
from ernie_pipeline.store.hashing.hash_cache import remembered_sha256
from ernie_pipeline.store.quantized_base import damage, made_of, place_of
from ernie_pipeline.utils.timeline import part

_reading: dict[tuple[Path, str], Future[Tensors | None]] = {}


def begin_to_read(spec: ModelSpec, device: str) -> None:
    """Read the quantized base of `spec` onto `device`, an indexed one or "cpu", if there is an intact one."""
    made = made_of(spec.base.version, spec.quantization.model_dump(mode="json"))
    place, found = place_of(made, spec.quantized_bases), Future[Tensors | None]()
    _reading[place, device] = found
    Thread(target=_read, args=(place, device, found)).start()


def what_was_read(place: Path, device: str) -> Tensors | None:
    """The tensors of the base in that place, once; None where none was begun, or it was not intact or not readable."""
    begun = _reading.pop((place, device), None)
    if begun is None:
        return None
    with part("wait for the quantized base"):
        return begun.result()


def _read(place: Path, device: str, found: "Future[Tensors | None]") -> None:
    try:
        with part("check the quantized base, ahead"):
            damaged = damage(place, remembered_sha256)
        with part("read the quantized base, ahead"):
            found.set_result(None if damaged else read_tensors(sorted(place.glob("*.safetensors")), device))
    except Exception:  # whoever needs it reads it, and tells
        found.set_result(None)
