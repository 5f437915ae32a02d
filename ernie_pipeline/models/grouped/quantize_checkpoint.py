"""A checkpoint quantized to 4 bits as it is read: a layer at a time, so that no more of it is ever in memory.

Each weight is what bitsandbytes makes of it. A layer's routed experts are one stack, whose quantization constants are
quantized together. What is written are safetensors files in the names and quantization states of bitsandbytes, one a
layer and one for the rest, which `quantized_base.py` reads.
"""

import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ernie_pipeline.models.quantize import COMPUTE_DTYPES, block_size
from ernie_pipeline.utils.errors import PipelineError, first_line

REST = "rest"
INDEX, ONE_FILE = "model.safetensors.index.json", "model.safetensors"
EMBEDDINGS, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
READERS, WRITERS = 8, 4
"""Threads: that read tensors into a layer's memory, and that write layers while others are made."""

Tensors = dict[str, torch.Tensor]
Quantization = Mapping[str, Any]


class Part(NamedTuple):
    """A tensor of the checkpoint, by its key, and where in a parameter of the model it belongs."""

    key: str
    place: Any
    """As an index."""


class Parameter(NamedTuple):
    """A parameter of the model: the parts that it is made of, and how it is held."""

    name: str
    shape: torch.Size
    dtype: torch.dtype
    quantized: bool
    parts: tuple[Part, ...]


def quantize_checkpoint(
    checkpoint: str, revision: str | None, config: Any, quantization: Quantization, folder: Path, device: str
) -> None:
    """Write the quantized parameters of an ERNIE-4.5 checkpoint (folder, or hub id at a commit) into `folder`.

    `config` is the checkpoint's own. Raises `PipelineError` when a weight is missing, has another shape, or cannot be
    read.
    """
    with _Checkpoint(checkpoint, revision) as source:
        layers: dict[str, list[Parameter]] = {}
        for parameter in _parameters(source, config, quantization):
            layers.setdefault(_file_of(parameter.name), []).append(parameter)
        with ThreadPoolExecutor(READERS) as readers, ThreadPoolExecutor(WRITERS) as writers:
            written: list[Future[None]] = []
            for file, parameters in layers.items():
                tensors: Tensors = {}
                for parameter in parameters:
                    tensors |= _held(parameter, source.read(parameter, device, readers), quantization)
                written.append(writers.submit(_write, tensors, folder / f"{file}.safetensors"))
                if len(written) > WRITERS:  # no more layers in memory than are being written
                    written.pop(0).result()
            for each in written:
                each.result()


def model_skeleton(config: Any, quantization: Quantization, has_own_output: bool = False) -> Any:
    """The model of a configuration without weights, on the meta device.

    `has_own_output`: its output layer is not its embeddings, whatever the configuration says.
    """
    from transformers import AutoModelForCausalLM

    if has_own_output:
        config = copy.deepcopy(config)
        config.tie_word_embeddings = False
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=COMPUTE_DTYPES[quantization["compute_dtype"]])


def complete(model: Any, device: str) -> None:
    """What `model_skeleton` has besides its parameters, once these have values: buffers, which follow from the
    configuration and are in no checkpoint, and the output layer where it is the embeddings."""
    model.model.rotary_emb = type(model.model.rotary_emb)(config=model.config).to(device)
    model.tie_weights()


class _Checkpoint:
    """The tensors of a checkpoint's safetensors files, read where they lie."""

    def __init__(self, checkpoint: str, revision: str | None):
        self.name, self.revision = checkpoint, revision
        self._stack, self._files = ExitStack(), dict[str, Any]()
        self.file_of: dict[str, str] = {}

    def __enter__(self) -> "_Checkpoint":
        with self._told():
            index = self._locate(INDEX)
            if index:
                self.file_of = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
            names = sorted({*self.file_of.values()}) or [ONE_FILE]
            with ThreadPoolExecutor(READERS) as threads:
                places = dict(zip(names, threads.map(self._locate, names), strict=True))
            for name, place in places.items():
                if place is None:
                    raise self.unreadable(f"there is no {name}; save it again as safetensors")
                self._files[name] = self._stack.enter_context(safe_open(place, framework="pt", device="cpu"))
            self.file_of = self.file_of or dict.fromkeys(self._files[names[0]].keys(), names[0])
        return self

    def _locate(self, name: str) -> Path | None:
        """Where a file of the checkpoint is, fetched from the hub if it is not in its cache; None if there is none.

        Raises `OSError` when one that has to be there is not in the cache and the hub does not answer.
        """
        if self.revision is None:
            file = Path(self.name) / name
            return file if file.is_file() else None
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            return Path(hf_hub_download(self.name, name, revision=self.revision))  # of a commit: no call if cached
        except EntryNotFoundError as error:
            if isinstance(error, LocalEntryNotFoundError) and name != INDEX:
                raise
            return None

    def has_own_output(self, dtype: torch.dtype) -> bool:
        """Whether an output layer is there that in `dtype` differs from the embeddings; else transformers ties them."""
        if not {EMBEDDINGS, OUTPUT} <= self.file_of.keys():
            return False
        with self._told():
            ours, theirs = (self._files[self.file_of[key]].get_tensor(key).to(dtype) for key in (EMBEDDINGS, OUTPUT))
        return not torch.equal(ours, theirs)

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def read(self, parameter: Parameter, device: str, readers: ThreadPoolExecutor) -> torch.Tensor:
        """The parameter on the device, in its dtype."""
        out = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)

        def fill(part: Part) -> None:
            found = self._files[self.file_of[part.key]].get_tensor(part.key)
            into = out[part.place]
            if found.shape != into.shape:
                raise self.unreadable(f"{part.key} has the shape {tuple(found.shape)}, not {tuple(into.shape)}")
            into.copy_(found)

        with self._told():
            list(readers.map(fill, parameter.parts))
        return out

    def unreadable(self, why: str) -> PipelineError:
        return PipelineError(f"base model {self.name}: its weights cannot be loaded ({why})")

    def _told(self) -> "_Told":
        return _Told(self.unreadable)


class _Told:
    """What safetensors and the disk raise, as one sentence."""

    def __init__(self, sentence: Callable[[str], PipelineError]):
        self.sentence = sentence

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError | ValueError | KeyError | SafetensorError):
            raise self.sentence(first_line(error)) from error


def _parameters(source: _Checkpoint, config: Any, quantization: Quantization) -> list[Parameter]:
    """Each parameter of the model and its parts. Raises `PipelineError` for what the checkpoint lacks or has besides.

    Keys that transformers knows to be of no use (the heads for further tokens) are left alone.
    """
    has_own_output = source.has_own_output(COMPUTE_DTYPES[quantization["compute_dtype"]])
    model, missing = model_skeleton(config, quantization, has_own_output), list[str]()
    stays = re.compile("|".join(map(re.escape, model._keep_in_fp32_modules_strict or [])) or "(?!)")
    found = []
    for name, empty in model.named_parameters():  # a tied one once
        parts = _parts(name, empty.shape, source.file_of)
        missing += [part.key for part in parts if part.key not in source.file_of]
        dtype = torch.float32 if stays.search(name) else empty.dtype
        found.append(Parameter(name, empty.shape, dtype, _is_quantized(model, name, empty), parts))
    if missing:
        raise source.unreadable(f"{len(missing)} are not there, among them {missing[0]}")
    useless = re.compile("|".join([*(model._keys_to_ignore_on_load_unexpected or []), re.escape(OUTPUT)]))
    placed = {part.key for parameter in found for part in parameter.parts}
    if strange := sorted(key for key in source.file_of.keys() - placed if not useless.search(key)):
        raise source.unreadable(f"config.json has no place for {len(strange)} of them, among them {strange[0]}")
    return found


def _parts(name: str, shape: torch.Size, keys: Mapping[str, str]) -> tuple[Part, ...]:
    """What of a checkpoint, in the hub's format or in transformers', makes up the model's parameter `name`."""
    if name not in keys:
        owner, _, last = name.rpartition(".")
        if last in ("gate_up_proj", "down_proj") and len(shape) == 3:
            return tuple(_expert_parts(owner, last, shape))
        in_hub = name.replace(".gate.moe_statics.", ".moe_statics.")
        return (Part(in_hub if in_hub in keys else name, ...),)
    return (Part(name, ...),)


def _expert_parts(experts: str, fused: str, shape: torch.Size) -> Iterator[Part]:
    """gate_up_proj [experts, 2 x intermediate, hidden]: gate first, then up."""
    names: Sequence[str] = ("gate_proj", "up_proj") if fused == "gate_up_proj" else ("down_proj",)
    height = shape[1] // len(names)
    for number in range(shape[0]):
        for position, name in enumerate(names):
            rows = slice(position * height, (position + 1) * height)
            yield Part(f"{experts}.{number}.{name}.weight", (number, rows))


def _is_quantized(model: Any, name: str, parameter: torch.Tensor) -> bool:
    """The stacks of experts, and the weights of linear layers but for the output's."""
    owner = model.get_submodule(name.rpartition(".")[0])
    is_linear = type(owner) is nn.Linear and name.endswith(".weight") and owner is not model.get_output_embeddings()
    return parameter.ndim == 3 or is_linear


def _held(parameter: Parameter, value: torch.Tensor, quantization: Quantization) -> Tensors:
    """What is written of a parameter, on the CPU: itself, or its 4 bits and their state."""
    if not parameter.quantized:
        return {parameter.name: value.cpu()}
    from bitsandbytes.functional import quantize_4bit

    four_bits, state = quantize_4bit(
        value,
        blocksize=block_size(value),
        compress_statistics=quantization["double"],
        quant_type=quantization["type"],
        quant_storage=torch.uint8,
    )
    parts = {f"{parameter.name}.{name}": part for name, part in state.as_dict(packed=True).items()}
    return {name: tensor.to("cpu", copy=True) for name, tensor in {parameter.name: four_bits, **parts}.items()}


def _file_of(name: str) -> str:
    parts = name.split(".")
    with suppress(ValueError):
        return f"layer-{int(parts[parts.index('layers') + 1]):03}"
    return REST


def _write(tensors: Tensors, file: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
