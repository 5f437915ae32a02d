"""The weights of a base model's checkpoint, one at a time, by the names that its files have."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ernie_pipeline.models.spec import BaseCheckpoint
from ernie_pipeline.utils.errors import PipelineError, first_line

INDEX, ONE_FILE = "model.safetensors.index.json", "model.safetensors"


class BaseWeights:
    """A checkpoint's safetensors files, opened; none of it is in memory."""

    def __init__(self, base: BaseCheckpoint):
        self.base = base
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._stack, self._file_of = ExitStack(), dict[str, Any]()

    def __enter__(self) -> "BaseWeights":
        try:
            for file in self._files():
                opened = self._stack.enter_context(safe_open(file, framework="pt", device="cpu"))
                for name in opened.keys():  # noqa: SIM118
                    self._file_of[name] = opened
                    self.shapes[name] = tuple(opened.get_slice(name).get_shape())
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            self._stack.close()
            raise PipelineError(
                f"base model {self.base.name}: its weights cannot be read ({first_line(error)}); put that checkpoint "
                "back, as safetensors"
            ) from error
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def read(self, name: str) -> torch.Tensor:
        """A weight as the file has it. Raises `PipelineError`."""
        try:
            tensor: torch.Tensor = self._file_of[name].get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise PipelineError(f"base model {self.base.name}: {name} cannot be read ({first_line(error)})") from error
        return tensor

    def _files(self) -> list[Path]:
        index = self._locate(INDEX, optional=True)
        if index is None:
            return [self._locate(ONE_FILE) or Path(ONE_FILE)]
        names = sorted({*json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
        return [self._locate(name) or Path(name) for name in names]

    def _locate(self, name: str, optional: bool = False) -> Path | None:
        """Where a file of the checkpoint is; of a hub's commit, fetched if it is not in the cache."""
        if self.base.revision is None:
            file = Path(self.base.checkpoint) / name
            return None if optional and not file.is_file() else file
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        try:
            return Path(hf_hub_download(self.base.checkpoint, name, revision=self.base.revision))
        except EntryNotFoundError:
            if optional:
                return None
            raise
