"""vLLM's side: reads a model and prompts from stdin, writes answers to stdout. Runs in the environment that has vLLM,
which has nothing of this package; see `process.py` for who starts it.

Input: a line of JSON, the engine's arguments; when vLLM asks for weights, frames of a line {"name", "dtype", "shape"}
and the tensor's bytes, ended by a line {}; then a line for each batch of prompts, see `_answer`. Output: lines of JSON,
each with one of the keys "loaded", "answer", "done", or "error" with a "kind".
"""

import json
import os
import sys
import threading
import time
from typing import Any, BinaryIO

LOAD_FORMAT = "ernie_pipeline"
MEMORY, CHECKPOINT, OTHER = "memory", "checkpoint", "other"
"""Kinds of errors."""
NO_MEMORY = ("out of memory", "Free memory on device", "No available memory", "KV cache is needed", "can't allocate")
UNKNOWN_MODEL = ("are not supported", "not initialized from", "no place for", "has no vLLM implementation")
QUEUED = 4096
"""Requests that the engine knows of: each costs the scheduler a little at every step."""


def main() -> None:
    """Load, then answer batches until stdin ends."""
    tell, given = _own_output(), sys.stdin.buffer
    try:
        engine = _engine(json.loads(given.readline()), given, tell)
        while line := given.readline():
            _answer(engine, json.loads(line), tell)
    except Exception as error:  # whatever vLLM meets is told by the one who started this
        tell({"error": _sentence(error), "kind": _kind(error)})
        raise


def _own_output() -> Any:
    """Writes lines to what was stdout; what else writes there goes to stderr from now on."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(values: dict[str, Any]) -> None:
        lines.write(json.dumps(values, separators=(",", ":")) + "\n")
        lines.flush()

    return tell


def _engine(arguments: dict[str, Any], given: BinaryIO, tell: Any) -> Any:
    start = time.monotonic()
    import torch
    from vllm import EngineArgs
    from vllm.model_executor.model_loader import register_model_loader
    from vllm.model_executor.model_loader.base_loader import BaseModelLoader
    from vllm.v1.engine.llm_engine import LLMEngine

    ready, seconds = time.monotonic(), [0.0]

    @register_model_loader(LOAD_FORMAT)
    class PipeLoader(BaseModelLoader):  # type: ignore[misc]
        """Takes the weights from the pipe."""

        def download_model(self, model_config: Any) -> None:
            """Nothing is elsewhere."""

        def load_weights(self, model: Any, model_config: Any) -> None:
            began = time.monotonic()
            try:
                loaded = model.load_weights(_tensors(given, torch))
            except KeyError as error:
                raise ValueError(f"vLLM has no place for {error.args[0]}") from error
            missing = {name for name, _ in model.named_parameters()} - loaded if loaded is not None else ()
            if missing:  # as vLLM's own loader asks
                raise ValueError(f"{len(missing)} weights were not initialized from it, among them {min(missing)}")
            seconds[0] = time.monotonic() - began

    engine = LLMEngine.from_engine_args(EngineArgs(load_format=LOAD_FORMAT, **arguments))
    tell(
        {
            "loaded": round(time.monotonic() - start, 1),
            "import_s": round(ready - start, 1),
            "weights_s": round(seconds[0], 1),
            "cached_tokens": (engine.vllm_config.cache_config.num_gpu_blocks or 0)
            * engine.vllm_config.cache_config.block_size,
        }
    )
    return engine


def _tensors(given: BinaryIO, torch: Any) -> Any:
    """The (name, tensor) pairs of the pipe, up to its empty frame."""
    while frame := json.loads(given.readline()):
        dtype, shape = getattr(torch, frame["dtype"]), frame["shape"]
        held = bytearray(torch.Size(shape).numel() * dtype.itemsize)
        if given.readinto(held) != len(held):  # type: ignore[attr-defined]
            raise EOFError("the weights ended in the middle of a tensor")
        yield frame["name"], torch.frombuffer(held, dtype=dtype).reshape(shape)


def _answer(engine: Any, batch: dict[str, Any], tell: Any) -> None:
    """Answer `batch["prompts"]` (token ids), of at most `batch["budgets"]` tokens each, drawn by its `batch["seeds"]`.

    `batch["sampling"]`: further arguments of vLLM's `SamplingParams`, the same for all. An answer is told as soon as it
    is there: {"answer": index, "tokens", "logprobs"}.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    engine.reset_prefix_cache()  # a batch owes nothing to those before it
    rows = list(zip(batch["prompts"], batch["budgets"], batch["seeds"], strict=True))
    added = 0
    while added < len(rows) or engine.has_unfinished_requests():
        while added < len(rows) and engine.get_num_unfinished_requests() < QUEUED:
            prompt, budget, seed = rows[added]
            how = SamplingParams(
                max_tokens=budget, seed=seed, output_kind=RequestOutputKind.FINAL_ONLY, **batch["sampling"]
            )
            engine.add_request(str(added), {"type": "token", "prompt_token_ids": prompt}, how)
            added += 1
        for done in engine.step():
            if done.finished:
                answer = done.outputs[0]
                drawn = [at[token].logprob for token, at in zip(answer.token_ids, answer.logprobs or (), strict=False)]
                tell({"answer": int(done.request_id), "tokens": list(answer.token_ids), "logprobs": drawn})
    tell({"done": len(rows)})


def _kind(error: BaseException) -> str:
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError) or any(each in text for each in NO_MEMORY):
        return MEMORY
    return CHECKPOINT if any(each in text for each in UNKNOWN_MODEL) else OTHER


def _sentence(error: BaseException) -> str:
    """What an error says: the first line that says something, of pydantic's the one with the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reasons = [line.removeprefix("Value error, ").partition(" [type=")[0] for line in lines if "Value error, " in line]
    return (reasons or lines or [type(error).__name__])[0]


def end_with_parent() -> None:
    """End when the process that started this one has ended, however: nobody would hear the answers."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    end_with_parent()
    main()
    os._exit(0)  # all is told: vLLM would take many seconds to put its things away
