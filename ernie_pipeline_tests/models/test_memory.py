from typing import Any

import pytest
import torch

from ernie_pipeline.models.memory import capture_graph, is_out_of_memory, round_up


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_what_says_that_memory_ran_out(error: Exception, is_one: bool) -> None:
    assert is_out_of_memory(error) == is_one


class GraphThatCannotEnd:
    """`torch.cuda.graph` on a card whose capture an error broke off."""

    def __init__(self, *args: Any, **kwargs: Any):
        """With the arguments of torch's."""

    def __enter__(self) -> None:
        """A capture has begun."""

    def __exit__(self, *error: Any) -> None:
        raise RuntimeError("CUDA error: operation failed due to a previous error during capture")


@pytest.mark.parametrize("first", [torch.OutOfMemoryError("Tried to allocate 2.00 GiB"), MemoryError()])
def test_memory_that_runs_out_in_a_capture_is_told_as_that(first: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "graph", GraphThatCannotEnd)
    with pytest.raises(torch.OutOfMemoryError, match="while a CUDA graph was captured"), capture_graph(None):  # type: ignore[arg-type]
        raise first


def test_a_capture_that_fails_for_another_reason_keeps_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "graph", GraphThatCannotEnd)
    with pytest.raises(RuntimeError, match="previous error during capture") as raised, capture_graph(None):  # type: ignore[arg-type]
        raise ValueError("of another kind")
    assert not is_out_of_memory(raised.value)


def test_what_is_captured_in_and_from_where_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Any] = []

    class GraphThatIsHeard(GraphThatCannotEnd):
        def __init__(self, *args: Any, **kwargs: Any):
            heard.extend([*args, kwargs])

        def __exit__(self, *error: Any) -> None:
            heard.append("ended")

    monkeypatch.setattr(torch.cuda, "graph", GraphThatIsHeard)
    with capture_graph("graph", "pool", "relaxed"):  # type: ignore[arg-type]
        heard.append("inside")
    assert heard == ["graph", {"pool": "pool", "capture_error_mode": "relaxed"}, "inside", "ended"]


def test_rounded_up_is_the_next_multiple() -> None:
    assert [round_up(number, 8) for number in (0, 1, 8, 9, 256)] == [0, 8, 8, 16, 256]
