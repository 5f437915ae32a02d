"""What of captured passes there is without CUDA: filled shapes, what is captured when, and memory that is short."""

from typing import Any

import pytest
import torch

from ernie_pipeline.models.documents import Document
from ernie_pipeline.models.grouped import captured
from ernie_pipeline.models.grouped.captured import BUCKET, MANY_TOKENS, MAX_TOKENS, CapturedPasses, filled, widths_of
from ernie_pipeline.models.grouped.padding_free import padding_free_loss
from ernie_pipeline.models.micro_batches.layout import concatenate
from ernie_pipeline.training.rows import Row
from ernie_pipeline_tests.models.grouped.capturer import Capturer

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


def passes_of(model: Any, shapes: list[Any], *to_come: int) -> CapturedPasses:
    def loss_of(inputs: dict[str, torch.Tensor], num_tokens: torch.Tensor) -> torch.Tensor:
        shapes.append({name: tuple(value.shape) for name, value in inputs.items()})
        return padding_free_loss(model.get_base_model(), inputs, max_seqlen=MAX_TOKENS) / num_tokens

    return CapturedPasses(loss_of, documents=4, pad_id=0, to_come=lambda: to_come, device="cpu")


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> int:
    """As `MAX_TOKENS`, whose passes take a CPU many seconds."""
    monkeypatch.setattr(captured, "MAX_TOKENS", 2 * BUCKET)
    return 2 * BUCKET


def document(tokens: int) -> Document:
    ids = torch.arange(tokens) % 700
    return Document(ids, ids)


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


def test_what_is_too_large_to_be_captured_is_not_filled_up(model: Any, small_limit: int) -> None:
    shapes = list[Any]()
    passes = passes_of(model, shapes)
    passes.begin()
    passes([document(small_limit + 1)], 17.0)
    assert [shape["input_ids"] for shape in shapes] == [(1, small_limit + 1)]
    assert filled(small_limit + 1) == small_limit + 1
    assert passes.captures == {}


def test_what_is_to_come_is_captured_at_once_the_widest_first_and_each_width_once(
    model: Any, docs: list[Document], capturer: type[Capturer]
) -> None:
    shapes = list[Any]()
    passes = passes_of(model, shapes, 20, BUCKET + 1, MAX_TOKENS + 1, 30)
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


def test_what_was_not_foreseen_is_captured_when_it_comes(
    model: Any, docs: list[Document], capturer: type[Capturer], small_limit: int
) -> None:
    passes = passes_of(model, [], 2 * BUCKET)
    passes.begin()
    passes([document(small_limit + 1)], 17.0)
    assert list(passes.captures) == [2 * BUCKET]  # in the step of the other ranks, though this pass is none
    passes(docs[:1], 17.0)
    assert list(passes.captures) == [2 * BUCKET, BUCKET]


def test_the_widths_of_passes_are_filled_up_to_multiples_and_none_is_too_wide() -> None:
    assert widths_of([1, BUCKET, BUCKET + 1, 5 * BUCKET - 3, MAX_TOKENS, MAX_TOKENS + 1, 7]) == [
        MAX_TOKENS,
        5 * BUCKET,
        2 * BUCKET,
        BUCKET,
    ]
    assert widths_of([MAX_TOKENS + 1]) == widths_of([]) == []
    assert widths_of([MANY_TOKENS, MANY_TOKENS + 1]) == [MANY_TOKENS + 2 * BUCKET, MANY_TOKENS]


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
