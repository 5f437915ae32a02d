"""What of captured passes there is without CUDA: filled shapes, what is captured when, and memory that is short."""

from typing import Any, ClassVar

import pytest
import torch

from ernie_pipeline.models.documents import Document
from ernie_pipeline.models.grouped.captured import BUCKET, MAX_TOKENS, CapturedPasses
from ernie_pipeline.models.grouped.padding_free import padding_free_loss
from ernie_pipeline.models.micro_batches.layout import concatenate
from ernie_pipeline.training.rows import Row

OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory")


@pytest.fixture
def model(grouped_adapter: Any) -> Any:
    yield grouped_adapter.module
    grouped_adapter.module.zero_grad()


@pytest.fixture
def docs(sums: list[Row]) -> list[Document]:
    return [row.document for row in sums[:4]]


def gradient(model: Any) -> torch.Tensor:
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])
    model.zero_grad()
    return found


def passes_of(model: Any, shapes: list[Any], largest: int = 100) -> CapturedPasses:
    def loss_of(inputs: dict[str, torch.Tensor], num_tokens: torch.Tensor) -> torch.Tensor:
        shapes.append({name: tuple(value.shape) for name, value in inputs.items()})
        return padding_free_loss(model.get_base_model(), inputs, max_seqlen=MAX_TOKENS) / num_tokens

    return CapturedPasses(loss_of, documents=4, pad_id=0, largest=lambda most: largest, device="cpu")


def test_batches_filled_to_the_same_shapes_have_the_loss_and_gradient_of_what_is_in_them(
    model: Any, docs: list[Document]
) -> None:
    num_tokens, shapes = 17.0, list[Any]()
    passes = passes_of(model, shapes)
    for batch in (docs[:2], docs[1:3], docs[:2]):
        found, of_found = passes(batch, num_tokens), gradient(model)
        inputs = concatenate(batch, 0)
        wanted = padding_free_loss(model.get_base_model(), inputs, max_seqlen=128) / 17
        wanted.backward()  # type: ignore[no-untyped-call]
        assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
        assert not found.requires_grad
        of_wanted = gradient(model)
        assert (of_found - of_wanted).norm() < 1e-4 * of_wanted.norm()
    assert shapes[0] == shapes[1] == shapes[2]
    assert shapes[0] == dict.fromkeys(("input_ids", "labels", "position_ids"), (1, BUCKET)) | {"cu_seqlens": (6,)}
    assert passes.captures == {}  # it has not begun


def test_what_is_too_large_to_be_captured_is_not_filled_up(model: Any, docs: list[Document]) -> None:
    shapes = list[Any]()
    passes = passes_of(model, shapes)
    passes.begin()
    ids = torch.arange(MAX_TOKENS + 1) % 700
    passes([Document(ids, ids)], 17.0)
    assert [shape["input_ids"] for shape in shapes] == [(1, MAX_TOKENS + 1)]
    assert passes.filled(MAX_TOKENS + 1) == MAX_TOKENS + 1
    assert passes.captures == {}


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


def test_the_largest_is_captured_first_and_each_shape_once(
    model: Any, docs: list[Document], capturer: type[Capturer]
) -> None:
    shapes = list[Any]()
    passes = passes_of(model, shapes, largest=BUCKET + 1)
    passes.begin()
    for batch in (docs[:2], docs[:3], docs[:1]):
        passes(batch, 17.0)
    assert list(passes.captures) == [2 * BUCKET, BUCKET]
    assert [shape["input_ids"] for shape in shapes] == [(1, 2 * BUCKET), (1, BUCKET)]
    assert capturer.pools == [None, "a pool"]  # which all share
    capture = passes.captures[BUCKET]
    last = concatenate(docs[:1], 0, BUCKET, 5)
    assert all(torch.equal(capture.inputs[name], value) for name, value in last.items())
    passes.release()
    passes(docs[:1], 17.0)
    assert list(passes.captures) == [2 * BUCKET, BUCKET]
    assert capturer.pools[2:] == [None, "a pool"]


def test_without_memory_to_capture_in_it_is_out_of_memory(
    model: Any, docs: list[Document], capturer: type[Capturer]
) -> None:
    passes = passes_of(model, [])
    passes.begin()
    passes.loss_of = lambda *args: _raise(OUT_OF_MEMORY)
    with pytest.raises(torch.OutOfMemoryError, match=r"^memory ran out while a CUDA graph was captured$"):
        passes(docs, 17.0)
    assert passes.captures == {}


def test_another_error_while_it_captures_is_raised(model: Any, docs: list[Document], capturer: type[Capturer]) -> None:
    passes = passes_of(model, [])
    passes.begin()
    passes.loss_of = lambda *args: _raise(RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="during capture"):
        passes(docs, 17.0)


def _raise(error: Exception) -> Any:
    raise error
