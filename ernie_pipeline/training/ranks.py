"""The processes that train together: one alone, or those that torchrun started, each with a GPU of its own."""

import datetime
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

PATIENCE = datetime.timedelta(minutes=30)
"""How long a rank waits for another that loads the model or writes a checkpoint."""

BUCKET = 2**25
"""Gradient values (fp32: 128 MiB) that are exchanged at once."""


@dataclass(frozen=True)
class Ranks:
    """This process among `size`. With one process nothing is exchanged."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def first(self) -> bool:
        """Whether it is the one that reports and writes."""
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """The sums of `values` over all ranks, the same on each."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def any(self, *flags: bool) -> list[bool]:
        """For each of `flags`, whether it is set on some rank."""
        return [value > 0 for value in self._reduced(flags, dist.ReduceOp.MAX)]

    def wait(self) -> None:
        """Until every rank has come this far."""
        if self.size > 1:
            dist.barrier()

    def broadcast_first(self, tensors: Sequence[torch.Tensor]) -> None:
        """Give every rank the first one's values."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def average_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Give every rank the mean of all ranks' gradients; what has one on no rank keeps none, and is not stepped."""
        if self.size == 1:
            return
        found = self._reduced([p.grad is not None for p in parameters], dist.ReduceOp.MAX)
        used = [p for p, somewhere in zip(parameters, found, strict=True) if somewhere]
        for bucket in _buckets(used):
            for parameter in bucket:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            gradients = [p.grad.flatten() for p in bucket if p.grad is not None]
            flat = gradients[0] if len(gradients) == 1 else torch.cat(gradients)  # a single one is not copied
            dist.all_reduce(flat)
            flat /= self.size
            for parameter, part in zip(bucket, torch.split(flat, [p.numel() for p in bucket]), strict=True):
                parameter.grad = part.view_as(parameter)

    def _reduced(self, values: Sequence[float], operation: dist.ReduceOp.RedOpType) -> list[float]:
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, operation)
        return [float(value) for value in tensor.tolist()]


def _buckets(parameters: Sequence[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    bucket: list[torch.nn.Parameter] = []
    size = 0
    for parameter in parameters:
        if bucket and size + parameter.numel() > BUCKET:
            yield bucket
            bucket, size = [], 0
        bucket.append(parameter)
        size += parameter.numel()
    if bucket:
        yield bucket


@contextmanager
def join_ranks() -> Iterator[Ranks]:
    """Join the processes that torchrun has started (it says so in the environment), over NCCL on CUDA, else Gloo.

    Each takes the GPU of its local rank as its current device.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks()
        return
    device, backend = "cpu", "gloo"
    if torch.cuda.is_available():
        device, backend = f"cuda:{os.environ['LOCAL_RANK']}", "nccl"
        torch.cuda.set_device(device)
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Ranks(dist.get_rank(), size, device)
    finally:
        dist.destroy_process_group()
