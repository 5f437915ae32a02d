"""The loss and its gradient: the same packed or padded, in any micro-batch; the validation loss in any batches."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from ernie_pipeline.models.documents import Document
from ernie_pipeline.models.micro_batches.layout import batches_by_length, collate
from ernie_pipeline.models.transformers_model import summed_loss
from ernie_pipeline.training.rows import Row
from ernie_pipeline_tests.training.conftest import weights_of

MakeTrainer = Callable[..., Any]


def documents(rows: list[Row]) -> list[Document]:
    return [row.document for row in rows]


def loss_of_each(model: Any, batch: dict[str, torch.Tensor], spans: list[tuple[int, int, int]]) -> list[float]:
    """The loss of each document in a batch, from its logits; `spans` are (row, start, end)."""
    labels = batch.pop("labels")
    with torch.no_grad():
        logits = model(**batch, use_cache=False).logits
    losses = []
    for row, start, end in spans:
        own = labels[row, start:end]
        losses.append(torch.nn.functional.cross_entropy(logits[row, start : end - 1].float(), own[1:]).item())
    return losses


def spans_of(batch: list[list[Document]]) -> list[tuple[int, int, int]]:
    spans = []
    for number, row in enumerate(batch):
        end = 0
        for document in row:
            start, end = end, end + len(document.ids)
            spans.append((number, start, end))
    return spans


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_each_packed_document_has_the_loss_that_it_has_alone(
    demo_adapter: Any, sums: list[Row], attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_adapter.module.config, "_attn_implementation_internal", attention)
    demo_adapter.module.train()
    docs = documents(sums[:9])
    batch = [docs[:5], docs[5:8], docs[8:9]]
    alone = [loss_of_each(demo_adapter.module, collate([[one]], 0), [(0, 0, len(one.ids))])[0] for one in docs]
    packed = loss_of_each(demo_adapter.module, collate(batch, 0), spans_of(batch))
    assert packed == pytest.approx(alone, rel=1e-4)

    one_document = collate(batch, 0)
    one_document["position_ids"] = torch.arange(one_document["input_ids"].shape[1]).expand(3, -1)
    seen = loss_of_each(demo_adapter.module, one_document, spans_of(batch))
    assert seen[0] == pytest.approx(alone[0], rel=1e-4)  # nothing is before it
    assert seen[1:5] != pytest.approx(alone[1:5], rel=1e-3)  # so the comparison above can tell


def test_a_document_s_first_token_prompt_and_padding_are_not_counted(sums: list[Row]) -> None:
    batch = [documents(sums[:2]), documents(sums[2:3])]
    labels = collate(batch, pad_id=0)["labels"]
    assert int((labels != -100).sum()) == sum(row.counted for row in sums[:3])
    for (number, start, end), row in zip(spans_of(batch), sums, strict=False):
        assert (labels[number, start : start + row.first_counted] == -100).all()
        assert labels[number, start + row.first_counted : end].tolist() == row.ids[row.first_counted :]
    whole = documents([Row(row.ids, 0) for row in sums[:2]])  # as if the first token counted
    assert int((collate([whole], 0)["labels"] != -100).sum()) == sum(len(document.ids) - 1 for document in whole)


def step_of(trainer: Any) -> tuple[float, torch.Tensor]:
    """The loss and the gradient of the first planned step, without the optimizer's."""
    trainer.create_optimizer_and_scheduler(1)
    loss = trainer.training_step(trainer.model, {"step": 0})
    trainable = trainer.loaded.trainable().values()
    flat = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in trainable]
    trainer.model.zero_grad()
    return loss.item(), torch.cat([part.flatten() for part in flat])


def test_packed_padded_and_in_parts_a_step_has_one_loss_and_one_gradient(make_trainer: MakeTrainer) -> None:
    step = {"samples_per_step": 12, "max_steps": 1}
    expected, wanted = step_of(make_trainer(**step, execution={"micro_batch": 12}))
    assert wanted.norm() > 0.1
    for execution in (
        {"micro_batch": 4},
        {"micro_batch": 12, "packing": True, "pack_tokens": 300},
        {"micro_batch": 6, "packing": True, "pack_tokens": 500, "gradient_checkpointing": True},
    ):
        loss, flat = step_of(make_trainer(**step, execution=execution))
        assert loss == pytest.approx(expected, rel=1e-4)
        assert (flat - wanted).norm() < 1e-4 * wanted.norm()


def test_weights_of_one_change_nothing_and_others_weigh_each_token(make_trainer: MakeTrainer, sums: list[Row]) -> None:
    trainer, docs = make_trainer(samples_per_step=5), documents(sums[:5])
    plain = trainer.backend.forward_backward(docs, 7)
    gradient = grads_of(trainer)
    ones = [torch.ones(len(document.ids)) for document in docs]
    assert trainer.backend.forward_backward(docs, 7, ones).item() == pytest.approx(plain.item(), rel=1e-5)
    assert (grads_of(trainer) - gradient).norm() < 1e-4 * gradient.norm()
    only_first = [torch.full((len(document.ids),), -2.0 if n == 0 else 0.0) for n, document in enumerate(docs)]
    weighed = trainer.backend.forward_backward(docs, 7, only_first)
    assert weighed.item() == pytest.approx(-2 * trainer.loaded.loss_sum(docs[:1]) / 7, rel=1e-4)
    assert trainer.loaded.loss_sum(docs, only_first) / 7 == pytest.approx(weighed.item(), rel=1e-4)


def grads_of(trainer: Any) -> torch.Tensor:
    trainable = trainer.loaded.trainable().values()
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad.clone()).flatten() for p in trainable])


def test_where_attention_would_mix_packed_samples_they_are_padded(
    make_trainer: MakeTrainer, demo_adapter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make_trainer(execution={"packing": True}).backend.size.pack_tokens == 2048
    monkeypatch.setattr(demo_adapter.module.config, "_attn_implementation_internal", "flash_attention_2")
    assert make_trainer(execution={"packing": True}).backend.size.pack_tokens is None


def test_the_validation_loss_is_the_mean_over_all_counted_tokens_in_any_batches(
    make_trainer: MakeTrainer, sums: list[Row]
) -> None:
    trainer = make_trainer(eval_rows=sums)
    total, means = 0.0, []
    for row in sums:
        with torch.no_grad():
            logits = trainer.model(input_ids=torch.tensor([row.ids]), use_cache=False).logits[0]
        odds = logits.double().log_softmax(-1)
        own = -sum(odds[t - 1, row.ids[t]].item() for t in range(row.first_counted, len(row.ids)))
        total += own
        means.append(own / row.counted)
    by_hand = total / sum(row.counted for row in sums)

    docs = documents(sums)
    losses = [summed(trainer, docs, most) / sum(map(counted, docs)) for most in (1, 300, 4096)]
    assert [*losses, trainer.evaluate()["eval_loss"]] == pytest.approx([by_hand] * 4, rel=1e-5)
    assert len({len(batch) for batch in batches_by_length(docs, 300)}) > 1
    assert sum(means) / len(means) != pytest.approx(by_hand, rel=1e-3)  # what a mean of rows would have said


def counted(document: Document) -> int:
    return document.counted


def summed(trainer: Any, docs: list[Document], max_tokens: int, **options: Any) -> float:
    """The sum of the losses of batches of so many tokens."""

    def loss_of(batch: Sequence[Document], weights: Any) -> torch.Tensor:
        inputs = collate([[document] for document in batch], 0)
        return trainer.model(**inputs, use_cache=False, num_items_in_batch=1).loss  # type: ignore[no-any-return]

    return summed_loss(options.pop("loss_of", loss_of), docs, None, max_tokens, **options)


def test_an_interrupted_validation_says_nothing(
    make_trainer: MakeTrainer, sums: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ernie_pipeline.training.trainer.AT_A_TIME", 2)
    trainer, asked = make_trainer(eval_rows=sums[:8]), list[int]()
    usual = trainer.loaded.loss_sum

    def loss_sum(some: Sequence[Document]) -> float:
        asked.append(len(some))
        trainer.stop.requested = "SIGTERM" if len(asked) == 2 else ""
        return float(usual(some))

    monkeypatch.setattr(trainer.loaded, "loss_sum", loss_sum)
    assert trainer._validation_loss() is None
    assert asked == [2, 2]


def test_a_validation_without_memory_is_given_some_back_before_it_takes_smaller_batches(
    make_trainer: MakeTrainer, sums: list[Row]
) -> None:
    trainer, docs = make_trainer(), documents(sums[:6])
    taken, sizes = [True], list[int]()

    def loss_of(batch: Sequence[Document], weights: Any) -> torch.Tensor:
        sizes.append(len(batch))
        if taken:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.tensor(trainer.loaded.loss_sum(batch))

    found = summed(trainer, docs, 4096, loss_of=loss_of, release=lambda: bool(taken and taken.pop()))
    assert found == pytest.approx(trainer.loaded.loss_sum(docs), rel=1e-6)
    assert sizes == [6, 6]


@pytest.mark.parametrize("losses", [[4.0, 3.0, 2.0, 5.0], [4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0]])
def test_the_adapter_of_the_best_validation_is_the_one_that_is_kept(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, losses: list[float]
) -> None:
    """Whether it got better once, several times or at the very end."""
    trainer = make_trainer(samples_per_step=4, max_steps=4, eval_every=1, keep="best", learning_rate=3e-3)
    seen, coming = list[torch.Tensor](), iter(losses)

    def loss_of() -> float:
        seen.append(weights_of(trainer))
        return next(coming)

    monkeypatch.setattr(trainer, "_validation_loss", loss_of)
    trainer.fit()
    assert len(seen) == 4
    assert len({value.sum().item() for value in seen}) == 4
    assert torch.equal(weights_of(trainer), seen[losses.index(min(losses))])
