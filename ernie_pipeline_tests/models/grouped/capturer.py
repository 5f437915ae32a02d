"""Capturing without CUDA."""

from typing import Any, ClassVar

import pytest
import torch


class Graph:
    """In the place of a CUDA graph, which computes nothing here."""

    def pool(self) -> str:
        return "a pool"

    def replay(self) -> None:
        pass


class Capturer:
    """In the place of torch.cuda.graph."""

    pools: ClassVar[list[Any]] = []

    def __init__(self, graph: Any, pool: Any, **settings: Any):
        self.pools.append(pool)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is not None:  # as an error while it captures makes its end fail, in other words
            raise RuntimeError("operation failed due to a previous error during capture")


@pytest.fixture
def capturer(monkeypatch: pytest.MonkeyPatch) -> type[Capturer]:
    """Capturing without CUDA: what is to be captured is computed then and there."""
    monkeypatch.setattr(torch.cuda, "graph", Capturer)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(Capturer, "pools", [])
    return Capturer
