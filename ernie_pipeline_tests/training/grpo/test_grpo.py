"""Runs of GRPO on the demo model's first two layers: they learn, are killed, stopped and gone on with."""

import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ernie_pipeline.models.documents import document
from ernie_pipeline.training.grpo.rewards import reward
from ernie_pipeline.training.grpo.trainer import GrpoTrainer  # imported once, before its processes are forked
from ernie_pipeline.training.ranks import join_ranks
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.training.conftest import weights_of
from ernie_pipeline_tests.training.grpo.conftest import MakeGrpo, nothing_is_right
from ernie_pipeline_tests.training.processes import Disturb, Ended, Report, run, run_ranks


def curve_of(trainer: GrpoTrainer, name: str) -> list[float]:
    return [entry[name] for entry in trainer.progress.curve if name in entry]


def test_it_learns_what_is_rewarded_and_tells_how(make_grpo: MakeGrpo) -> None:
    heard: list[dict[str, Any]] = []
    trainer = make_grpo(
        report=lambda line, values: heard.append(values), max_steps=6, samples_per_step=16, learning_rate=1e-2
    )
    trainer.fit()
    solved = curve_of(trainer, "solved")
    assert solved[0] < 0.6
    assert solved[-1] > 0.8
    assert curve_of(trainer, "accuracy")[-1] > curve_of(trainer, "accuracy")[0]
    assert max(curve_of(trainer, "mismatch_kl")) < 1e-6  # in fp32 sampler and trainer are one
    told = {"reward", "solved", "ended", "entropy", "answer_tokens", "groups_skipped", "mismatch_kl", "sampling_s"}
    told |= {"grading_s", "logprobs_s", "training_s", "sampled_tokens_per_s", "seconds_left", "tokens_per_s"}
    assert any(told <= {*values} for values in heard)
    facts = trainer.facts_of_method()
    assert facts["solved_at_start"] == solved[0]
    assert facts["tokens_sampled"] >= 6 * 16 * 2
    assert facts["groups_trained"] + facts["groups_skipped"] >= 6 * 4
    assert 0 <= trainer.padding_share < 1
    assert trainer.progress.tokens > 0


def test_the_first_step_s_gradient_is_that_of_the_advantages(make_grpo: MakeGrpo) -> None:
    """By hand: each answer's log-likelihood times what its reward is above its group's mean."""
    trainer = make_grpo(max_steps=1, grpo={"temperature": 1.5})
    trainer.loaded.module.train()
    trainer.training_step(trainer.model, {"step": 0})
    found = [parameter.grad.clone() for parameter in trainer.backend.parameters if parameter.grad is not None]
    rollouts = trainer.batch.rollouts
    assert {rollout.advantage for rollout in rollouts} - {0.0}
    total = torch.zeros(())
    for each in rollouts:
        ids = torch.tensor([[*each.prompt, *each.tokens]])
        logprobs = (trainer.loaded.module(input_ids=ids).logits[0, :-1].float() / 1.5).log_softmax(-1)
        own = logprobs.gather(1, ids[0, 1:, None])[len(each.prompt) - 1 :, 0]
        assert own.tolist() == pytest.approx(each.logprobs, abs=1e-4)
        total = total - each.advantage * own.sum()
    for parameter in trainer.backend.parameters:
        parameter.grad = None
    (total / (8 * 6)).backward()
    wanted = [parameter.grad for parameter in trainer.backend.parameters if parameter.grad is not None]
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).norm() <= 1e-4 * other.norm() + 1e-9


def test_backend_grouped_samples_and_learns_the_same(make_grpo: MakeGrpo, make_grouped_grpo: MakeGrpo) -> None:
    """At another temperature than 1, and with two steps from a batch."""
    settings = {"max_steps": 4, "grpo": {"temperature": 1.3, "updates_per_batch": 2, "kl_to_base": 0.01}}
    curves = []
    for make in (make_grpo, make_grouped_grpo):
        trainer = make(**settings)
        trainer.fit()
        curves.append(trainer.progress.curve)
    for one, other in zip(*curves, strict=True):
        assert one == pytest.approx(other, rel=1e-2, abs=1e-6)
    assert len({*(entry["kl_to_base"] for entry in curves[0] if "kl_to_base" in entry)}) == 2


def test_a_step_that_teaches_nothing_updates_nothing_and_counts(make_grpo: MakeGrpo) -> None:
    """Not even by the optimizer's momentum."""
    trainer = make_grpo(max_steps=3, keep="last")
    after: list[torch.Tensor] = []
    usual = trainer.sampler.judge

    def judge(*asked: Any) -> Any:
        after.append(weights_of(trainer))
        return usual(*asked) if trainer.state.global_step == 0 else [reward(False, True, 0.0)] * len(asked[0])

    trainer.sampler.judge = judge
    trainer.args.warmup_steps = 0
    trainer.fit()
    facts = trainer.facts_of_method()
    assert facts["steps_without_update"] == 2
    assert facts["groups_skipped"] >= 2 * 2 * 3  # both prompts of two steps, at each of three draws
    assert not torch.equal(after[0], weights_of(trainer))
    assert torch.equal(after[-1], weights_of(trainer))
    assert trainer.progress.step == 3


def test_groups_that_are_alike_are_not_replaced_where_that_is_not_asked_for(make_grpo: MakeGrpo) -> None:
    trainer = make_grpo(max_steps=1, judge=nothing_is_right, grpo={"filter_groups": False})
    with pytest.raises(PipelineError, match="learned nothing in 1 steps"):
        trainer.fit()
    assert trainer.facts_of_method()["groups_skipped"] == 2
    pulled = make_grpo(max_steps=1, judge=nothing_is_right, grpo={"filter_groups": False, "kl_to_base": 0.1})
    pulled.fit()
    assert (pulled.facts_of_method()["groups_skipped"], pulled.facts_of_method()["groups_trained"]) == (0, 2)


def test_the_divergence_from_the_base_draws_back_to_it(make_grpo: MakeGrpo) -> None:
    """With nothing to be rewarded, from an adapter that is far from it."""

    def away(trainer: GrpoTrainer) -> float:
        own = [document([5, 30, 40, 50, 60, 70, 80, 90], 1)]
        with trainer.loaded.without_adapter():
            base = trainer.loaded.token_logprobs(own)[0]
        return float((trainer.loaded.token_logprobs(own)[0] - base).abs().mean())

    settings = {"filter_groups": False, "kl_to_base": 1.0}
    trainer = make_grpo(max_steps=6, judge=nothing_is_right, grpo=settings)
    with torch.no_grad():
        for name, parameter in trainer.loaded.trainable().items():
            parameter.mul_(6 if "lora_B" in name else 1)
    before = away(trainer)
    trainer.fit()
    assert away(trainer) < 0.8 * before


def test_a_base_that_solves_nothing_stops_the_run_in_one_sentence(make_grpo: MakeGrpo) -> None:
    trainer = make_grpo(max_steps=9, judge=nothing_is_right, grpo={"patience": 2, "max_draws": 1})
    with pytest.raises(PipelineError) as told:
        trainer.fit()
    assert str(told.value) == (
        "stopped in step 2 of 9: 0 of 16 sampled answers were right, none of the last 2 steps', and there is nothing "
        "to learn from: 100% were cut off at grpo.max_new_tokens = 6; raise it (no checkpoint was due yet)"
    )


def test_start_and_end_are_a_tenth_of_the_batches_each(make_grpo: MakeGrpo) -> None:
    """One step's few answers say little."""
    trainer = make_grpo()
    trainer.progress.curve += [{"step": n, "solved": n / 20, "reward": 2 * n / 20} for n in range(20)]
    facts = trainer.facts_of_method()
    assert (facts["solved_at_start"], facts["solved_at_end"]) == pytest.approx((0.5 / 20, 18.5 / 20))
    assert (facts["reward_at_start"], facts["reward_at_end"]) == pytest.approx((1 / 20, 37 / 20))


@pytest.mark.parametrize(("right", "told"), [(True, "too easy for this base model"), (False, "raise grpo.group = 4")])
def test_a_run_that_never_updates_anything_says_why_at_its_end(make_grpo: MakeGrpo, right: bool, told: str) -> None:
    """Shorter than `patience`, or with nothing but right answers: what comes out would be the base model."""
    trainer = make_grpo(max_steps=2, judge=lambda answers, *_: [reward(True, right, 0.0)] * len(answers))
    trainer.sampler._ended = lambda answer: True
    with pytest.raises(PipelineError, match=rf"^GRPO learned nothing in 2 steps: all answers .* right\); .*{told}"):
        trainer.fit()


def test_probabilities_that_are_no_numbers_stop_it_before_they_are_learned_from(
    make_grpo: MakeGrpo, tmp_path: Path
) -> None:
    """A step made weights of which the model computes no number: what stood before it is kept."""
    trainer = make_grpo(max_steps=4, checkpoints=tmp_path, execution={"checkpoint_s": 1e-9})
    usual = trainer.sampler.sample

    def sample(number: int) -> Any:
        if number == 2:
            with torch.no_grad():
                trainer.backend.parameters[0].fill_(math.nan)
        return usual(number)

    trainer.sampler.sample = sample
    with pytest.raises(PipelineError) as told:
        trainer.fit()
    assert str(told.value) == (
        "stopped in step 3 of 4: the answers' probabilities are no numbers any more: lower training.learning_rate "
        "(the last good checkpoint, of step 2, is kept)"
    )


def test_a_policy_that_diverges_is_stopped_with_its_last_good_checkpoint(make_grpo: MakeGrpo, tmp_path: Path) -> None:
    """From step 3 on the sampler is another one than the trainer believes."""
    trainer = make_grpo(
        max_steps=9, checkpoints=tmp_path, execution={"checkpoint_s": 1e-9}, grpo={"patience": 2}, learning_rate=1e-3
    )
    usual = trainer.loaded.token_logprobs

    def other(documents: Any, temperature: float, replay: Any) -> list[torch.Tensor]:
        wrong = 2.0 if trainer.state.global_step >= 2 else 0.0
        return [each - wrong for each in usual(documents, temperature, replay)]

    trainer.loaded.token_logprobs = other
    try:
        with pytest.raises(PipelineError) as told:
            trainer.fit()
    finally:
        del trainer.loaded.token_logprobs
    assert str(told.value).startswith("stopped in step 4 of 9: the sampler and the trainer disagree on the answers'")
    assert str(told.value).endswith("lower training.learning_rate (the last good checkpoint, of step 2, is kept)")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1", "checkpoint-2"]


def test_a_gradient_that_is_no_number_stops_it_before_it_reaches_the_weights(make_grpo: MakeGrpo) -> None:
    trainer = make_grpo(max_steps=2)
    usual = trainer.step_gradient

    def broken(*asked: Any) -> torch.Tensor:
        loss: torch.Tensor = usual(*asked)
        next(p for p in trainer.backend.parameters if p.grad is not None).grad.fill_(math.nan)
        return loss

    trainer.step_gradient = broken
    with pytest.raises(PipelineError, match="the gradient is no number any more: lower"):
        trainer.fit()
    assert torch.isfinite(weights_of(trainer)).all()


# Killed and asked to stop

STEPS = 4


def at(line_start: str, number: int) -> Disturb:
    return lambda line: os.kill(os.getpid(), number) if line.startswith(line_start) else None


@pytest.fixture
def train_in_a_process(make_grpo: MakeGrpo) -> Callable[..., Ended]:
    """The bytes of its adapter, the curve, the steps that it was gone on from, and what was counted."""

    def start(folder: Path | None, disturb: Disturb = lambda line: None, **settings: Any) -> Ended:
        def work(report: Report) -> Any:
            given = {"execution": {"checkpoint_s": 1e-9}, "max_steps": STEPS, "learning_rate": 1e-2, **settings}
            trainer = make_grpo(report=report, checkpoints=folder, **given)
            trainer.fit()
            counted = {name: total for name, total in trainer.totals.items() if not name.endswith("_s")}
            weights = weights_of(trainer).numpy().tobytes()
            return weights, trainer.progress.curve, trainer.resumed_from, counted

        return run(work, disturb)

    return start


@pytest.fixture(scope="module")
def undisturbed_runs() -> dict[str, Ended]:
    """By their settings: what the tests here share."""
    return {}


@pytest.fixture
def undisturbed_run(
    train_in_a_process: Callable[..., Ended], undisturbed_runs: dict[str, Ended]
) -> Callable[..., Ended]:
    """A run of these settings that nothing happens to."""

    def once(**settings: Any) -> Ended:
        if (key := repr(settings)) not in undisturbed_runs:
            undisturbed_runs[key] = train_in_a_process(None, **settings)
        return undisturbed_runs[key]

    return once


@pytest.mark.parametrize(
    ("settings", "killed_at", "gone_on_from"),
    [({}, "step 3/", 2), ({"grpo": {"updates_per_batch": 2}, "keep": "last"}, "step 4/", 2)],
    ids=["an update a batch", "two updates a batch"],
)
def test_killed_it_goes_on_to_the_same_bytes(
    train_in_a_process: Callable[..., Ended],
    undisturbed_run: Callable[..., Ended],
    tmp_path: Path,
    settings: dict[str, Any],
    killed_at: str,
    gone_on_from: int,
) -> None:
    undisturbed = undisturbed_run(**settings)
    killed = train_in_a_process(tmp_path, at(killed_at, signal.SIGKILL), **settings)
    assert killed.code == -signal.SIGKILL
    resumed = train_in_a_process(tmp_path, **settings)
    assert resumed.result[2] == [gone_on_from]
    assert (*resumed.result[:2], resumed.result[3]) == (*undisturbed.result[:2], undisturbed.result[3])


@pytest.mark.parametrize("steps", [0, 2])
def test_asked_to_stop_while_it_samples_it_saves_what_stands_and_goes_on_from_there(
    train_in_a_process: Callable[..., Ended],
    undisturbed_run: Callable[..., Ended],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    steps: int,
) -> None:
    """In the first step too, when nothing stands."""
    undisturbed = undisturbed_run()
    generate = GrpoTrainer._sample
    asked: list[int] = []

    def ask(trainer: GrpoTrainer, number: int) -> None:
        if number == steps and not asked:
            asked.append(number)
            os.kill(os.getpid(), signal.SIGTERM)
        generate(trainer, number)

    with monkeypatch.context() as patched:
        patched.setattr(GrpoTrainer, "_sample", ask)
        stopped = train_in_a_process(tmp_path, execution={"checkpoint_s": 300.0})
    assert stopped.told == (
        f"stopped by SIGTERM after step {steps} of 4; its checkpoint is kept: run the same command again and it goes "
        "on from there"
    )
    resumed = train_in_a_process(tmp_path)
    assert resumed.result[2] == [steps]
    assert (*resumed.result[:2], resumed.result[3]) == (*undisturbed.result[:2], undisturbed.result[3])


def test_out_of_memory_it_goes_on_with_fewer_at_a_time(make_grpo: MakeGrpo, demo_adapter: Any) -> None:
    wanted = make_grpo(max_steps=2, execution={"micro_batch": 4})
    wanted.fit()
    before = weights_of(wanted)

    def check(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if module.training and len(kwargs["input_ids"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    said: list[str] = []
    trainer = make_grpo(said, max_steps=2, execution={"micro_batch": 4})
    hook = demo_adapter.module.register_forward_pre_hook(check, with_kwargs=True)
    try:
        trainer.fit()
    finally:
        hook.remove()
    assert sum("ran out of memory: it begins anew with 2 samples at a time" in line for line in said) == 1
    assert (weights_of(trainer) - before).abs().max() < 1e-5


def test_two_processes_sample_and_train_their_shares_to_the_same_adapter(make_grpo: MakeGrpo) -> None:
    def work(report: Report) -> Any:
        with join_ranks() as ranks:
            trainer = make_grpo(ranks=ranks, max_steps=3, learning_rate=1e-2)
            trainer.fit()
            return weights_of(trainer).numpy(), trainer.progress.curve, trainer.totals["tokens_sampled"]

    alone = run(work).result
    together = [ended.result for ended in run_ranks(2, work)]
    assert (together[0][0] == together[1][0]).all()
    assert together[0][1] == together[1][1]
    assert abs(together[0][0] - alone[0]).max() < 2e-4
    assert together[0][2] == alone[2]
    for one, other in zip(together[0][1], alone[1], strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-6)
