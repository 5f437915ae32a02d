"""Copies on the CPU, and the memory for them that a thread takes."""

import time
from collections.abc import ItemsView
from typing import NamedTuple

import pytest
import torch

from ernie_pipeline.models.copies import copy_to_cpu, room_ahead, wait_until_taken


class SlowlyTold(dict[str, torch.Tensor]):
    def items(self) -> ItemsView[str, torch.Tensor]:
        time.sleep(0.2)
        return super().items()


def test_a_copy_keeps_the_values_as_they_were_in_the_room_that_was_taken() -> None:
    tensors = {"a": torch.randn(3, 2), "b": torch.arange(4)}
    room = room_ahead(tensors).result()
    places = {name: tensor.data_ptr() for name, tensor in room.items()}
    copied, wanted = copy_to_cpu(tensors, room), {name: tensor.clone() for name, tensor in tensors.items()}
    for tensor in tensors.values():
        tensor.zero_()
    assert all(copied[name].equal(wanted[name]) for name in wanted)
    assert {name: tensor.data_ptr() for name, tensor in copied.items()} == places
    assert copy_to_cpu(tensors)["a"].equal(torch.zeros(3, 2))


def test_what_cannot_go_on_meanwhile_waits_until_the_room_is_taken() -> None:
    room = room_ahead(SlowlyTold(a=torch.ones(1)))
    assert not room.done()
    wait_until_taken()
    assert room.done()


class OnGpu(NamedTuple):
    """What is asked of a tensor to make room for it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    is_cuda: bool = True


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine that cannot pin memory, and this one can")
def test_where_no_memory_can_be_pinned_it_lies_anywhere() -> None:
    with pytest.raises(RuntimeError):
        torch.empty(2, pin_memory=True)
    room = room_ahead({"a": OnGpu((2, 3), torch.bfloat16)}).result()  # type: ignore[dict-item]
    assert (room["a"].shape, room["a"].dtype) == ((2, 3), torch.bfloat16)
