"""A micro-batch's two passes as a recorded sequence of launches (CUDA graphs): Python's part of a step is one call.

A pass is some 8,000 small kernels, which Python takes 0.4 s to launch: 8 short samples keep an H100 busy for a third of
that, 8,000 tokens for nine tenths. Recordings are of fixed shapes, so documents are filled up to a multiple of `BUCKET`
tokens; larger passes than `MOST_TOKENS` are computed as they are.
https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from ernie_pipeline.models.memory import free_memory, is_out_of_memory
from ernie_pipeline.training.schedule.micro_batches import Document, lay_end_to_end, rounded_up

BUCKET = 256
"""Filling costs half of it a micro-batch on average, and each multiple that turns up about a second to record."""
MOST_TOKENS = 12288
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

    `documents`: the most that a micro-batch has; what fills it up is one more, of up to `BUCKET` tokens. `largest`: the
    tokens of the largest pass to come that has no more than the given number. The gradients have to stay the tensors
    that they are, see `FlatParameters.clear_gradients`.
    """

    def __init__(self, loss_of: Loss, documents: int, pad_id: int, largest: Callable[[int], int]):
        self.loss_of, self.documents, self.pad_id, self.largest = loss_of, documents, pad_id, largest
        self.begun = False
        self.recordings: dict[int, _Recording] = {}
        self.pool: Any = None

    def begin(self) -> None:
        """Record from now on; until then passes are launched, which loads their kernels."""
        self.begun = True

    def __call__(self, documents: Sequence[Document], counted: torch.Tensor) -> torch.Tensor:
        """The loss of the documents, detached, with `counted` (a scalar) as the number to divide by.

        Raises `torch.OutOfMemoryError`, also where there is no memory to record in.
        """
        tokens = self.filled(sum(len(document.ids) for document in documents))
        inputs = lay_end_to_end(documents, self.pad_id, tokens, self.documents + 1)
        if not self.begun or tokens > MOST_TOKENS:
            return self._passes({name: value.to(counted.device) for name, value in inputs.items()}, counted)
        recording = self._recording(tokens, counted)
        for name, value in inputs.items():
            recording.inputs[name].copy_(value.pin_memory(), non_blocking=True)
        recording.counted.copy_(counted)
        recording.graph.replay()
        return recording.loss.clone()

    def filled(self, tokens: int) -> int:
        """The tokens that a pass over `tokens` computes."""
        bucket = rounded_up(tokens, BUCKET)
        return bucket if bucket <= MOST_TOKENS else tokens

    def forget(self) -> bool:
        """Give back the memory of all recordings; whether there were any."""
        had = bool(self.recordings)
        self.recordings.clear()
        self.pool = None
        return had

    def _passes(self, inputs: Inputs, counted: torch.Tensor) -> torch.Tensor:
        loss = self.loss_of(inputs, counted)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _recording(self, tokens: int, counted: torch.Tensor) -> _Recording:
        if not self.recordings:  # the largest first: those after it fit into its memory
            largest = self.filled(self.largest(MOST_TOKENS))
            self.recordings[largest] = self._record(largest, counted)
        if tokens not in self.recordings:
            self.recordings[tokens] = self._record(tokens, counted)
        return self.recordings[tokens]

    def _record(self, tokens: int, counted: torch.Tensor) -> _Recording:
        inputs = lay_end_to_end([], self.pad_id, tokens, self.documents + 1)
        inputs = {name: value.to(counted.device) for name, value in inputs.items()}
        counted, graph = counted.clone(), torch.cuda.CUDAGraph()
        free_memory()
        try:
            # recordings follow one another and never overlap, so they can share their memory; relaxed: a kernel that
            # no pass needed before is loaded meanwhile
            with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="relaxed"):
                loss = self._passes(inputs, counted)
        except RuntimeError as error:  # an error while it records makes the end of the recording fail, in other words
            if error.__context__ and is_out_of_memory(error.__context__):
                raise torch.OutOfMemoryError("no memory to record a pass in") from error
            raise
        self.pool = self.pool or graph.pool()
        return _Recording(graph, inputs, counted, loss)
