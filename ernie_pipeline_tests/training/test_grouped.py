"""Trainings without padding, on backend `grouped`'s model: they learn what the other backend learns."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ernie_pipeline.models.checkpoint.adapter_file import adapter_parameters, saved_tensors
from ernie_pipeline.models.grouped import backend as grouped_backend
from ernie_pipeline.models.grouped import captured
from ernie_pipeline.models.grouped import training as grouped_training
from ernie_pipeline.models.grouped.captured import BUCKET, CapturedPasses, widths_of
from ernie_pipeline.models.grouped.experts import GroupedExperts
from ernie_pipeline.training.optimizer.adamw_8bit import AdamW8bit
from ernie_pipeline.training.ranks import join_ranks
from ernie_pipeline.training.rows import Row
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.models.grouped.capturer import Capturer
from ernie_pipeline_tests.training.conftest import weights_of
from ernie_pipeline_tests.training.processes import Disturb, Ended, Report, run, run_ranks
from ernie_pipeline_tests.training.test_loss import step_of
from ernie_pipeline_tests.training.test_resume import at, kill

MakeTrainer = Callable[..., Any]
SETTINGS = {"samples_per_step": 4, "max_steps": 6, "eval_every": 2, "log_every": 1, "learning_rate": 3e-3}


def adapter(trainer: Any) -> dict[str, torch.Tensor]:
    """By the names of PEFT's file."""
    return {name: tensor.clone() for name, tensor in saved_tensors(adapter_parameters(trainer.model))}


def experts_of(trainer: Any) -> list[GroupedExperts]:
    return [module for module in trainer.model.modules() if isinstance(module, GroupedExperts)]


def test_it_learns_what_the_other_backend_learns(make_trainer: MakeTrainer, make_grouped_trainer: MakeTrainer) -> None:
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
    evaluations = [entry["loss_objective"] for entry in found if "loss_objective" in entry]
    assert evaluations[-1] < 0.9 * evaluations[0]  # it was learning

    # An expert without a token in some step has no gradient there in one backend and is not stepped; in the other it
    # has one of zeros, and Adam's momentum moves it on.
    assert len(chosen) == 6
    some = set(range(8)) - set.intersection(*chosen)
    theirs, own = adapter(usual), adapter(trainer)
    assert own.keys() == theirs.keys()
    compared = [name for name in own if not any(f".experts.{number}." in name for number in some)]
    assert len(compared) == len(own) - 6 * len(some) >= 50
    for name in compared:
        assert (own[name] - theirs[name]).norm() <= 1e-3 * (theirs[name] - begun[name]).norm(), name


def test_in_any_micro_batches_a_step_has_one_loss_and_one_gradient(make_grouped_trainer: MakeTrainer) -> None:
    step = {"samples_per_step": 12, "max_steps": 1}
    expected, wanted = step_of(make_grouped_trainer(**step))
    assert wanted.norm() > 0.1
    for execution in ({"micro_batch": 4}, {"micro_batch": 1}, {"micro_batch": 6, "gradient_checkpointing": True}):
        loss, gradient = step_of(make_grouped_trainer(**step, execution=execution))
        assert loss == pytest.approx(expected, rel=1e-4)
        assert (gradient - wanted).norm() < 1e-4 * wanted.norm()


def test_the_step_s_gradient_and_the_validation_loss_are_the_other_backend_s(
    make_trainer: MakeTrainer, make_grouped_trainer: MakeTrainer, sums: Any
) -> None:
    settings = {"samples_per_step": 12, "max_steps": 1}
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
    assert values is trainer.backend.flat.values
    assert values.numel() == sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    assert isinstance(trainer.optimizer, AdamW8bit)


# Killed


@pytest.fixture
def train_in_a_process(make_grouped_trainer: MakeTrainer) -> Callable[..., Ended]:
    """The bytes of its adapter, the curve, and the steps that it was gone on from."""

    def start(folder: Any, disturb: Disturb = lambda line: None, **settings: Any) -> Ended:
        def work(report: Report) -> Any:
            given = {"execution": {"checkpoint_s": 1e-9}, **SETTINGS, **settings}
            trainer = make_grouped_trainer(report=report, checkpoints=folder, **given)
            trainer.fit()
            return weights_of(trainer).numpy().tobytes(), trainer.progress.curve, trainer.resumed_from

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


Limit = Callable[..., None]


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Limit:
    """Makes the model's memory one that holds `most` documents in training, with gradient checkpointing `checkpointed`;
    the first `fails_from` calls always succeed."""

    def limit(most: int, checkpointed: int | None = None, fails_from: int = 0) -> None:
        calls: list[int] = []
        usual = grouped_training.padding_free_loss

        def loss(model: Any, inputs: dict[str, torch.Tensor], longest: int, *more: float) -> torch.Tensor:
            calls.append(1)
            holds = checkpointed if checkpointed is not None and model.is_gradient_checkpointing else most
            if len(inputs["cu_seqlens"]) - 1 > holds and len(calls) > fails_from:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return usual(model, inputs, longest, *more)

        monkeypatch.setattr(grouped_training, "padding_free_loss", loss)

    return limit


def trained(trainer: Any) -> torch.Tensor:
    trainer.fit()
    return weights_of(trainer)


def of_memory(said: Sequence[str]) -> list[str]:
    return [line for line in said if "memory" in line]


def test_out_of_memory_it_goes_on_with_half_the_micro_batch_as_if_it_had_begun_so(
    make_grouped_trainer: MakeTrainer, memory: Limit
) -> None:
    settings = {"samples_per_step": 4, "max_steps": 2, "learning_rate": 3e-3}
    halves = trained(make_grouped_trainer(execution={"micro_batch": 2}, **settings))
    said: list[str] = []
    memory(2)
    trainer = make_grouped_trainer(said, execution={"micro_batch": 4}, **settings)
    assert torch.equal(trained(trainer), halves)
    assert of_memory(said) == [
        "step 1 ran out of memory: it begins anew with 2 samples at a time, with the same samples a step"
    ]
    assert (trainer.backend.size.documents, trainer.backend.checkpointing) == (2, False)


def test_in_the_middle_of_a_later_step_nothing_is_counted_twice(
    make_grouped_trainer: MakeTrainer, memory: Limit
) -> None:
    settings = {"samples_per_step": 3, "max_steps": 2, "eval_every": 100, "learning_rate": 3e-3}
    settings |= {"execution": {"micro_batch": 1}}
    wanted = trained(make_grouped_trainer(**settings))
    said: list[str] = []
    memory(most=0, checkpointed=1, fails_from=4)  # the second micro-batch of the second step
    assert torch.equal(trained(make_grouped_trainer(said, **settings)), wanted)
    assert of_memory(said) == [
        "step 2 ran out of memory: it begins anew with gradient checkpointing, with the same samples a step"
    ]


def test_what_is_too_much_with_all_that_is_told(make_grouped_trainer: MakeTrainer, memory: Limit) -> None:
    memory(0)
    with pytest.raises(PipelineError, match=r"^step 1 does not fit into this machine's memory, one sample at a time"):
        make_grouped_trainer(samples_per_step=2, max_steps=1).fit()


def test_layers_kept_dequantized_change_nothing_and_go_first_when_memory_runs_out(
    make_grouped_trainer: MakeTrainer, memory: Limit, monkeypatch: pytest.MonkeyPatch
) -> None:
    gib = 2**30
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=80 * gib))
    settings = {"samples_per_step": 4, "max_steps": 3, "eval_every": 100, "learning_rate": 3e-3}
    settings |= {"execution": {"micro_batch": 4}}
    wanted = trained(make_grouped_trainer(**settings))
    said: list[str] = []
    memory(most=3, checkpointed=3, fails_from=2)
    trainer = make_grouped_trainer(said, **settings)
    trainer.backend._spend_spare_memory()  # which it does after its first step on CUDA
    assert trainer.backend.facts()["layers_kept_dequantized"] == 1
    assert trainer.backend.facts()["dense_kept_dequantized"] > 0
    assert all(experts.dequantized for experts in experts_of(trainer))
    found = trained(trainer)
    assert (found - wanted).abs().max() < 1e-5
    assert of_memory(said) == [
        f"step 3 ran out of memory: it begins anew with {now}, with the same samples a step"
        for now in (
            "0 layers' experts kept dequantized",
            "no weights kept dequantized",
            f"at most {trainer.backend.size.tokens} tokens at a time",
        )
    ]
    assert trainer.backend.size.documents == 4
    assert not any(experts.dequantized for experts in experts_of(trainer))


def test_attention_is_told_of_the_longest_document_padding_included(make_grouped_trainer: MakeTrainer) -> None:
    trainer = make_grouped_trainer(samples_per_step=4, max_steps=3)
    assert max(len(row.ids) for row in trainer.plan.rows) < 2 * BUCKET  # so the padding may be the longest
    assert trainer.backend.longest == 2 * BUCKET


def test_spare_memory_is_measured_against_the_largest_step(
    make_grouped_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Any] = []
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 100)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 350)
    monkeypatch.setattr(grouped_training, "spare_memory", lambda *args: heard.append(args) or 0)
    trainer = make_grouped_trainer(samples_per_step=4, max_steps=3, execution={"micro_batch": 4})
    backend, tokens = trainer.backend, [trainer.plan.tokens(step) for step in range(3)]
    backend.first_step = [trainer.plan.lengths[sample] for sample in trainer.plan.steps[1]]  # it went on from step 1
    backend.memory_before = 50
    backend._spend_spare_memory()
    assert heard == [(100, 300, max(tokens) / tokens[1], None)]
    assert backend.kept == (False, 0)


def test_validation_takes_smaller_batches(
    make_grouped_trainer: MakeTrainer, sums: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = make_grouped_trainer(eval_rows=sums[:12]).evaluate()["eval_loss"]
    sizes, usual = list[int](), grouped_backend.padding_free_loss

    def loss(model: Any, inputs: dict[str, torch.Tensor], longest: int, *more: float) -> torch.Tensor:
        sizes.append(len(inputs["cu_seqlens"]) - 1)
        if sizes[-1] > 7:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return usual(model, inputs, longest, *more)

    monkeypatch.setattr(grouped_backend, "padding_free_loss", loss)
    assert make_grouped_trainer(eval_rows=sums[:12]).evaluate()["eval_loss"] == pytest.approx(wanted, rel=1e-5)
    assert sizes == [12, 6, 6]


# Captured


@pytest.fixture
def make_capturing(
    make_grouped_trainer: MakeTrainer, capturer: type[Capturer], monkeypatch: pytest.MonkeyPatch
) -> MakeTrainer:
    """Makes trainers of four steps whose passes are captured as on CUDA; each step's documents are one pass."""
    monkeypatch.setattr(grouped_training.GroupedTraining, "_spend_spare_memory", lambda backend: None)
    monkeypatch.setattr(captured, "BUCKET", 8)  # as short as the documents differ

    def make(**settings: Any) -> Any:
        settings |= {"samples_per_step": 2, "max_steps": 4, "execution": {"micro_batch": 2}}
        trainer = make_grouped_trainer(**settings)
        backend = trainer.backend
        backend.passes = CapturedPasses(backend._loss, 2, 0, backend._to_come, "cpu")
        return trainer

    return make


def planned(trainer: Any, steps: range) -> list[int]:
    """The widths of these steps' passes."""
    return widths_of(trainer.plan.tokens(step) for step in steps)


def learn(trainer: Any, step: int) -> list[int]:
    """What is captured after a step."""
    documents = [trainer.plan.rows[sample].document for sample in trainer.plan.steps[step]]
    assert trainer.backend.forward_backward(documents, 9.0) is not None
    return list(trainer.backend.passes.captures)


def test_from_the_second_step_on_all_that_the_plan_has_left_is_captured(make_capturing: MakeTrainer) -> None:
    trainer = make_capturing()
    left = [planned(trainer, range(step, 4)) for step in range(4)]
    assert len({*map(tuple, left)}) > 2
    found = [learn(trainer, step) for step in range(4)]
    assert found == [[], left[1], left[1], left[1]]


def test_after_a_step_without_memory_and_in_a_later_process_no_more_is_captured_than_what_is_left(
    make_capturing: MakeTrainer,
) -> None:
    trainer = make_capturing()
    left = [planned(trainer, range(step, 4)) for step in range(4)]
    learn(trainer, 0)
    learn(trainer, 1)
    trainer.backend.release_memory()  # for another rank, while this one had enough
    trainer.backend.size.documents, trainer.backend.size.tokens = 2, None
    assert trainer.backend.passes.captures == {}
    assert learn(trainer, 1) == left[1]
    state = trainer.backend.state()
    later = make_capturing()
    later.backend.restore(state)
    assert [learn(later, 2), learn(later, 3)] == [[], left[3]]


def test_nothing_is_captured_where_the_memory_is_lent(make_capturing: MakeTrainer) -> None:
    trainer = make_capturing()
    trainer.backend.lend_memory()
    assert [learn(trainer, step) for step in range(3)] == [[], [], []]


# Several ranks


def test_two_processes_leave_the_loss_and_gradient_of_one(make_grouped_trainer: MakeTrainer) -> None:
    """Of seven samples, so their shares differ; and of one, of which the second rank has none."""
    for samples in (7, 1):
        settings = {"samples_per_step": samples, "max_steps": 1}

        def work(report: Report, settings: dict[str, Any] = settings) -> Any:
            with join_ranks() as ranks:
                trainer = make_grouped_trainer(ranks=ranks, **settings)
                loss, _ = step_of(trainer)
                return loss, [own.grad.tolist() for own in trainer.sharded.own]  # which its optimizer steps with

        wanted, gradient = step_of(make_grouped_trainer(**settings))
        both = [ended.result for ended in run_ranks(2, work)]
        assert sum(loss for loss, _ in both) / 2 == pytest.approx(wanted, rel=1e-4)
        found = torch.tensor([value for _, shard in both for part in shard for value in part])
        assert (found - gradient).norm() < 1e-4 * gradient.norm()


def test_nothing_wraps_the_model_of_several_ranks_and_they_end_alike(make_grouped_trainer: MakeTrainer) -> None:
    """DDP would keep autograd's nodes, and so the stream that they were made on."""

    def work(report: Report) -> Any:
        with join_ranks() as ranks:
            trainer = make_grouped_trainer(ranks=ranks, samples_per_step=2, max_steps=2)
            begun = trainer.backend.flat.values.tolist()
            trainer.fit()
            return begun, trainer.backend.flat.values.tolist(), trainer.model_wrapped is trainer.model

    (begun, first, alone), (_, second, also_alone) = [ended.result for ended in run_ranks(2, work)]
    assert alone
    assert also_alone
    assert first == second != begun
