"""vLLM's process from this side: started, given a model, asked, and ended."""

import fcntl
import json
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch

from ernie_pipeline.models.generation.vllm import worker
from ernie_pipeline.models.generation.vllm.interpreter import OR_OWN, environment
from ernie_pipeline.utils.errors import PipelineError

PIPE_BYTES = 2**20
"""What Linux lets any user have; by default a pipe holds 64 KiB."""
END_S = 20
"""Seconds that vLLM gets to end by itself."""
QUIET = {
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",  # all it needs is given
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine reads the weights where the pipe is
}

Tensors = Iterable[tuple[str, torch.Tensor]]
Values = dict[str, Any]
Hear = Callable[[int, list[int], list[float]], None]


class Batch(NamedTuple):
    """Prompts (token ids), the tokens that each answer may have, their seeds (None: greedy), and what all share of
    vLLM's `SamplingParams`."""

    prompts: Sequence[Sequence[int]]
    budgets: Sequence[int]
    seeds: Sequence[int | None]
    sampling: Mapping[str, Any]


class VllmProcess:
    """A vLLM that has loaded a model. `facts`: seconds of its imports, of the weights and of all, and its cache."""

    def __init__(self, child: "subprocess.Popen[bytes]", who: str):
        self._child, self._who = child, who
        self.facts: Values = {}

    def load(self, arguments: Values, tensors: Tensors) -> None:
        """Give it the engine's `arguments` and the model's weights. Raises `PipelineError`."""
        with self._told():
            self._send(arguments)
            for name, tensor in tensors:
                flat = tensor.detach().cpu().contiguous().flatten()
                frame = {"name": name, "dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
                self._send(frame, flat.view(torch.uint8).numpy())
            self._send({})
            self.facts = self._hear()

    def answer(self, batch: Batch, hear: Hear) -> None:
        """Answer a batch; `hear` is told each one's index, tokens and log-probabilities. Raises `PipelineError`."""
        with self._told():
            self._send(batch._asdict())
            while "done" not in (said := self._hear()):
                hear(said["answer"], said["tokens"], said["logprobs"])

    def _send(self, values: Mapping[str, Any], content: Any = b"") -> None:
        self._given.write(json.dumps(values, separators=(",", ":")).encode() + b"\n")
        self._given.write(content)
        self._given.flush()

    def _hear(self) -> Values:
        """The next line. Raises `BrokenPipeError` where there is none, and `PipelineError` for an error."""
        line = self._said.readline()
        if not line:
            raise BrokenPipeError
        said: Values = json.loads(line)
        if "error" in said:
            raise _error(said, self._who)
        return said

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What it says of an error, where it stops to read or to write."""
        try:
            yield
        except BrokenPipeError as error:
            lines = [json.loads(line) for line in self._said.readlines()]
            last = next((said for said in lines if "error" in said), None)
            self._child.wait()
            raise _error(last or {"error": _ending(self._child.returncode), "kind": worker.OTHER}, self._who) from error

    @property
    def _given(self) -> BinaryIO:
        assert self._child.stdin
        return self._child.stdin  # type: ignore[return-value]

    @property
    def _said(self) -> BinaryIO:
        assert self._child.stdout
        return self._child.stdout  # type: ignore[return-value]


@contextmanager
def vllm_process(python: Path, who: str, more: Mapping[str, str]) -> Iterator[VllmProcess]:
    """vLLM by its `python`, with `more` in its environment; ended on the way out. `who`: its version, and of which
    model, for an error's sentence."""
    child = subprocess.Popen(
        [python, "-I", worker.__file__],  # -I: of its folder and of this environment it shall import nothing
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**environment(python), **QUIET, **more},
    )
    assert child.stdin
    with suppress(OSError, AttributeError):  # slower, then
        fcntl.fcntl(child.stdin, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    done = False
    try:
        yield VllmProcess(child, who)
        done = True
    finally:
        _end(child, by_itself=done)


def _end(child: "subprocess.Popen[bytes]", by_itself: bool) -> None:
    assert child.stdin
    assert child.stdout
    with suppress(BrokenPipeError):
        child.stdin.close()
    try:
        child.wait(END_S if by_itself else 0)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    child.stdout.close()


def _ending(status: int) -> str:
    return f"it was ended by signal {-status}" if status < 0 else f"it ended with status {status}"


def _error(said: Values, who: str) -> PipelineError:
    reason = str(said["error"]).rstrip(".")
    if said["kind"] == worker.MEMORY:
        return PipelineError(
            f"{who} does not fit into memory beside the 4-bit model ({reason}): use a GPU with more, raise "
            f"execution.memory_limit_gib or gpu.memory_gib if they are set, {OR_OWN}"
        )
    if said["kind"] == worker.CHECKPOINT:
        return PipelineError(f"{who} cannot be loaded as vLLM knows such models ({reason}): {_set_own()}")
    return PipelineError(f"{who} failed ({reason}; what it wrote stands above): {_set_own()}")


def _set_own() -> str:
    return OR_OWN.removeprefix("or ")
