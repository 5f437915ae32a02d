"""Trainings of documents laid end to end, on engine `unsloth`'s model: they learn what the other engine learns."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ernie_pipeline.training.recorded import BUCKET

from ernie_pipeline.models.checkpoint.adapter_file import saved_tensors
from ernie_pipeline.models.grouped import backend as grouped_backend
from ernie_pipeline.models.grouped.experts import GroupedExperts
from ernie_pipeline.training.ranks import join_ranks
from ernie_pipeline.training.resume import copy_weights
from ernie_pipeline.training.rows import Row
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.training.processes import Disturb, Ended, Report, run, run_ranks
from ernie_pipeline_tests.training.test_loss import step_of
from ernie_pipeline_tests.training.test_resume import at, kill

MakeTrainer = Callable[..., Any]
SETTINGS = {"batch_size": 4, "accumulation": 1, "max_steps": 6, "eval_every": 2, "log_every": 1, "learning_rate": 3e-3}


def adapter(trainer: Any) -> dict[str, torch.Tensor]:
    """By the names of PEFT's file."""
    return {name: tensor.clone() for name, tensor in saved_tensors(trainer.model)}


def experts_of(trainer: Any) -> list[GroupedExperts]:
    return [module for module in trainer.model.modules() if isinstance(module, GroupedExperts)]


def test_it_learns_what_the_other_engine_learns(make_trainer: MakeTrainer, make_grouped_trainer: MakeTrainer) -> None:
    begun, chosen = adapter(make_trainer()), list[set[int]]()
    usual, trainer = make_trainer(**SETTINGS), make_grouped_trainer(**SETTINGS)
    usual.fit()
    hook = experts_of(trainer)[0].register_forward_pre_hook(
        lambda module, inputs: chosen.append(set(inputs[1].flatten().tolist())) if module.training else None
    )
    trainer.fit()
    hook.remove()

    wanted, found = usual.progress.curve, trainer.progress.curve
    assert len(found) == len(wanted) == 9
    for one, other in zip(found, wanted, strict=True):
        assert one == pytest.approx(other, rel=1e-3)
    evaluations = [entry["eval_loss"] for entry in found if "eval_loss" in entry]
    assert evaluations[-1] < 0.9 * evaluations[0]  # it was learning

    # An expert without a token in some step has no gradient there in one engine and is not stepped; in the other it has
    # one of zeros, and Adam's momentum moves it on.
    assert len(chosen) == 6
    some = set(range(8)) - set.intersection(*chosen)
    theirs, own = adapter(usual), adapter(trainer)
    assert own.keys() == theirs.keys()
    compared = [name for name in own if not any(f".experts.{number}." in name for number in some)]
    assert len(compared) == len(own) - 6 * len(some) >= 50
    for name in compared:
        assert (own[name] - theirs[name]).norm() <= 1e-3 * (theirs[name] - begun[name]).norm(), name


def test_in_any_micro_batches_a_step_has_one_loss_and_one_gradient(make_grouped_trainer: MakeTrainer) -> None:
    expected, wanted = step_of(make_grouped_trainer(batch_size=12, accumulation=1, max_steps=1))
    assert wanted.norm() > 0.1
    for settings in (
        {"batch_size": 4, "accumulation": 3},
        {"batch_size": 1, "accumulation": 12},
        {"batch_size": 6, "accumulation": 2, "packing": True, "gradient_checkpointing": True},
    ):
        trainer = make_grouped_trainer(max_steps=1, **settings)
        if settings.get("gradient_checkpointing"):  # which `Trainer.train` does
            trainer.model.gradient_checkpointing_enable(trainer.args.gradient_checkpointing_kwargs)
        loss, gradient = step_of(trainer)
        assert loss == pytest.approx(expected, rel=1e-4)
        assert (gradient - wanted).norm() < 1e-4 * wanted.norm()


def test_the_step_s_gradient_and_the_validation_loss_are_the_other_engine_s(
    make_trainer: MakeTrainer, make_grouped_trainer: MakeTrainer, sums: Any
) -> None:
    settings = {"batch_size": 12, "accumulation": 1, "max_steps": 1}
    first, second = make_trainer(**settings), make_grouped_trainer(**settings)
    (expected, _), (loss, _) = step_of(first), step_of(second)
    assert loss == pytest.approx(expected, rel=1e-4)
    wanted = make_trainer(eval_rows=sums).evaluate()["eval_loss"]
    assert make_grouped_trainer(eval_rows=sums).evaluate()["eval_loss"] == pytest.approx(wanted, rel=1e-4)


def test_its_optimizer_steps_one_vector_without_what_is_not_trained(make_grouped_trainer: MakeTrainer) -> None:
    trainer = make_grouped_trainer(optimizer="adamw_8bit")
    trainer.create_optimizer()
    [group] = trainer.optimizer.param_groups
    [values] = group["params"]
    assert values is trainer.flat.values
    assert values.numel() == sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    assert type(trainer.optimizer).__module__.startswith("bitsandbytes")


def test_an_attention_that_would_mix_packed_samples_mixes_none_here(
    make_grouped_trainer: MakeTrainer, grouped_adapter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouped_adapter.config, "_attn_implementation_internal", "flash_attention_2")
    make_grouped_trainer(packing=True)
    with pytest.raises(PipelineError, match="would mix samples"):
        make_grouped_trainer(packing=True, end_to_end=None)


# Killed


@pytest.fixture
def train_in_a_process(make_grouped_trainer: MakeTrainer) -> Callable[..., Ended]:
    """The bytes of its adapter, the curve, and the steps that it was gone on from."""

    def start(folder: Any, disturb: Disturb = lambda line: None, **settings: Any) -> Ended:
        def work(report: Report) -> Any:
            made = SETTINGS | settings
            trainer = make_grouped_trainer(report=report, checkpoints=folder, save_every_s=1e-9, **made)
            trainer.fit()
            weights = b"".join(value.numpy().tobytes() for value in copy_weights(trainer.model).values())
            return weights, trainer.progress.curve, trainer.resumed_from

        return run(work, disturb)

    return start


@pytest.mark.parametrize("changes", [{}, {"optimizer": "adamw_8bit", "keep": "best"}])
def test_killed_it_goes_on_to_the_same_bytes(
    train_in_a_process: Callable[..., Ended], tmp_path: Any, changes: dict[str, Any]
) -> None:
    undisturbed = train_in_a_process(None, **changes)
    killed = train_in_a_process(tmp_path, at("step 4/", kill), **changes)
    assert killed.code < 0
    ended = train_in_a_process(tmp_path, **changes)
    assert ended.result[2] == [3]
    assert ended.result[:2] == undisturbed.result[:2]


# Out of memory


def of_memory(most: int, checkpointed: int | None = None, fails_from: int = 0) -> Any:
    """The engine's `end_to_end` in a memory that holds `most` documents in training, with gradient checkpointing
    `checkpointed`; the first `fails_from` calls always succeed."""
    calls: list[int] = []

    def loss(model: Any, inputs: dict[str, torch.Tensor], longest: int) -> torch.Tensor:
        calls.append(1)
        room = checkpointed if checkpointed is not None and model.is_gradient_checkpointing else most
        if len(inputs["starts"]) - 1 > room and model.training and len(calls) > fails_from:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return grouped_backend.end_to_end.loss(model, inputs, longest)  # type: ignore[union-attr]

    return SimpleNamespace(loss=loss, spend_memory=grouped_backend.end_to_end.spend_memory)  # type: ignore[union-attr]


def trained(trainer: Any) -> torch.Tensor:
    trainer.fit()
    return torch.cat([weights.flatten() for weights in copy_weights(trainer.model).values()])


def told(said: Sequence[str]) -> list[str]:
    return [line for line in said if "memory" in line]


def test_out_of_memory_it_goes_on_with_half_the_micro_batch_as_if_it_had_begun_so(
    make_grouped_trainer: MakeTrainer,
) -> None:
    settings = {"max_steps": 2, "learning_rate": 3e-3}
    halves = trained(make_grouped_trainer(batch_size=2, accumulation=2, **settings))
    said: list[str] = []
    trainer = make_grouped_trainer(said, end_to_end=of_memory(2), batch_size=4, accumulation=1, **settings)
    assert torch.equal(trained(trainer), halves)
    assert told(said) == [
        "step 1 ran out of memory: it begins anew with 2 samples at a time, with the same samples a step"
    ]
    assert (trainer.pieces.samples, trainer.args.gradient_checkpointing) == (2, False)


def test_in_the_middle_of_a_later_step_nothing_is_counted_twice(make_grouped_trainer: MakeTrainer) -> None:
    settings = {"batch_size": 1, "accumulation": 3, "max_steps": 2, "eval_every": 100, "learning_rate": 3e-3}
    wanted = trained(make_grouped_trainer(**settings))
    said: list[str] = []
    memory = of_memory(most=0, checkpointed=1, fails_from=4)  # the second micro-batch of the second step
    trainer = make_grouped_trainer(said, end_to_end=memory, **settings)
    assert torch.equal(trained(trainer), wanted)
    assert told(said) == [
        "step 2 ran out of memory: it begins anew with gradient checkpointing, with the same samples a step"
    ]


def test_what_is_too_much_with_all_that_is_told(make_grouped_trainer: MakeTrainer) -> None:
    with pytest.raises(PipelineError, match=r"^step 1 does not fit into this machine's memory, one sample at a time"):
        make_grouped_trainer(end_to_end=of_memory(0), batch_size=2, max_steps=1).fit()


def test_layers_kept_unpacked_change_nothing_and_go_first_when_memory_runs_out(
    make_grouped_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    gib = 2**30
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=80 * gib))
    settings = {"batch_size": 4, "accumulation": 1, "max_steps": 3, "eval_every": 100, "learning_rate": 3e-3}
    wanted = trained(make_grouped_trainer(**settings))
    said: list[str] = []
    trainer = make_grouped_trainer(said, end_to_end=of_memory(most=3, checkpointed=3, fails_from=2), **settings)
    trainer._spend_spare_memory()  # which it does after its first step on CUDA
    assert told(said) == ["spare memory keeps 1 layers' experts unpacked"]
    assert all(experts.kept for experts in experts_of(trainer))
    found = trained(trainer)
    assert (found - wanted).abs().max() < 1e-5
    assert told(said)[1:] == [
        f"step 3 ran out of memory: it begins anew with {now}, with the same samples a step"
        for now in ("0 layers' experts kept unpacked", f"at most {trainer.pieces.tokens} tokens at a time")
    ]
    assert trainer.pieces.samples == 4
    assert not any(experts.kept for experts in experts_of(trainer))


def test_attention_is_told_of_the_longest_document_padding_included(make_grouped_trainer: MakeTrainer) -> None:
    trainer = make_grouped_trainer(batch_size=4, accumulation=1, max_steps=3)
    assert max(len(row.ids) for row in trainer.plan.rows) < BUCKET  # so the padding may be the longest
    assert trainer.longest == BUCKET


def test_spare_memory_is_measured_against_the_largest_step(
    make_grouped_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ernie_pipeline.training import trainer as module

    heard: list[Any] = []
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 100)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 350)
    monkeypatch.setattr(module, "spare_memory", lambda *args: heard.append(args) or 0)
    trainer = make_grouped_trainer(batch_size=4, accumulation=1, max_steps=3)
    trainer.progress.step = 2  # so this process' first step was the second one
    trainer._before = 50
    trainer._spend_spare_memory()
    tokens = [sum(trainer.plan.lengths[sample] for sample in step) for step in trainer.plan.steps]
    assert heard == [(100, 300, max(tokens) / tokens[1], None)]
    assert trainer.layers_unpacked == 0


def test_validation_takes_smaller_batches(make_grouped_trainer: MakeTrainer, sums: list[Row]) -> None:
    wanted = make_grouped_trainer(eval_rows=sums[:12]).evaluate()["eval_loss"]
    sizes: list[int] = []

    def loss(model: Any, inputs: dict[str, torch.Tensor], longest: int) -> torch.Tensor:
        sizes.append(len(inputs["starts"]) - 1)
        if sizes[-1] > 7:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return grouped_backend.end_to_end.loss(model, inputs, longest)  # type: ignore[union-attr]

    trainer = make_grouped_trainer(eval_rows=sums[:12], end_to_end=SimpleNamespace(loss=loss))
    assert trainer.evaluate()["eval_loss"] == pytest.approx(wanted, rel=1e-5)
    assert sizes == [12, 6, 6]


# Several ranks


def test_two_processes_leave_the_loss_and_gradient_of_one(make_grouped_trainer: MakeTrainer) -> None:
    """Of seven samples, so their shares differ; and of one, of which the second rank has none."""
    for samples in (7, 1):
        settings = {"batch_size": samples, "accumulation": 1, "max_steps": 1}

        def work(report: Report, settings: dict[str, Any] = settings) -> Any:
            with join_ranks() as ranks:
                trainer = make_grouped_trainer(ranks=ranks, **settings)
                loss, _ = step_of(trainer)
                return loss, trainer.flat.values.grad.tolist()  # which the optimizer steps with

        wanted, gradient = step_of(make_grouped_trainer(**settings))
        both = [ended.result for ended in run_ranks(2, work)]
        assert sum(loss for loss, _ in both) / 2 == pytest.approx(wanted, rel=1e-4)
        for _, found in both:
            assert (torch.tensor(found) - gradient).norm() < 1e-4 * gradient.norm()


def test_nothing_wraps_the_model_of_several_ranks_and_they_end_alike(make_grouped_trainer: MakeTrainer) -> None:
    """DDP would keep autograd's nodes, and so the stream that they were made on."""

    def work(report: Report) -> Any:
        with join_ranks() as ranks:
            trainer = make_grouped_trainer(ranks=ranks, batch_size=2, accumulation=1, max_steps=2)
            begun = trainer.flat.values.tolist()
            trainer.fit()
            return begun, trainer.flat.values.tolist(), trainer.model_wrapped is trainer.model

    (begun, first, alone), (_, second, also_alone) = [ended.result for ended in run_ranks(2, work)]
    assert alone
    assert also_alone
    assert first == second != begun
