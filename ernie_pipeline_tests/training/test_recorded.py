"""What of recorded passes there is without CUDA: filled shapes, and going on unrecorded where memory is short."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ernie_pipeline.engines.grouped.end_to_end import end_to_end_loss
from ernie_pipeline.training.batches import Document, lay_end_to_end
from ernie_pipeline.training.recorded import BUCKET, RecordedPasses
from ernie_pipeline.training.rows import Row

OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory")


@pytest.fixture
def model(grouped_adapter: Any) -> Any:
    yield grouped_adapter
    grouped_adapter.zero_grad()


@pytest.fixture
def docs(sums: list[Row]) -> list[Document]:
    return [Document(torch.tensor(row.ids), torch.tensor(row.labels)) for row in sums[:4]]


def gradient(model: Any) -> torch.Tensor:
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])
    model.zero_grad()
    return found


def passes_of(model: Any, shapes: list[Any], said: list[str]) -> RecordedPasses:
    def loss_of(inputs: dict[str, torch.Tensor], counted: torch.Tensor) -> torch.Tensor:
        shapes.append({name: tuple(value.shape) for name, value in inputs.items()})
        return end_to_end_loss(model.get_base_model(), inputs, longest=128) / counted

    return RecordedPasses(loss_of, documents=4, pad_id=0, report=lambda line, values: said.append(line))


def test_batches_filled_to_the_same_shapes_have_the_loss_and_gradient_of_what_is_in_them(
    model: Any, docs: list[Document]
) -> None:
    counted, shapes, said = torch.tensor(17.0), list[Any](), list[str]()
    passes = passes_of(model, shapes, said)
    for batch in (docs[:2], docs[1:3], docs[:2]):
        passes.seen.clear()  # records nothing
        found, of_found = passes(batch, counted), gradient(model)
        inputs = lay_end_to_end(batch, 0)
        wanted = end_to_end_loss(model.get_base_model(), inputs, longest=128) / 17
        wanted.backward()  # type: ignore[no-untyped-call]
        assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
        assert not found.requires_grad
        of_wanted = gradient(model)
        assert (of_found - of_wanted).norm() < 1e-4 * of_wanted.norm()
    assert shapes[0] == shapes[1] == shapes[2]
    assert shapes[0] == dict.fromkeys(("input_ids", "labels", "position_ids"), (1, BUCKET)) | {"starts": (6,)}
    assert passes.recordings == {}
    assert said == []


def test_what_is_too_large_to_be_recorded_is_not_filled_up(model: Any, docs: list[Document]) -> None:
    shapes = list[Any]()
    passes = passes_of(model, shapes, [])
    passes.most_tokens = BUCKET - 1
    tokens = sum(len(document.ids) for document in docs)
    for _ in range(3):
        passes(docs, torch.tensor(17.0))
    assert [shape["input_ids"] for shape in shapes] == [(1, tokens)] * 3
    assert passes.filled(tokens) == tokens
    assert passes.recordings == {}


class Recording:
    """In the place of torch.cuda.graph: what fails while it records makes its end fail in other words."""

    def __init__(self, graph: Any, **settings: Any):
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        raise RuntimeError("operation failed due to a previous error during capture")


class NoRoom(Recording):
    """And one that cannot begin."""

    def __enter__(self) -> None:
        raise OUT_OF_MEMORY


@pytest.mark.parametrize("recording", [Recording, NoRoom])
def test_without_memory_to_record_in_it_says_so_once_and_goes_on_unrecorded(
    model: Any, docs: list[Document], recording: type[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: None)
    counted, said = torch.tensor(17.0), list[str]()
    passes = passes_of(model, [], said)
    found = [passes(docs, counted)]
    wanted = gradient(model)
    usual, failing = passes.loss_of, [OUT_OF_MEMORY]
    passes.loss_of = lambda *args: _raise(failing.pop()) if failing and recording is Recording else usual(*args)
    for _ in range(3):
        found.append(passes(docs, counted))
        assert (gradient(model) - wanted).norm() < 1e-4 * wanted.norm()  # no longer filled up
    assert [loss.item() for loss in found[1:]] == pytest.approx([found[0].item()] * 3, rel=1e-5)
    [line] = said
    assert line.startswith("no memory to record the steps in: ")


def test_another_error_while_it_records_is_raised(
    model: Any, docs: list[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "graph", Recording)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: None)
    passes = passes_of(model, [], [])
    passes(docs, torch.tensor(17.0))
    passes.loss_of = lambda *args: _raise(RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="during capture"):
        passes(docs, torch.tensor(17.0))


def _raise(error: Exception) -> Any:
    raise error


def test_forgotten_shapes_begin_anew(model: Any, docs: list[Document], monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Any] = []
    fail: Callable[..., Any] = lambda *args, **settings: (begun.append(1), _raise(OUT_OF_MEMORY))  # noqa: E731
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph", fail)
    passes = passes_of(model, [], [])
    passes(docs[:1], torch.tensor(17.0))
    passes.forget()
    passes(docs[:1], torch.tensor(17.0))
    assert begun == []  # for the first time again
    passes(docs[:1], torch.tensor(17.0))
    assert begun == [1]
