"""The registered model's code: MLflow stores this file with the model and runs it wherever the model is loaded.

It pins what the adapter was trained on. A base model from the hub is loaded at its commit, one from a folder only if
that still hashes to the recorded version; quantization and LoRA are applied, and checked, as in training.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pandas as pd

from ernie_pipeline.demo import BASE
from ernie_pipeline.models import backend_named
from ernie_pipeline.models.spec import ModelSpec
from ernie_pipeline.registry.serving import scoring_server
from ernie_pipeline.registry.serving.conversation import Settings, checked_settings, messages_of, refuse_unknown
from ernie_pipeline.registry.serving.refusal import Refusal
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.lighter_imports import bitsandbytes_without_compiler

if TYPE_CHECKING:
    from ernie_pipeline.registry.serving.answering import Prompt

COLUMNS = ("question", "messages")


class ServedModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Answers maths questions: a 4-bit base model with its adapter, greedy unless asked otherwise."""

    def load_context(self, context: mlflow.pyfunc.PythonModelContext) -> None:
        """Load base, adapter and tokenizer, on CUDA where there is one. Raises `PipelineError` for another base."""
        self.served: dict[str, Any] = json.loads(Path(context.artifacts["served"]).read_text(encoding="utf-8"))
        spec = ModelSpec(**self.served["spec"])
        base = spec.base.model_copy(update={"checkpoint": pinned_checkpoint(self.served["spec"]["base"])})
        bitsandbytes_without_compiler()
        # here, as MLflow runs this file when it saves the model too, in a process that needs no torch
        import torch

        from ernie_pipeline.registry.serving.answering import Answering

        cuda = torch.cuda.is_available()
        # grouped and peft load each other's adapters: where the one's device is not, it is served by the other
        backend = "peft" if spec.backend == "grouped" and not cuda else spec.backend
        changes = {"base": base, "backend": backend, "adapter": Path(context.artifacts["adapter"])}
        self.model = backend_named(backend).load(spec.model_copy(update=changes), "cuda" if cuda else "cpu")
        settings = {name: self.served[name] for name in ("instruction", "max_new_tokens", "max_batch")}
        self.answering = Answering(self.model, **settings)
        self.in_server = scoring_server.is_scoring_server()
        if self.in_server:
            scoring_server.prepare_server()

    def predict(self, context: object, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Column `question` or `messages` in, column `answer` out; `params` as the model's signature has them.

        Raises `Refusal`, which MLflow's server answers with a 4xx, before any work is done.
        """
        scoring_server.refuse_ignored()
        rows = _rows(model_input)
        if self.in_server and len(rows) > scoring_server.MAX_QUESTIONS:
            raise Refusal(f"{len(rows)} questions in one request; send at most {scoring_server.MAX_QUESTIONS}")
        settings = checked_settings(params or {}, self.served["max_new_tokens"])
        prompts = [self._prompt(row, settings, f"row {i}: " if rows[1:] else "") for i, row in enumerate(rows)]
        made = scoring_server.wait_for(self.answering.submit(prompts)) if self.in_server else self._offline(prompts)
        answers = [self.answering.answer(prompt, tokens).text for prompt, tokens in zip(prompts, made, strict=True)]
        return pd.DataFrame({"answer": answers})

    def _prompt(self, row: dict[str, Any], settings: Settings, place: str) -> "Prompt":
        try:
            return self.answering.prompt(messages_of(row, self.served["instruction"]), settings)
        except Refusal as refusal:
            raise Refusal(place + refusal.sentence) from None

    def _offline(self, prompts: Sequence["Prompt"]) -> list[list[int]]:
        """The answers' tokens, for a caller in this process, who may have any number of questions."""
        return self.answering.at_once(prompts, self.served["max_batch"])

    def logits(self, input_ids: list[int]) -> list[float]:
        """The logits of the token that follows `input_ids`, to compare with those after training."""
        last: list[float] = self.model.logits(input_ids)[-1].tolist()
        return last

    def agent_app(self, name: str) -> Any:
        """MLflow's agent server for this model, called `name`: an ASGI application."""
        from ernie_pipeline.registry.serving.agent_server import agent_app

        return agent_app(self.answering, name)


def _rows(model_input: Any) -> list[dict[str, Any]]:
    """The rows of a table, or of what makes one."""
    try:
        table = pd.DataFrame(model_input)
        rows = [dict(zip(table.columns, map(_plain, row), strict=True)) for row in table.to_numpy(object)]
    except (ValueError, TypeError, RecursionError):
        raise Refusal("the input must be rows with a question or messages") from None
    if not rows:
        raise Refusal("the input has no rows: give at least one question")
    for row in rows:
        refuse_unknown(row, COLUMNS)
    if any(isinstance(row.get("messages"), dict) for row in rows):
        # {"messages": [...]} alone is one conversation, of which MLflow makes a table with a row for each message
        return [{"messages": [row["messages"] for row in rows]}]
    return rows


def _plain(value: Any) -> Any:
    """NumPy's arrays and numbers, which MLflow may make of JSON, as Python's."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return [_plain(item) for item in value] if isinstance(value, list) else value


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


mlflow.models.set_model(ServedModel())
