"""Documents laid end to end against transformers' own forward and loss on each document alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ernie_pipeline.training.schedule.micro_batches import Document, lay_end_to_end

from ernie_pipeline.models.grouped import padding_free as end_to_end
from ernie_pipeline.models.grouped.padding_free import end_to_end_loss
from ernie_pipeline.training.rows import NOT_COUNTED
from ernie_pipeline_tests.models.grouped.demo import FLAT, adapted_grouped, read_demo

Inputs = dict[str, torch.Tensor]
Found = tuple[float, torch.Tensor]


def document(length: int, uncounted: int = 0, seed: int = 0) -> Document:
    ids = torch.randint(5, 700, (length,), generator=torch.Generator().manual_seed(1000 * length + seed))
    labels = ids.clone()
    labels[:uncounted] = NOT_COUNTED
    return Document(ids, labels)


DOCUMENTS = [document(17, 4), document(30), document(1), document(9, 8), document(23, 2)]
"""One of a single token, which has nothing to count, among them."""


@pytest.fixture(scope="module")
def shared(packed_short: Path, short_base: Any) -> Any:
    return adapted_grouped(read_demo(packed_short, FLAT, Path(short_base.checkpoint)))


@pytest.fixture
def model(shared: Any) -> Any:
    """Two layers, one of them with routed experts; as it was after each test."""
    shared.train()
    yield shared
    shared.gradient_checkpointing_disable()
    shared.zero_grad()


def gradient_of(model: Any, loss: Callable[[], torch.Tensor]) -> Found:
    """The loss and the gradient of the adapter."""
    model.zero_grad()
    value = loss()
    value.backward()  # type: ignore[no-untyped-call]
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert all(gradient is not None and gradient.any() for gradient in gradients.values())
    return value.item(), torch.cat([gradient.flatten() for gradient in gradients.values() if gradient is not None])


def by_transformers(model: Any, documents: list[Document]) -> torch.Tensor:
    losses = [
        model(input_ids=one.ids[None], labels=one.labels[None], use_cache=False, num_items_in_batch=1).loss
        for one in documents
        if len(one.ids) > 1
    ]
    return torch.stack(losses).sum()


def laid(model: Any, inputs: Inputs) -> torch.Tensor:
    return end_to_end_loss(model.get_base_model(), inputs, longest=64)


def same(found: Found, wanted: Found) -> None:
    assert found[0] == pytest.approx(wanted[0], rel=1e-5)
    assert (found[1] - wanted[1]).norm() < 1e-4 * wanted[1].norm()


@pytest.fixture
def wanted(model: Any) -> Found:
    loss, gradient = gradient_of(model, lambda: by_transformers(model, DOCUMENTS))
    assert loss > 10
    return loss, gradient


def test_loss_and_gradient_are_transformers_own_of_each_document(model: Any, wanted: Found) -> None:
    same(gradient_of(model, lambda: laid(model, lay_end_to_end(DOCUMENTS, 0))), wanted)


def test_padding_and_empty_documents_count_nothing(model: Any, wanted: Found) -> None:
    filled = lay_end_to_end(DOCUMENTS, pad_id=0, tokens=128, number=9)
    assert len(filled["starts"]) == 10
    same(gradient_of(model, lambda: laid(model, filled)), wanted)


def test_gradient_checkpointing_computes_layers_twice_and_gives_the_same(model: Any, wanted: Found) -> None:
    calls: list[int] = []
    hook = model.get_base_model().model.layers[1].mlp.experts.register_forward_pre_hook(lambda *args: calls.append(1))
    try:
        same(gradient_of(model, lambda: laid(model, lay_end_to_end(DOCUMENTS, 0))), wanted)
        assert len(calls) == 1
        model.gradient_checkpointing_enable({"use_reentrant": False})
        same(gradient_of(model, lambda: laid(model, lay_end_to_end(DOCUMENTS, 0))), wanted)
        assert len(calls) == 3
    finally:
        hook.remove()


def test_the_head_may_take_the_tokens_in_any_pieces(model: Any, wanted: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = sum(len(one.ids) for one in DOCUMENTS)
    for size in (1, 7, tokens):
        monkeypatch.setattr(end_to_end, "CHUNK", size)
        same(gradient_of(model, lambda: laid(model, lay_end_to_end(DOCUMENTS, 0))), wanted)


def test_an_autocast_around_it_changes_nothing(model: Any) -> None:
    inputs = lay_end_to_end(DOCUMENTS, 0)
    bare = gradient_of(model, lambda: laid(model, inputs))

    def autocast() -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return laid(model, inputs)

    around = gradient_of(model, autocast)
    assert around[0] == bare[0]
    assert torch.equal(around[1], bare[1])


def test_the_gradient_is_of_what_is_made_of_the_loss(model: Any) -> None:
    inputs = lay_end_to_end(DOCUMENTS, 0)
    loss, gradient = gradient_of(model, lambda: laid(model, inputs))
    part, of_part = gradient_of(model, lambda: laid(model, inputs) / 8)
    assert part == pytest.approx(loss / 8)
    assert (8 * of_part - gradient).norm() < 1e-5 * gradient.norm()


@torch.no_grad()
def losses_of_each(model: Any, documents: list[Document]) -> list[float]:
    """Each document's loss where it lies among the others, which are not counted."""
    losses = []
    for counted in documents:
        silent = [one if one is counted else one._replace(labels=one.labels * 0 + NOT_COUNTED) for one in documents]
        losses.append(laid(model, lay_end_to_end(silent, 0)).item())
    return losses


def test_no_document_sees_another(model: Any) -> None:
    before = losses_of_each(model, DOCUMENTS)
    for changed in range(len(DOCUMENTS)):
        docs = list(DOCUMENTS)
        docs[changed] = document(len(docs[changed].ids), seed=1)
        after = losses_of_each(model, docs)
        for number, (old, new) in enumerate(zip(before, after, strict=True)):
            if number != changed:
                assert new == pytest.approx(old, rel=1e-6, abs=1e-6)
            elif len(docs[changed].ids) > 1:
                assert new != pytest.approx(old, rel=1e-3)  # so the comparison can tell
    one = lay_end_to_end(DOCUMENTS, 0)  # told as one document they do see one another
    tokens = one["input_ids"].shape[1]
    one |= {"starts": torch.tensor([0, tokens], dtype=torch.int32), "position_ids": torch.arange(tokens)[None]}
    with torch.no_grad():
        assert laid(model, one).item() != pytest.approx(sum(before), rel=1e-3)
