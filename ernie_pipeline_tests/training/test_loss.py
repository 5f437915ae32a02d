"""The loss and its gradient: the same packed or padded, in any micro-batch; the validation loss in any batches."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from ernie_pipeline.training.rows import Row, as_dataset
from ernie_pipeline.training.schedule.micro_batches import Document, collate, split_documents
from ernie_pipeline.training.validation import batches_by_length, validation_loss
from ernie_pipeline.utils.errors import PipelineError

MakeTrainer = Callable[..., Any]


def documents(rows: list[Row]) -> list[Document]:
    return [Document(torch.tensor(row.ids), torch.tensor(row.labels)) for row in rows]


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
    monkeypatch.setattr(demo_adapter.config, "_attn_implementation_internal", attention)
    demo_adapter.train()
    docs = documents(sums[:9])
    batch = [docs[:5], docs[5:8], docs[8:9]]
    alone = [loss_of_each(demo_adapter, collate([[one]], 0), [(0, 0, len(one.ids))])[0] for one in docs]
    packed = loss_of_each(demo_adapter, collate(batch, 0), spans_of(batch))
    assert packed == pytest.approx(alone, rel=1e-4)

    one_document = collate(batch, 0)
    one_document["position_ids"] = torch.arange(one_document["input_ids"].shape[1]).expand(3, -1)
    seen = loss_of_each(demo_adapter, one_document, spans_of(batch))
    assert seen[0] == pytest.approx(alone[0], rel=1e-4)  # nothing is before it
    assert seen[1:5] != pytest.approx(alone[1:5], rel=1e-2)  # so the comparison above can tell


def test_a_document_s_first_token_prompt_and_padding_are_not_counted(sums: list[Row]) -> None:
    batch = [documents(sums[:2]), documents(sums[2:3])]
    labels = collate(batch, pad_id=0)["labels"]
    assert int((labels != -100).sum()) == sum(row.counted for row in sums[:3])
    for (number, start, end), row in zip(spans_of(batch), sums, strict=False):
        assert (labels[number, start : start + row.first_counted] == -100).all()
        assert labels[number, start + row.first_counted : end].tolist() == row.ids[row.first_counted :]
    whole = documents([Row(row.ids, 0) for row in sums[:2]])  # as if the first token counted
    assert int((collate([whole], 0)["labels"] != -100).sum()) == sum(len(document.ids) - 1 for document in whole)


def test_a_batch_of_trl_s_comes_apart_into_its_documents(make_trainer: MakeTrainer, sums: list[Row]) -> None:
    samples = [as_dataset(sums)[number] for number in (3, 0, 7)]
    found = split_documents(make_trainer().data_collator(samples))
    for document, number in zip(found, (3, 0, 7), strict=True):
        assert document.ids.tolist() == sums[number].ids
        assert document.labels.tolist() == sums[number].labels
    assert split_documents(make_trainer().data_collator([])) == []


def step_of(trainer: Any) -> tuple[float, torch.Tensor]:
    """The loss and the gradient of the first planned step, without the optimizer's."""
    trainer.create_optimizer_and_scheduler(1)
    [batch], counted = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, trainer.args.device)
    loss = trainer.training_step(trainer.model, batch, counted)
    flat = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in trainer.trainable]
    trainer.model.zero_grad()
    return loss.item(), torch.cat([part.flatten() for part in flat])


def test_packed_padded_and_in_parts_a_step_has_one_loss_and_one_gradient(make_trainer: MakeTrainer) -> None:
    expected, wanted = step_of(make_trainer(batch_size=12, accumulation=1, max_steps=1))
    assert wanted.norm() > 0.1
    for settings in (
        {"batch_size": 4, "accumulation": 3},
        {"batch_size": 12, "accumulation": 1, "packing": True, "pack_tokens": 300},
        {"batch_size": 6, "accumulation": 2, "packing": True, "pack_tokens": 500, "gradient_checkpointing": True},
    ):
        trainer = make_trainer(max_steps=1, **settings)
        if settings.get("gradient_checkpointing"):  # which `Trainer.train` does
            trainer.model.gradient_checkpointing_enable(trainer.args.gradient_checkpointing_kwargs)
        loss, flat = step_of(trainer)
        assert loss == pytest.approx(expected, rel=1e-4)
        assert (flat - wanted).norm() < 1e-4 * wanted.norm()


def test_an_attention_that_would_mix_packed_samples_is_refused(
    make_trainer: MakeTrainer, demo_adapter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_adapter.config, "_attn_implementation_internal", "flash_attention_2")
    with pytest.raises(PipelineError, match=r'training\.packing with attention "flash_attention_2" would mix'):
        make_trainer(packing=True)
    make_trainer(packing=False)


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
    losses = [validation_loss(trainer._loss_sum, docs, trainer.ranks, max_tokens=most) for most in (1, 300, 4096)]
    assert [*losses, trainer.evaluate()["eval_loss"]] == pytest.approx([by_hand] * 4, rel=1e-5)
    assert len({len(batch) for batch in batches_by_length(docs, 300)}) > 1
    assert sum(means) / len(means) != pytest.approx(by_hand, rel=1e-3)  # what a mean of rows would have said


def test_an_interrupted_validation_says_nothing(make_trainer: MakeTrainer, sums: list[Row]) -> None:
    asked: list[int] = []
    trainer = make_trainer()
    interrupted = lambda: len(asked) > 2 or asked.append(1)  # noqa: E731
    docs = documents(sums)
    assert validation_loss(trainer._loss_sum, docs, trainer.ranks, max_tokens=300, interrupted=interrupted) is None
    assert len(asked) == 3


def test_a_validation_without_memory_is_given_some_back_before_it_takes_smaller_batches(
    make_trainer: MakeTrainer, sums: list[Row]
) -> None:
    trainer = make_trainer(eval_rows=sums[:6])
    docs = documents(sums[:6])
    wanted = validation_loss(trainer._loss_sum, docs, trainer.ranks)
    taken, sizes = [True], list[int]()

    def loss_sum(batch: Sequence[Document]) -> torch.Tensor:
        sizes.append(len(batch))
        if taken:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return trainer._loss_sum(batch)  # type: ignore[no-any-return]

    found = validation_loss(loss_sum, docs, trainer.ranks, give_back=lambda: bool(taken and taken.pop()))
    assert found == wanted
    assert sizes == [6, 6]
