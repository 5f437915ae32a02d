"""A micro-batch's two passes as a recorded sequence of launches (CUDA graphs): Python's part of a step is one call.

A step of 8 short samples keeps an H200 busy for a tenth of a second, in thousands of small kernels that Python takes
three times as long to launch. Recordings are of fixed shapes, so documents are filled up to a multiple of `BUCKET`
tokens; a number of tokens that turns up for the first time is computed unrecorded, and recorded when it comes again.
Large micro-batches are computed as they are.
https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from ernie_pipeline.reporter import Reporter
from ernie_pipeline.training.batches import Document, lay_end_to_end, rounded_up
from ernie_pipeline.training.memory import free_memory, is_out_of_memory

BUCKET = 256
"""Filling costs half of it a micro-batch on average, and each multiple that turns up a second to record."""
MOST_TOKENS = 4096
"""Above that the GPU is the slower one, and nothing is gained."""

Inputs = dict[str, torch.Tensor]
Loss = Callable[[Inputs, torch.Tensor], torch.Tensor]
"""The loss of a batch, given the number of tokens to divide its sum by; differentiable."""


class _Recording(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: Inputs
    counted: torch.Tensor
    loss: torch.Tensor


class RecordedPasses:
    """The forward and backward pass of `loss_of` on documents laid end to end; gradients are added to the parameters'.

    `documents`: the most that a micro-batch has; what fills it up is one more, of up to `BUCKET` tokens. The gradients
    have to stay the tensors that they are, see `FlatParameters.clear_gradients`.
    """

    def __init__(
        self,
        loss_of: Loss,
        documents: int,
        pad_id: int,
        report: Reporter,
    ):
        self.loss_of, self.documents, self.pad_id = loss_of, documents, pad_id
        self.report, self.most_tokens = report, MOST_TOKENS
        self.recordings: dict[int, _Recording] = {}
        self.seen: set[int] = set()
        self.pool: Any = None

    def __call__(self, documents: Sequence[Document], counted: torch.Tensor) -> torch.Tensor:
        """The loss of the documents, detached, with `counted` (a scalar) as the number to divide by."""
        tokens = self.filled(sum(len(document.ids) for document in documents))
        inputs = lay_end_to_end(documents, self.pad_id, tokens, self.documents + 1)
        recording = self.recordings.get(tokens)
        if recording is None:
            on_device = {name: value.to(counted.device) for name, value in inputs.items()}
            if rounded_up(tokens, BUCKET) <= self.most_tokens and tokens in self.seen:
                recording = self._record(tokens, on_device, counted.clone())
            if recording is None:
                self.seen.add(tokens)
                return self._passes(on_device, counted)
        for name, value in inputs.items():
            recording.inputs[name].copy_(value.pin_memory(), non_blocking=True)
        recording.counted.copy_(counted)
        recording.graph.replay()
        return recording.loss.clone()

    def filled(self, tokens: int) -> int:
        """The tokens that a pass over `tokens` computes."""
        bucket = rounded_up(tokens, BUCKET)
        return bucket if bucket <= self.most_tokens else tokens

    def forget(self) -> None:
        """Give back the memory of all recordings."""
        self.recordings.clear()
        self.seen.clear()
        self.pool = None

    def _passes(self, inputs: Inputs, counted: torch.Tensor) -> torch.Tensor:
        loss = self.loss_of(inputs, counted)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _record(self, tokens: int, inputs: Inputs, counted: torch.Tensor) -> _Recording | None:
        """None, and no more recordings from now on, where there is no memory for them: they keep their own."""
        graph = torch.cuda.CUDAGraph()
        free_memory()
        try:
            # recordings follow one another and never overlap, so they can share their memory
            with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
                loss = self._passes(inputs, counted)
        except RuntimeError as error:  # an error while it records makes the end of the recording fail, in other words
            if not (is_out_of_memory(error) or (error.__context__ and is_out_of_memory(error.__context__))):
                raise
            self.most_tokens = 0
            self.report("no memory to record the steps in: they are launched one kernel at a time, which is slower", {})
            return None
        self.pool = self.pool or graph.pool()
        self.recordings[tokens] = _Recording(graph, inputs, counted, loss)
        return self.recordings[tokens]
