"""A micro-batch's two passes as a captured CUDA graph: Python's part of a step is one call.

A pass is some 8,000 small kernels, which Python takes 0.4 s to launch: 8 short samples keep an H100 busy for a third of
that, 8,000 tokens for nine tenths. Graphs have fixed shapes, so documents are filled up to a multiple of `BUCKET`
tokens; larger passes than `MAX_TOKENS` are launched kernel by kernel.
https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch

from ernie_pipeline.models.documents import Document
from ernie_pipeline.models.memory import capture_graph, free_memory, round_up
from ernie_pipeline.models.micro_batches.layout import Inputs, concatenate
from ernie_pipeline.utils.timeline import part

BUCKET, MANY_TOKENS = 128, 2048
"""Filling costs half of it a micro-batch on average, and each multiple that turns up a third of a second to capture. Of
more than `MANY_TOKENS` half of it would be little: there it is twice as much."""
MAX_TOKENS = 12288
"""Above that the GPU is the slower one, and nothing is gained."""

Loss = Callable[[Inputs, torch.Tensor], torch.Tensor]
"""The loss of a batch, given the number of tokens to divide its sum by; differentiable."""


def filled(tokens: int) -> int:
    """The tokens that a pass over `tokens` computes."""
    bucket = round_up(tokens, BUCKET if tokens <= MANY_TOKENS else 2 * BUCKET)
    return bucket if bucket <= MAX_TOKENS else tokens


def widths_of(passes: Iterable[int]) -> list[int]:
    """What to capture for passes of so many tokens; the widest first: those after it fit into its memory."""
    return sorted({width for width in map(filled, passes) if width <= MAX_TOKENS}, reverse=True)


class _Capture(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: Inputs
    num_tokens: torch.Tensor
    loss: torch.Tensor


class CapturedPasses:
    """The forward and backward pass of `loss_of` on documents without padding; gradients are added to the parameters'.

    `documents`: the most that a micro-batch has; what fills it up is one more, of up to twice `BUCKET` tokens.
    `to_come`: the tokens of each pass to come, the one under way included. The gradients have to stay the tensors that
    they are, see `FlatParameters.clear_gradients`.
    """

    def __init__(
        self, loss_of: Loss, documents: int, pad_id: int, to_come: Callable[[], Iterable[int]], device: str = "cuda"
    ) -> None:
        self.loss_of, self.documents, self.pad_id, self.to_come = loss_of, documents, pad_id, to_come
        self.device = device
        self.begun = self.ahead = False
        """Whether passes are captured, and whether those to come are already."""
        self.captures: dict[int, _Capture] = {}
        self.pool: Any = None

    def begin(self) -> None:
        """Capture from now on; until then passes are launched, which loads their kernels."""
        self.begun = True

    def __call__(self, documents: Sequence[Document], num_tokens: float) -> torch.Tensor:
        """The loss of the documents, detached, with `num_tokens` as the number to divide by.

        Raises `torch.OutOfMemoryError`, also where there is no memory to capture in.
        """
        if self.begun and not self.ahead:
            self._capture_ahead()
        tokens = filled(sum(len(document.ids) for document in documents))
        inputs = concatenate(documents, self.pad_id, tokens, self.documents + 1)
        if not self.begun or tokens > MAX_TOKENS:
            return self._passes(
                {name: value.to(self.device) for name, value in inputs.items()},
                torch.tensor(num_tokens, device=self.device),
            )
        capture = self._capture_of(tokens)
        for name, value in inputs.items():
            capture.inputs[name].copy_(value.pin_memory(), non_blocking=True)
        capture.num_tokens.fill_(num_tokens)
        capture.graph.replay()
        return capture.loss.clone()

    def release(self) -> bool:
        """Give back the memory of all captures; whether there were any."""
        had = bool(self.captures)
        self.captures.clear()
        self.ahead = False
        self.pool = None
        return had

    def _passes(self, inputs: Inputs, num_tokens: torch.Tensor) -> torch.Tensor:
        loss = self.loss_of(inputs, num_tokens)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _capture_ahead(self) -> None:
        """All at once: several ranks do so in the same step, and then none waits in a later one for another's."""
        for tokens in widths_of(self.to_come()):
            self._capture_of(tokens)
        self.ahead = True

    def _capture_of(self, tokens: int) -> _Capture:
        if tokens not in self.captures:
            self.captures[tokens] = self._capture(tokens)
        return self.captures[tokens]

    def _capture(self, tokens: int) -> _Capture:
        inputs = concatenate([], self.pad_id, tokens, self.documents + 1)
        inputs = {name: value.to(self.device) for name, value in inputs.items()}
        num_tokens, graph = torch.ones((), device=self.device), torch.cuda.CUDAGraph()
        free_memory()
        # captures follow one another and never overlap, so they can share their memory; relaxed: a kernel that no pass
        # needed before is loaded meanwhile
        with (
            part(f"capture of {tokens} tokens"),
            capture_graph(graph, pool=self.pool, capture_error_mode="relaxed"),
        ):
            loss = self._passes(inputs, num_tokens)
        self.pool = self.pool or graph.pool()
        return _Capture(graph, inputs, num_tokens, loss)
