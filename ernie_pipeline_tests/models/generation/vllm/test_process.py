"""What vLLM's process says of its end, in one sentence: by a Python that lacks vLLM, and by programs that only end."""

import json
import sys
from pathlib import Path

import pytest
import torch

from ernie_pipeline.models.generation.vllm import worker
from ernie_pipeline.models.generation.vllm.process import Batch, vllm_process
from ernie_pipeline.utils.errors import PipelineError

WEIGHTS = [(f"weight {n}", torch.ones(2**20)) for n in range(3)]


def told_by(python: Path) -> str:
    with pytest.raises(PipelineError) as told, vllm_process(python, "a_base in vllm==1", {}) as vllm:
        vllm.load({"model": "somewhere"}, WEIGHTS)
    assert "\n" not in str(told.value)
    return str(told.value)


def script(folder: Path, text: str) -> Path:
    (folder / "python").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "python").chmod(0o755)
    return folder / "python"


def test_what_the_worker_meets_comes_back_as_its_reason() -> None:
    assert told_by(Path(sys.executable)) == (
        "a_base in vllm==1 failed (No module named 'vllm'; what it wrote stands above): set execution.generator to "
        '"own"'
    )


@pytest.mark.parametrize(
    ("text", "reason"), [("exit 3", "it ended with status 3"), ("kill -9 $$", "it was ended by signal 9")]
)
def test_an_end_without_a_word_is_told(text: str, reason: str, tmp_path: Path) -> None:
    assert told_by(script(tmp_path, text)) == (
        f'a_base in vllm==1 failed ({reason}; what it wrote stands above): set execution.generator to "own"'
    )


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (
            ValueError("Free memory on device cuda:0 (3.1/79.2 GiB) on startup is less than desired GPU memory"),
            worker.MEMORY,
            "does not fit into memory beside the 4-bit model (Free memory on device",
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), worker.MEMORY, "does not fit"),
        (MemoryError(), worker.MEMORY, "(MemoryError)"),
        (
            ValueError(
                "1 validation error for ModelConfig\n  Value error, Model architectures ['A'] are not supported "
                "for now. Supported: [] [type=value_error, input_value=1]"
            ),
            worker.CHECKPOINT,
            "cannot be loaded as vLLM knows such models (Model architectures ['A'] are not supported for now. "
            "Supported: []): set",
        ),
        (ValueError("vLLM has no place for model.layers.0.a"), worker.CHECKPOINT, "has no place for model.layers.0.a"),
        (RuntimeError("Something else.\nIn detail"), worker.OTHER, "failed (Something else; what it wrote"),
    ],
)
def test_errors_are_told_by_their_kind(error: Exception, kind: str, sentence: str, tmp_path: Path) -> None:
    assert worker._kind(error) == kind
    line = json.dumps({"error": worker._sentence(error), "kind": worker._kind(error)}).replace("'", "'\\''")
    told = told_by(script(tmp_path, f"printf '%s\\n' '{line}'"))
    assert sentence in told
    assert told.startswith("a_base in vllm==1 ")
    assert told.endswith('set execution.generator to "own"')


def test_one_that_stops_in_the_middle_of_answers_is_told_and_what_was_heard_stays(tmp_path: Path) -> None:
    said = ['{"loaded": 1}', '{"answer": 1, "tokens": [5], "logprobs": []}']
    python = script(tmp_path, f"read a; read b; echo '{said[0]}'; read c; echo '{said[1]}'; exit 4")
    heard: list[int] = []
    batch = Batch([[1], [2]], [1, 1], [None, None], {})
    with vllm_process(python, "a_base", {}) as vllm:
        vllm.load({}, [])
        with pytest.raises(PipelineError, match="it ended with status 4"):
            vllm.answer(batch, lambda index, *_: heard.append(index))
    assert heard == [1]
