"""Copies of tensors on the CPU, of a GPU's in pinned memory, which a thread may take ahead: a second for an adapter."""

from collections.abc import Mapping
from concurrent.futures import Future
from threading import Thread

import torch

Tensors = dict[str, torch.Tensor]

_takers: list[Thread] = []
"""Threads of their own: a pool would be without its thread in a fork of this process, and would wait for it."""


def copy_to_cpu(tensors: Mapping[str, torch.Tensor], into: Tensors | None = None) -> Tensors:
    """The values as they are now; written over `into`, a `room_for` them, if it is given."""
    copied = into or room_for(tensors)
    for name, tensor in tensors.items():
        copied[name].copy_(tensor.detach(), non_blocking=True)
    if any(tensor.is_cuda for tensor in tensors.values()):
        torch.cuda.synchronize()
    return copied


def room_for(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """As many tensors on the CPU, without values; for a GPU's in pinned memory, if there is any: it is faster."""

    def room(pinned: bool) -> Tensors:
        return {
            name: torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned and tensor.is_cuda)
            for name, tensor in tensors.items()
        }

    try:
        return room(pinned=True)
    except RuntimeError:  # as slow as it was is better than a training that is lost
        return room(pinned=False)


def room_ahead(tensors: Mapping[str, torch.Tensor]) -> Future[Tensors]:
    """`room_for` them, from a thread. It has to be held: what is freed, torch gives back at each capture of a graph."""
    room = Future[Tensors]()
    _takers.append(Thread(target=_take, args=(tensors, room)))
    _takers[-1].start()
    return room


def wait_until_taken() -> None:
    """Until no thread takes memory any more, as none may while a graph is captured."""
    while _takers:
        _takers.pop().join()


def _take(tensors: Mapping[str, torch.Tensor], room: Future[Tensors]) -> None:
    try:
        room.set_result(room_for(tensors))
    except Exception as error:  # for whoever needs it
        room.set_exception(error)
