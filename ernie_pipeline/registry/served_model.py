"""The registered model's code: MLflow stores this file with the model and runs it wherever the model is loaded.

It pins what the adapter was trained on. A base model from the hub is loaded at its commit, one from a folder only if
that still hashes to the recorded version; quantization and LoRA are applied, and checked, as in training.
"""

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from ernie_pipeline.demo import BASE
from ernie_pipeline.models import backend_named
from ernie_pipeline.models.spec import ModelSpec
from ernie_pipeline.utils.errors import PipelineError


class ServedModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Answers maths questions: a 4-bit base model with its adapter, greedy unless asked otherwise."""

    def load_context(self, context: mlflow.pyfunc.PythonModelContext) -> None:
        """Load base, adapter and tokenizer, on CUDA where there is one. Raises `PipelineError` for another base."""
        import torch

        self.served: dict[str, Any] = json.loads(Path(context.artifacts["served"]).read_text(encoding="utf-8"))
        spec = ModelSpec(**self.served["spec"])
        base = spec.base.model_copy(update={"checkpoint": pinned_checkpoint(self.served["spec"]["base"])})
        cuda = torch.cuda.is_available()
        # grouped and peft load each other's adapters: where the one's device is not, it is served by the other
        backend = "peft" if spec.backend == "grouped" and not cuda else spec.backend
        changes = {"base": base, "backend": backend, "adapter": Path(context.artifacts["adapter"])}
        self.model = backend_named(backend).load(spec.model_copy(update=changes), "cuda" if cuda else "cpu")
        self.turn = threading.Lock()  # the scoring server answers in threads; max_batch and seed hold for one at a time

    def predict(self, context: object, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Column `question` in, column `answer` out; `params` as the model's signature has them."""
        import torch

        from ernie_pipeline.models.backend import Sampling
        from ernie_pipeline.models.checkpoint.tokenizer import answer_texts, prompt_text, token_ids

        wanted = _checked({"max_new_tokens": self.served["max_new_tokens"]} | (params or {}))
        seed, tokenizer = wanted.pop("seed", -1), self.model.tokenizer
        prompts = [
            prompt_text(tokenizer, [{"role": "user", "content": self.served["instruction"] + question}])
            for question in pd.DataFrame(model_input)["question"]
        ]
        with self.turn:
            if seed >= 0:
                torch.manual_seed(seed)
            rows = self.served["max_batch"]
            made = self.model.generate(token_ids(tokenizer, prompts), Sampling(**wanted), rows=rows)
        return pd.DataFrame({"answer": answer_texts(tokenizer, made.tokens)})

    def logits(self, input_ids: list[int]) -> list[float]:
        """The logits of the token that follows `input_ids`, to compare with those after training."""
        last: list[float] = self.model.logits(input_ids)[-1].tolist()
        return last


def pinned_checkpoint(base: dict[str, Any]) -> str:
    """Where to load the recorded base model from: its hub id, or a folder that still has the recorded content."""
    if base["revision"] is not None:
        return str(base["checkpoint"])
    from ernie_pipeline.models.checkpoint.version import checkpoint_version

    places = [*(_demo_folders() if base["name"] == "demo" else ()), Path(base["checkpoint"])]
    folder = next((place for place in places if (place / "config.json").is_file()), None)
    if folder is None:
        hint = "install ernie_pipeline here" if base["name"] == "demo" else "put that checkpoint back"
        raise PipelineError(f"the base model of this adapter, {base['name']}, is not at {places[-1]}; {hint}")
    if (found := checkpoint_version(folder)) != base["version"]:
        raise PipelineError(
            f"base model {folder} is not the one that this model was trained on: its content is {found}, recorded is "
            f"{base['version']}; put that checkpoint back or train again"
        )
    return str(folder)


def _demo_folders() -> Iterator[Path]:
    """Where the demo checkpoint may be: the code beside a registered model comes without it, the installed one with."""
    yield BASE
    yield from (Path(entry) / "ernie_pipeline" / "demo" / BASE.name for entry in sys.path)
    for finder in sys.meta_path:  # an editable install has its own finder and no folder on the path
        spec = finder.find_spec("ernie_pipeline", None)
        for package in (spec and spec.submodule_search_locations) or ():
            yield Path(package) / "demo" / BASE.name


def _checked(params: dict[str, Any]) -> dict[str, Any]:
    """The caller's parameters; one that is out of range is the caller's error (400), not the server's."""
    ranges = {
        "max_new_tokens": ("at least 1", params["max_new_tokens"] >= 1),
        "temperature": ("at least 0", params.get("temperature", 0.0) >= 0),
        "top_p": ("above 0 and at most 1", 0 < params.get("top_p", 1.0) <= 1),
    }
    for name, (rule, holds) in ranges.items():
        if not holds:
            raise mlflow.exceptions.MlflowException.invalid_parameter_value(f"{name} must be {rule}")
    return params


mlflow.models.set_model(ServedModel())
