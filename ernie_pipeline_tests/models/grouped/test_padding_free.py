"""Concatenated documents against transformers' own forward and loss on each document alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit

from ernie_pipeline.models.documents import NOT_COUNTED, Document
from ernie_pipeline.models.grouped import padding_free
from ernie_pipeline.models.grouped.padding_free import padding_free_loss
from ernie_pipeline.models.micro_batches.layout import concatenate
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
def shared(quantized_short: Path, short_base: Any) -> Any:
    return adapted_grouped(read_demo(quantized_short, FLAT, Path(short_base.checkpoint)))


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


def loss_of(model: Any, inputs: Inputs) -> torch.Tensor:
    return padding_free_loss(model.get_base_model(), inputs, max_seqlen=64)


def same(found: Found, wanted: Found) -> None:
    assert found[0] == pytest.approx(wanted[0], rel=1e-5)
    assert (found[1] - wanted[1]).norm() < 1e-4 * wanted[1].norm()


@pytest.fixture
def wanted(model: Any) -> Found:
    loss, gradient = gradient_of(model, lambda: by_transformers(model, DOCUMENTS))
    assert loss > 10
    return loss, gradient


def test_loss_and_gradient_are_transformers_own_of_each_document(model: Any, wanted: Found) -> None:
    same(gradient_of(model, lambda: loss_of(model, concatenate(DOCUMENTS, 0))), wanted)


def test_padding_and_empty_documents_count_nothing(model: Any, wanted: Found) -> None:
    filled = concatenate(DOCUMENTS, pad_id=0, tokens=128, number=9)
    assert len(filled["cu_seqlens"]) == 10
    same(gradient_of(model, lambda: loss_of(model, filled)), wanted)


def test_gradient_checkpointing_computes_layers_twice_and_gives_the_same(model: Any, wanted: Found) -> None:
    calls: list[int] = []
    hook = model.get_base_model().model.layers[1].mlp.experts.register_forward_pre_hook(lambda *args: calls.append(1))
    try:
        same(gradient_of(model, lambda: loss_of(model, concatenate(DOCUMENTS, 0))), wanted)
        assert len(calls) == 1
        model.gradient_checkpointing_enable({"use_reentrant": False})
        same(gradient_of(model, lambda: loss_of(model, concatenate(DOCUMENTS, 0))), wanted)
        assert len(calls) == 3
    finally:
        hook.remove()


def test_the_head_may_take_the_tokens_in_any_pieces(model: Any, wanted: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = sum(len(one.ids) for one in DOCUMENTS)
    for size in (1, 7, tokens):
        monkeypatch.setattr(padding_free, "CHUNK", size)
        same(gradient_of(model, lambda: loss_of(model, concatenate(DOCUMENTS, 0))), wanted)


def test_an_autocast_around_it_changes_nothing(model: Any) -> None:
    inputs = concatenate(DOCUMENTS, 0)
    bare = gradient_of(model, lambda: loss_of(model, inputs))

    def autocast() -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return loss_of(model, inputs)

    around = gradient_of(model, autocast)
    assert around[0] == bare[0]
    assert torch.equal(around[1], bare[1])


def test_the_gradient_is_of_what_is_made_of_the_loss(model: Any) -> None:
    inputs = concatenate(DOCUMENTS, 0)
    loss, gradient = gradient_of(model, lambda: loss_of(model, inputs))
    part, of_part = gradient_of(model, lambda: loss_of(model, inputs) / 8)
    assert part == pytest.approx(loss / 8)
    assert (8 * of_part - gradient).norm() < 1e-5 * gradient.norm()


@torch.no_grad()
def losses_of_each(model: Any, documents: list[Document]) -> list[float]:
    """Each document's loss where it lies among the others, which are not counted."""
    losses = []
    for counted in documents:
        silent = [one if one is counted else one._replace(labels=one.labels * 0 + NOT_COUNTED) for one in documents]
        losses.append(loss_of(model, concatenate(silent, 0)).item())
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
    one = concatenate(DOCUMENTS, 0)  # as one document they do see one another
    tokens = one["input_ids"].shape[1]
    one |= {"cu_seqlens": torch.tensor([0, tokens], dtype=torch.int32), "position_ids": torch.arange(tokens)[None]}
    with torch.no_grad():
        assert loss_of(model, one).item() != pytest.approx(sum(before), rel=1e-3)


# Weights of tokens


def weights_of(documents: list[Document], seed: int = 0) -> list[torch.Tensor]:
    """Of either sign; every fourth is 0."""
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(len(document.ids), generator=generator) for document in documents]
    for own in weights:
        own[::4] = 0
    return weights


def weighted(documents: list[Document], weights: list[torch.Tensor], tokens: int | None = None) -> Inputs:
    return concatenate(documents, 0, tokens, None if tokens is None else len(documents) + 1, weights)


def weighted_by_transformers(model: Any, documents: list[Document], weights: list[torch.Tensor]) -> torch.Tensor:
    total = torch.zeros(())
    for one, own in zip(documents, weights, strict=True):
        logits = model(input_ids=one.ids[None], use_cache=False).logits[0].float()
        counted = one.labels[1:] != NOT_COUNTED
        losses = torch.nn.functional.cross_entropy(logits[:-1][counted], one.ids[1:][counted], reduction="none")
        total = total + (losses * own[1:][counted]).sum()
    return total


@pytest.mark.parametrize("tokens", [None, 128])
def test_each_token_s_loss_has_its_own_weight(model: Any, tokens: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = weights_of(DOCUMENTS)
    wanted = gradient_of(model, lambda: weighted_by_transformers(model, DOCUMENTS, weights))
    for size in (7, 2048):
        monkeypatch.setattr(padding_free, "CHUNK", size)
        same(gradient_of(model, lambda: loss_of(model, weighted(DOCUMENTS, weights, tokens))), wanted)
    shifted = [own.roll(1) for own in weights]
    other = gradient_of(model, lambda: loss_of(model, weighted(DOCUMENTS, shifted)))
    assert other[0] != pytest.approx(wanted[0], rel=1e-2)  # so the comparison can tell


def test_weights_of_one_change_no_bit_and_those_of_what_is_not_counted_do_not_matter(model: Any) -> None:
    plain = gradient_of(model, lambda: loss_of(model, concatenate(DOCUMENTS, 0)))
    ones = [torch.where(one.labels == NOT_COUNTED, torch.inf, 1.0) for one in DOCUMENTS]
    for own in ones:
        own[0] = torch.inf  # nothing comes before it
    found = gradient_of(model, lambda: loss_of(model, weighted(DOCUMENTS, ones)))
    assert found[0] == plain[0]
    assert torch.equal(found[1], plain[1])


def test_dense_weights_are_given_up_while_the_adapter_is_disabled_too(model: Any) -> None:
    def held() -> int:
        linear = [module for module in model.modules() if isinstance(module, Linear4bit)]
        return sum(getattr(module.weight, "dequantized", None) is not None for module in linear)

    kept = padding_free.keep_dequantized(model.get_base_model(), 10**9, 64)
    assert held() == kept.dense > 0
    with model.disable_adapter():
        assert padding_free.keep_dequantized(model.get_base_model(), 0, 64) == (0, 0)
    assert held() == 0
