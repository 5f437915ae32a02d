"""A batch of answers: sampled by the adapter as it is, rewarded, and of those groups that teach something."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from ernie_pipeline.models.backend import LoadedModel, Sampling
from ernie_pipeline.models.checkpoint.tokenizer import answer_texts
from ernie_pipeline.models.documents import Document, document
from ernie_pipeline.training.grpo.advantages import advantages, has_signal
from ernie_pipeline.training.grpo.plan import GrpoPlan
from ernie_pipeline.training.grpo.rewards import Judge, Reward, reward
from ernie_pipeline.training.ranks import Ranks

LEAST_KEPT = 0.25
"""Of the prompts of a further draw, the share that is counted on to teach something."""


class Stopped(Exception):
    """It was asked to stop, on this rank or another."""


class Rollout(NamedTuple):
    """An answer that is learned from: `tokens` with the sampler's log-probabilities [tokens], after `prompt`."""

    prompt: list[int]
    tokens: list[int]
    logprobs: list[float]
    advantage: float
    routing: torch.Tensor | None = None
    """The experts that the sampler chose for prompt and answer, if it tells, see `Replay`."""

    @property
    def document(self) -> Document:
        """Prompt and answer; the loss counts the answer, its end token included."""
        return document([*self.prompt, *self.tokens], len(self.prompt))


class Answer(NamedTuple):
    """As it was sampled on this rank."""

    tokens: list[int]
    logprobs: list[float]
    routing: torch.Tensor | None = None


class Group(NamedTuple):
    """A prompt's answers: the rewards of all, the same on each rank, and those that this rank has, by number."""

    problem: int
    rewards: list[Reward]
    answers: dict[int, Answer]


@dataclass
class Batch:
    """What the steps of one batch learn from. `rollouts` are this rank's; all else is of all ranks'.

    `first`: the rewards of the first draw, whose prompts depend on nothing that was sampled. `sums`: of all answers
    the watch's `COUNTED`, their tokens, and as `surprise` the negative log-probabilities. `sampling_s` and
    `grading_s`: what this rank took.
    """

    number: int
    rollouts: list[Rollout] = field(default_factory=list)
    first: list[Reward] = field(default_factory=list)
    groups_skipped: int = 0
    groups_kept: int = 0
    draws: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    sampling_s: float = 0.0
    grading_s: float = 0.0


class RolloutSampler:
    """Samples the batches of a plan. `rows`: prompts answered at a time; `asked_to_stop` is heard between answers."""

    def __init__(
        self,
        loaded: LoadedModel,
        plan: GrpoPlan,
        judge: Judge,
        ranks: Ranks,
        rows: int,
        asked_to_stop: Callable[[], bool],
    ):
        self.loaded, self.plan, self.judge, self.ranks, self.rows = loaded, plan, judge, ranks, rows
        self.asked_to_stop = asked_to_stop

    def sample(self, number: int) -> Batch:
        """The batch of that number, on all ranks. Raises `Stopped`, on all ranks or none."""
        grpo, batch = self.plan.grpo, Batch(number)
        prompts = self.plan.prompts[number]
        wanted, used, kept = len(prompts), list[int](), list[Group]()
        while prompts and batch.draws < (grpo.max_draws if grpo.filter_groups else 1):
            groups = self._groups(batch, prompts, len(used))
            used += prompts
            batch.draws += 1
            batch.first = batch.first or [each for group in groups for each in group.rewards]
            teaching = [group for group in groups if self._teaches(group)]
            batch.groups_skipped += len(groups) - len(teaching)
            kept = [*kept, *teaching][:wanted]
            missing = wanted - len(kept)
            share = max(LEAST_KEPT, len(kept) / len(used))
            further = min(wanted, math.ceil(missing / share))
            prompts = self.plan.further_prompts(number, batch.draws + 1, used, further) if missing else []
        batch.groups_kept = len(kept)
        batch.rollouts = [rollout for group in kept for rollout in self._rollouts(group)]
        return batch

    def _teaches(self, group: Group) -> bool:
        """Where all rewards are equal, the advantages are 0: then only the divergence from the base may count."""
        pulled = not self.plan.grpo.filter_groups and self.plan.grpo.kl_to_base > 0
        return pulled or has_signal([each.value for each in group.rewards])

    def _groups(self, batch: Batch, prompts: Sequence[int], place: int) -> list[Group]:
        """The rewarded answers to `prompts`, the first of which is in this `place` of the batch."""
        group, ranks = self.plan.grpo.group, self.ranks
        slots = [(at, answer) for at in range(len(prompts)) for answer in range(group)]
        own = slots[ranks.rank :: ranks.size]  # of each group as many as the other ranks, or one more
        seeds = [self.plan.seed(batch.number, place + at, answer) for at, answer in own]
        problems = [self.plan.problems.practised[prompts[at]] for at, _ in own]
        sampling = self.sampling(self.plan.grpo.temperature, self.plan.grpo.top_p)
        start = time.monotonic()
        answers = self.answers([problem.ids for problem in problems], sampling, seeds)
        sampled = time.monotonic()
        values = self.rewards(answers, [problem.reference for problem in problems])
        batch.sampling_s += sampled - start
        batch.grading_s += time.monotonic() - sampled
        self._count(batch, answers, values)
        found = self._all_ranks(len(slots), dict(zip(own, values, strict=True)), group)
        mine = dict(zip(own, answers, strict=True))
        return [
            Group(
                problem,
                found[at * group : (at + 1) * group],
                {answer: mine[at, answer] for answer in range(group) if (at, answer) in mine},
            )
            for at, problem in enumerate(prompts)
        ]

    def sampling(self, temperature: float, top_p: float = 1.0) -> Sampling:
        """With the recipe's limit of new tokens."""
        return Sampling(self.plan.grpo.max_new_tokens, temperature, top_p, with_routing=temperature > 0)

    def answers(self, prompts: Sequence[list[int]], sampling: Sampling, seeds: Sequence[int]) -> list[Answer]:
        """By the adapter as it is, this rank's. Raises `Stopped`, on all ranks or none."""

        def hear(*told: object) -> None:
            if self.ranks.size == 1 and self.asked_to_stop():
                raise Stopped  # the others of several would wait for this one

        found: list[Answer] = []
        if prompts:
            made = self.loaded.generate(prompts, sampling, rows=self.rows, seeds=seeds, progress=hear, on_answer=hear)
            routing: list[torch.Tensor | None] = [*(made.routing or [])] or [None] * len(prompts)
            found = [Answer(*each) for each in zip(made.tokens, made.logprobs, routing, strict=True)]
        if self.ranks.any(self.asked_to_stop())[0]:
            raise Stopped
        return found

    def rewards(self, answers: Sequence[Answer], references: Sequence[str]) -> list[Reward]:
        """Of this rank's answers."""
        texts = answer_texts(self.loaded.tokenizer, [answer.tokens for answer in answers])
        ended = [self._ended(answer) for answer in answers]
        return self.judge(texts, ended, references)

    def _ended(self, answer: Answer) -> bool:
        return bool(answer.tokens) and answer.tokens[-1] in self.loaded.end_tokens

    def _all_ranks(self, number: int, own: dict[tuple[int, int], Reward], group: int) -> list[Reward]:
        """The rewards of all ranks' slots, in their order: whole numbers, so that their sums are exact."""
        flags = [0.0] * (2 * number)
        for (at, answer), each in own.items():
            flags[at * group + answer] = float(each.formatted)
            flags[number + at * group + answer] = float(each.solved)
        summed = self.ranks.sum(*flags)
        pairs = zip(summed[:number], summed[number:], strict=True)
        return [reward(formatted > 0, solved > 0, self.plan.grpo.format_reward) for formatted, solved in pairs]

    def _count(self, batch: Batch, answers: Sequence[Answer], values: Sequence[Reward]) -> None:
        own = {
            "answers": len(answers),
            "tokens": sum(len(answer.tokens) for answer in answers),
            "ended": sum(map(self._ended, answers)),
            "formatted": sum(value.formatted for value in values),
            "timed_out": sum(value.timed_out for value in values),
            "right": sum(value.solved for value in values),
            "surprise": -sum(map(math.fsum, (answer.logprobs for answer in answers))),
        }
        for name, total in zip(own, self.ranks.sum(*own.values()), strict=True):
            batch.sums[name] = batch.sums.get(name, 0.0) + total

    def _rollouts(self, group: Group) -> list[Rollout]:
        each = advantages([reward.value for reward in group.rewards], self.plan.grpo.normalization)
        prompt = self.plan.problems.practised[group.problem].ids
        return [
            Rollout(prompt, answer.tokens, answer.logprobs, each[number], answer.routing)
            for number, answer in group.answers.items()
            if answer.tokens
        ]
