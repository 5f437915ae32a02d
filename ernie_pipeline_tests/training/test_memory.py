"""When memory runs out: fewer samples at a time, then gradient checkpointing, then one sentence."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ernie_pipeline.models.grouped.spare_memory import MARGIN, spare_memory
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.training.conftest import weights_of

MakeTrainer = Callable[..., Any]
Holds = Callable[[torch.Tensor, bool], bool]


@pytest.fixture
def memory_that(demo_adapter: Any) -> Iterator[Any]:
    """Makes the model's memory one that holds an input when `holds(its ids, with gradient checkpointing)`."""
    hooks = []

    def limit(holds: Holds) -> None:
        def check(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
            if not holds(kwargs["input_ids"], demo_adapter.module.is_gradient_checkpointing):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        hooks.append(demo_adapter.module.register_forward_pre_hook(check, with_kwargs=True))

    yield limit
    for hook in hooks:
        hook.remove()


def trained(trainer: Any) -> torch.Tensor:
    """Its adapter at the end."""
    trainer.fit()
    return weights_of(trainer)


def test_it_goes_on_with_fewer_samples_at_a_time_as_if_it_had_begun_so(
    make_trainer: MakeTrainer, memory_that: Any
) -> None:
    whole = trained(make_trainer(samples_per_step=4, max_steps=2, execution={"micro_batch": 4}))
    halves = trained(make_trainer(samples_per_step=4, max_steps=2, execution={"micro_batch": 2}))
    said: list[str] = []
    memory_that(lambda ids, checkpointing: len(ids) <= 2)
    trainer = make_trainer(said, samples_per_step=4, max_steps=2, execution={"micro_batch": 4})
    found = trained(trainer)
    assert torch.equal(found, halves)
    assert (found - whole).abs().max() < 1e-5
    assert [line for line in said if "memory" in line] == [
        "step 1 ran out of memory: it begins anew with 2 samples at a time, with the same samples a step",
    ]
    assert (trainer.backend.size.documents, trainer.backend.checkpointing) == (2, False)


def test_a_packed_row_is_divided_too(make_trainer: MakeTrainer, memory_that: Any) -> None:
    settings = {"samples_per_step": 8, "max_steps": 1, "execution": {"packing": True}}
    wanted = trained(make_trainer(**settings))
    memory_that(lambda ids, checkpointing: ids.numel() < 250)
    trainer = make_trainer(**settings)
    assert (trained(trainer) - wanted).abs().max() < 1e-5
    assert trainer.backend.size.documents < 8


def test_in_the_middle_of_a_later_step_at_one_sample_it_turns_gradient_checkpointing_on(
    make_trainer: MakeTrainer, memory_that: Any
) -> None:
    settings = {"samples_per_step": 3, "max_steps": 2, "log_every": 1, "execution": {"micro_batch": 1}}
    wanted = trained(make_trainer(**settings))
    said, calls = list[str](), list[int]()

    def holds(ids: torch.Tensor, checkpointing: bool) -> bool:
        calls.append(len(ids))
        return checkpointing or len(calls) <= 4

    memory_that(holds)
    trainer = make_trainer(said, **settings)
    found = trained(trainer)
    assert "step 2 ran out of memory: it begins anew with gradient checkpointing, with the same samples a step" in said
    assert (trainer.backend.size.documents, trainer.backend.checkpointing) == (1, True)
    assert torch.equal(found, wanted)  # nothing of the broken step was counted twice


@pytest.mark.parametrize("trainers", ["make_trainer", "make_grouped_trainer"])
@pytest.mark.parametrize("checkpointing", [True, False])
def test_gradient_checkpointing_is_in_force_from_the_first_step(
    trainers: str, checkpointing: bool, request: pytest.FixtureRequest
) -> None:
    trainer = request.getfixturevalue(trainers)(
        samples_per_step=2, max_steps=2, execution={"gradient_checkpointing": checkpointing}
    )
    calls = {0: 0, 1: 0}

    def count(module: Any, args: Any) -> None:
        if trainer.state.global_step < 2 and trainer.model.training:
            calls[trainer.state.global_step] += 1

    experts = trainer.model.get_submodule("base_model.model.model.layers.1.mlp.experts")
    hook = experts.register_forward_pre_hook(count)
    try:
        trainer.fit()
    finally:
        hook.remove()
    assert calls == ({0: 2, 1: 2} if checkpointing else {0: 1, 1: 1})  # once more in the backward pass


def test_what_is_too_much_with_all_that_is_told_with_what_would_help(
    make_trainer: MakeTrainer, memory_that: Any
) -> None:
    memory_that(lambda ids, checkpointing: False)
    with pytest.raises(PipelineError) as told:
        make_trainer(samples_per_step=2, max_steps=1).fit()
    assert str(told.value) == (
        "step 1 does not fit into this machine's memory, one sample at a time and with gradient checkpointing: lower "
        "split.max_tokens or lora.rank, or use a machine with more of it"
    )
    with pytest.raises(PipelineError, match=r"a held-out row does not fit"):
        make_trainer().evaluate()


def test_validation_takes_smaller_batches(make_trainer: MakeTrainer, memory_that: Any, sums: Any) -> None:
    wanted = make_trainer(eval_rows=sums[:12]).evaluate()["eval_loss"]
    memory_that(lambda ids, checkpointing: len(ids) <= 7)
    assert make_trainer(eval_rows=sums[:12]).evaluate()["eval_loss"] == pytest.approx(wanted, rel=1e-5)


def test_another_error_is_none_of_memory(make_trainer: MakeTrainer, demo_adapter: Any) -> None:
    def fail(*args: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    hook = demo_adapter.module.register_forward_pre_hook(fail)
    try:
        with pytest.raises(RuntimeError, match="shapes"):
            make_trainer(samples_per_step=2, max_steps=1).fit()
        with pytest.raises(RuntimeError, match="shapes"):
            make_trainer().evaluate()
    finally:
        hook.remove()


GIB = 2**30


@pytest.fixture
def gpu_of_80_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=80 * GIB))


@pytest.mark.parametrize(
    ("growth", "limit", "wanted"),
    [
        (1, None, 80 - 4),
        (2.5, None, 80 - 10),
        (0.5, None, 80 - 4),  # the largest pass is no smaller than this one
        (1, 60, 60 - 4),
        (1, 200, 80 - 4),
    ],
)
def test_spare_is_what_the_largest_pass_and_a_margin_leave(
    gpu_of_80_gib: None, growth: float, limit: float | None, wanted: int
) -> None:
    assert spare_memory(12 * GIB, 4 * GIB, growth, limit) == (wanted - 12) * GIB - MARGIN


def test_without_spare_memory_there_is_none(gpu_of_80_gib: None) -> None:
    assert spare_memory(12 * GIB, 70 * GIB, 1, None) == 0
    assert spare_memory(12 * GIB, 0, 1, 12) == 0
