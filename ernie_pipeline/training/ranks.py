"""The processes that train together: one alone, or those that torchrun started, each with a GPU of its own."""

import datetime
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

PATIENCE = datetime.timedelta(minutes=30)
"""How long a rank waits for another that loads the model or writes a checkpoint."""

# torch 2.11, which goes with vLLM, knows them by their former names
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


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

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of all ranks' tensors, which takes the place of this one's."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def reduce_scatter(self, rows: torch.Tensor) -> torch.Tensor:
        """Of `rows` [ranks, width] the sum over all ranks of this one's row."""
        row = torch.empty_like(rows[0])
        _reduce_scatter(row, rows.view(-1))
        return row

    def all_gather(self, row: torch.Tensor) -> torch.Tensor:
        """The rows [ranks, width] of all ranks."""
        rows = row.new_empty(self.size, row.numel())
        _all_gather(rows.view(-1), row.view(-1))
        return rows

    def gather_first(self, value: Any) -> list[Any] | None:
        """For the first rank each one's value, small and without tensors of a GPU; None on the others."""
        values = [None] * self.size if self.first else None
        dist.gather_object(value, values)
        return values

    def send_first(self, tensor: torch.Tensor) -> None:
        """To the first rank, which calls `receive`: through the CPU's memory."""
        dist.send(tensor.cpu().contiguous(), 0)

    def receive(self, into: torch.Tensor, rank: int) -> None:
        """What `rank` sends, into a contiguous tensor on the CPU."""
        dist.recv(into, rank)

    def _reduced(self, values: Sequence[float], operation: dist.ReduceOp.RedOpType) -> list[float]:
        if self.size == 1:
            return list(values)
        # on the CPU: a GPU's tensor could be read only once all before it is computed, and Python would not run ahead
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, operation)
        return [float(value) for value in tensor.tolist()]


@contextmanager
def join_ranks() -> Iterator[Ranks]:
    """Join the processes that torchrun has started (it says so in the environment), over Gloo, and NCCL on CUDA.

    Each takes the GPU of its local rank as its current device. What lies in the CPU's memory always goes over Gloo.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks()
        return
    device, backend = "cpu", "gloo"
    if torch.cuda.is_available():
        device, backend = f"cuda:{os.environ['LOCAL_RANK']}", "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(device)
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Ranks(dist.get_rank(), size, device)
    finally:
        dist.destroy_process_group()
