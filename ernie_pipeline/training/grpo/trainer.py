"""GRPO as a small extension of the supervised trainer: a step's rows are answers that the adapter has just given.

TRL's GRPOTrainer (1.14) does not carry it without losing the seam (`models/backend.py`). It computes log-probabilities
and loss by the model's own forward pass, past the backends' padding-free and captured passes and what they do when
memory runs out; it corrects the difference between sampler and trainer only for vLLM; what was sampled for the steps
under way is in no checkpoint of its, and its prompts' order is a generator's state, so a killed run does not end as an
undisturbed one; and it draws no further prompts for groups that teach nothing. Here the sampler is the backend's
`generate`, and a step is `forward_backward` with a weight a token: all else is `AdapterTrainer`'s.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from trl import SFTConfig

from ernie_pipeline.grading.grade import Grader
from ernie_pipeline.models.backend import LoadedModel
from ernie_pipeline.models.checkpoint.context import check_context
from ernie_pipeline.models.device import Device
from ernie_pipeline.models.routing import Replay
from ernie_pipeline.recipe.execution import Execution
from ernie_pipeline.training.checkpoints import Facts
from ernie_pipeline.training.config import trainer_config
from ernie_pipeline.training.grpo.advantages import answer_scale, loss_divisor
from ernie_pipeline.training.grpo.plan import GrpoPlan, grpo_plan
from ernie_pipeline.training.grpo.problems import read_problems, set_aside
from ernie_pipeline.training.grpo.rewards import Judge, graded
from ernie_pipeline.training.grpo.rollouts import Batch, Rollout, RolloutSampler, Stopped
from ernie_pipeline.training.grpo.watch import NO_NUMBERS, Watch
from ernie_pipeline.training.grpo.weights import Objective, kl_terms, token_weights
from ernie_pipeline.training.ranks import Ranks
from ernie_pipeline.training.resume import Saved, run_key
from ernie_pipeline.training.trainer import AdapterTrainer
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.reporter import Reporter

if TYPE_CHECKING:
    from ernie_pipeline.training.job import TrainingJob

SECONDS = ("sampling_s", "grading_s", "logprobs_s", "training_s")
"""Where a run's time goes: answers, their rewards, the trainer's log-probabilities, and the gradient."""

Values = list[torch.Tensor]
"""Of each of this rank's rollouts, a value for each token of prompt and answer."""


class GrpoTrainer(AdapterTrainer):
    """Trains the adapter of `loaded` on answers that it gives to the plan's problems, see `AdapterTrainer`.

    `judge` rewards them; None: they are graded.
    """

    plan: GrpoPlan

    def __init__(
        self,
        loaded: LoadedModel,
        config: SFTConfig,
        plan: GrpoPlan,
        *,
        ranks: Ranks,
        saved: Saved,
        report: Reporter,
        execution: Execution,
        judge: Judge | None = None,
    ):
        super().__init__(loaded, config, plan, ranks=ranks, saved=saved, report=report, execution=execution)
        grpo = plan.grpo
        self.grader = Grader(timeout_s=grpo.grading_timeout_s)
        judge = judge or graded(self.grader, grpo.format_reward)
        rows = execution.generation_rows
        self.sampler = RolloutSampler(loaded, plan, judge, ranks, rows, lambda: bool(self.stop.requested))
        self.objective = Objective(grpo.clip_low, grpo.clip_high, grpo.max_importance, grpo.kl_to_base)
        self.watch = Watch(grpo)
        self.batch: Batch | None = None
        self.old: Values = []
        """The trainer's log-probabilities of the batch's tokens before its first step."""
        self.base: Values = []
        """The base model's, where they count."""
        self.totals: dict[str, float] = dict.fromkeys(
            ("groups_skipped", "groups_trained", "steps_without_update", "tokens_sampled", *SECONDS), 0.0
        )
        self.tokens_computed = self.tokens_wanted = 0

    def fit(self) -> None:
        """See `AdapterTrainer.fit`. Raises `PipelineError` too when the policy diverges, and when there is nothing to
        learn."""
        with self.grader, self.loaded.generating_again(-(-self.plan.settings.samples_per_step // self.ranks.size)):
            super().fit()
        if self.totals["steps_without_update"] == len(self.plan.steps):
            raise PipelineError(self.watch.no_update_in(len(self.plan.steps)))

    # The steps

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, int], num_items_in_batch: object = None
    ) -> torch.Tensor:
        """Leave the gradient of a step in the parameters; none where its answers teach nothing."""
        number, updates = int(inputs["step"]), self.plan.grpo.updates_per_batch
        fresh = self.batch is None or self.batch.number != number // updates
        if fresh:
            self._sample(number // updates)
        assert self.batch is not None
        with self._timed("logprobs_s"):
            kl = self._measure(self.batch) if fresh else None
            now = self.old if fresh else self._logprobs(self.batch, self._replay(self.batch))
        with self._timed("training_s"):
            loss = self._update(number, self.batch, now)
        if fresh and (why := self.watch.updated(self.batch.groups_kept > 0, kl)):
            raise self._stopped_for(why, number)
        return loss

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        """What the device has still to do counts: it is waited for at each step anyway, by the next answers."""
        start = time.monotonic()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.monotonic() - start
        self.totals[name] += seconds
        self.progress.add("speed", {name: seconds})

    def _sample(self, number: int) -> None:
        self.batch, self.old, self.base = None, [], []
        try:
            batch = self.sampler.sample(number)
        except Stopped:
            self.stop_here()
        self.batch = batch
        why = self.watch.sampled(len(batch.first), sum(each.solved for each in batch.first), batch.sums)
        if why != NO_NUMBERS:
            self._tell(batch)
        if why:
            raise self._stopped_for(why, number * self.plan.grpo.updates_per_batch)

    def _tell(self, batch: Batch) -> None:
        rewards, sums = batch.first, batch.sums
        for name, value in {
            "groups_skipped": batch.groups_skipped,
            "groups_trained": batch.groups_kept,
            "tokens_sampled": sums["tokens"],
            "sampling_s": batch.sampling_s,
            "grading_s": batch.grading_s,
        }.items():
            self.totals[name] += value
        self.progress.add(
            "curve",
            {
                "reward": sum(each.value for each in rewards) / len(rewards),
                "solved": sum(each.solved for each in rewards) / len(rewards),
                "ended": sums["ended"] / sums["answers"],
                "entropy": sums["surprise"] / max(1, sums["tokens"]),
                "answer_tokens": sums["tokens"] / sums["answers"],
                "groups_skipped": batch.groups_skipped,
                "groups_trained": batch.groups_kept,
            },
        )
        rate = sums["tokens"] / max(1e-9, batch.sampling_s)
        speed = {"sampling_s": batch.sampling_s, "grading_s": batch.grading_s, "sampled_tokens_per_s": rate}
        self.progress.add("speed", {**speed, "draws": batch.draws})

    def _measure(self, batch: Batch) -> float | None:
        """The trainer's log-probabilities; the mean mismatch KL over all ranks' tokens, None where there are none."""
        replay = self._replay(batch)
        self.old = self._logprobs(batch, replay)
        self._tell_of(replay)
        if self.objective.kl_to_base:
            with self.loaded.without_adapter():
                self.base = self._logprobs(batch)
        sampled = [torch.cat([torch.zeros(len(each.prompt)), torch.tensor(each.logprobs)]) for each in batch.rollouts]
        mismatch = self._mean_kl(self.old, sampled)
        if mismatch is not None and math.isfinite(mismatch):
            self.progress.add("curve", {"mismatch_kl": mismatch})
        if self.objective.kl_to_base and (to_base := self._mean_kl(self.base, self.old)) is not None:
            self.progress.add("curve", {"kl_to_base": to_base})
        return mismatch

    def _logprobs(self, batch: Batch, replay: Replay | None = None) -> Values:
        documents = [each.document for each in batch.rollouts]
        return self.loaded.token_logprobs(documents, self.plan.grpo.temperature, replay)

    def _replay(self, batch: Batch) -> Replay | None:
        """The experts that the sampler chose, where it told; for a step's passes, or only to be counted."""
        chosen = [rollout.routing for rollout in batch.rollouts if rollout.routing is not None]
        told = bool(chosen) and len(chosen) == len(batch.rollouts)
        return Replay(chosen, forced=self.plan.grpo.replay_routing) if told else None

    def _tell_of(self, replay: Replay | None) -> None:
        counts = (replay.elsewhere, replay.decisions) if replay else (0, 0)
        elsewhere, decisions = self.ranks.sum(*counts)
        if decisions:
            self.progress.add("curve", {"routed_elsewhere": elsewhere / decisions})

    def _mean_kl(self, p: Values, q: Values) -> float | None:
        """Over all ranks' tokens that are counted: those of the prompts are 0 in both."""
        assert self.batch is not None
        tokens = sum(len(each.tokens) for each in self.batch.rollouts)
        terms = [float(kl_terms(*each).sum()) for each in zip(p, q, strict=True)]
        total, tokens_of_all = self.ranks.sum(math.fsum(terms), tokens)
        return total / tokens_of_all if tokens_of_all else None

    def _update(self, number: int, batch: Batch, current: Values) -> torch.Tensor:
        """The step of that number, with what the weights as they are `current`ly say of the batch's tokens."""
        documents = [rollout.document for rollout in batch.rollouts]
        lengths = [len(document.ids) for document in documents]
        self.tokens_computed += self.backend.computed_tokens(lengths)
        self.tokens_wanted += sum(lengths)
        self.step_tokens[number] = int(self.ranks.sum(sum(lengths))[0])
        if not batch.groups_kept:
            self.totals["steps_without_update"] += 1
            self.sharded.drop_gradients()  # no optimizer steps what has none, not even by its momentum
            nothing = torch.zeros((), device=self.loaded.device)
            self.progress.add_loss(nothing)
            return nothing
        grpo = self.plan.grpo
        replay = self._replay(batch)
        bases: list[torch.Tensor | None] = [*self.base] or [None] * len(documents)
        weights = [
            self._weights(rollout, now, old, base)
            for rollout, now, old, base in zip(batch.rollouts, current, self.old, bases, strict=True)
        ]
        divisor = loss_divisor(self.plan.settings.samples_per_step, grpo.max_new_tokens, grpo.normalization)
        return self.step_gradient(number, documents, divisor, weights, grpo.temperature, replay)

    def _weights(
        self, rollout: Rollout, current: torch.Tensor, old: torch.Tensor, base: torch.Tensor | None
    ) -> torch.Tensor:
        """Of prompt and answer; the prompt's are 0."""
        start = len(rollout.prompt)
        own = token_weights(
            rollout.advantage,
            current[start:],
            old[start:],
            torch.tensor(rollout.logprobs),
            None if base is None else base[start:],
            self.objective,
        )
        scale = answer_scale(len(rollout.tokens), self.plan.grpo.normalization)
        return torch.cat([torch.zeros(start), own * scale])

    def _need_less(self, step: int) -> None:
        if self.loaded.release_generator():
            self.report(f"step {step} ran out of memory: it begins anew, and merged weights are kept no more", {})
        else:
            super()._need_less(step)

    def _clip_grad_norm(self, model: torch.nn.Module) -> torch.Tensor:
        """Before the optimizer makes the weights what can no more be saved."""
        norm = super()._clip_grad_norm(model)
        if not math.isfinite(float(norm)):
            why = "the gradient is no number any more: lower training.learning_rate"
            raise self._stopped_for(why, self.state.global_step)
        return norm

    def _stopped_for(self, why: str, step: int) -> PipelineError:
        """The error of a run that stops by itself in the step of that number, from 0."""
        last = self.saved.last
        kept = f"the last good checkpoint, of step {last}, is kept" if last is not None else "no checkpoint was due yet"
        return PipelineError(f"stopped in step {step + 1} of {len(self.plan.steps)}: {why} ({kept})")

    # Validation

    def _validation_loss(self) -> float | None:
        """The share of the problems set aside whose greedy answer is not right, boxed and ended."""
        own = self.plan.problems.held[self.ranks.rank :: self.ranks.size]
        try:
            answers = self.sampler.answers([problem.ids for problem in own], self.sampler.sampling(0.0), [0] * len(own))
        except Stopped:
            return None
        values = self.sampler.rewards(answers, [problem.reference for problem in own])
        return 1 - self.ranks.sum(sum(each.solved for each in values))[0] / len(self.plan.problems.held)

    def shown_of(self, loss: float) -> dict[str, float]:
        """See `AdapterTrainer.shown_of`."""
        return {"accuracy": 1 - loss}

    # Checkpoints

    @property
    def may_save(self) -> bool:
        """Between two batches of answers: those under way are sampled again, from the weights that sampled them."""
        return int(self.state.global_step) % self.plan.grpo.updates_per_batch == 0

    @property
    def is_late(self) -> bool:
        """Nothing suspicious takes a good checkpoint's place."""
        return bool(super().is_late) and not self.watch.suspicious

    def state_of_method(self) -> Facts:
        """See `AdapterTrainer.state_of_method`."""
        tokens = {"computed": self.tokens_computed, "wanted": self.tokens_wanted}
        return {"watch": self.watch.state(), "totals": self.totals, "tokens": tokens}

    def restore_method(self, state: Facts) -> None:
        """See `AdapterTrainer.restore_method`."""
        self.watch.restore(state["watch"])
        self.totals |= state["totals"]
        self.tokens_computed, self.tokens_wanted = state["tokens"]["computed"], state["tokens"]["wanted"]

    # What is told of it

    @property
    def padding_share(self) -> float:
        """Of this rank's steps."""
        return 1 - self.tokens_wanted / max(1, self.tokens_computed)

    def facts_of_method(self) -> Facts:
        """See `AdapterTrainer.facts_of_method`."""
        curve = self.progress.curve
        found: dict[str, list[float]] = {
            name: [entry[name] for entry in curve if name in entry]
            for name in ("reward", "solved", "mismatch_kl", "routed_elsewhere")
        }
        facts: dict[str, Any] = {"method": "grpo", **self.totals, "eval_problems": len(self.plan.problems.held)}
        for name in SECONDS:
            facts[name] = round(facts[name], 1)
        for name in ("solved", "reward"):
            if values := found[name]:
                tenth = max(1, len(values) // 10)
                facts[f"{name}_at_start"] = sum(values[:tenth]) / tenth
                facts[f"{name}_at_end"] = sum(values[-tenth:]) / tenth
        if found["mismatch_kl"]:
            kls = found["mismatch_kl"]
            facts |= {"mismatch_kl": sum(kls) / len(kls), "highest_mismatch_kl": max(kls)}
        if found["routed_elsewhere"]:
            facts["routed_elsewhere"] = sum(found["routed_elsewhere"]) / len(found["routed_elsewhere"])
        return facts


def grpo_trainer(
    loaded: LoadedModel, job: "TrainingJob", device: Device, ranks: Ranks, report: Reporter
) -> GrpoTrainer:
    """The trainer of a job whose method is GRPO. Raises `PipelineError` where there are too few problems."""
    settings, grpo = job.training, job.grpo
    assert grpo is not None
    found = read_problems(job.split, loaded.tokenizer, job.solutions)
    base, prompts = job.spec.base, [problem.ids for problem in found]
    check_context(base.checkpoint, base.revision, prompts, grpo.max_new_tokens, "grpo.max_new_tokens")
    plan = grpo_plan(settings, grpo, set_aside(found, grpo.eval_problems, settings.samples_per_step // grpo.group))
    key = run_key(job.spec, settings, plan.rows, plan.eval_rows, grpo.model_dump(mode="json"))
    return GrpoTrainer(
        loaded,
        trainer_config(settings, len(plan.steps), device=device.name),
        plan,
        ranks=ranks,
        saved=Saved(job.checkpoints, key, ranks, report),
        report=report,
        execution=device.execution,
    )
