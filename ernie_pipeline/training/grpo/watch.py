"""When a run is stopped: a policy that diverges, or a base that gives nothing to learn from."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ernie_pipeline.recipe.sections import Grpo
from ernie_pipeline.training.grpo.lacking import COUNTED, what_would_help

NO_NUMBERS = "the answers' probabilities are no numbers any more: lower training.learning_rate"


@dataclass
class Watch:
    """What is remembered of the steps so far; the same on all ranks. Its state is of JSON's types."""

    grpo: Grpo
    mismatched: int = 0
    """Steps in a row, up to now, whose mismatch KL was above the limit."""
    hopeless: int = 0
    """Steps in a row, up to now, with no right answer and no update."""
    recent: list[float] = field(default_factory=list)
    """The shares of right answers of the last steps, at most `grpo.patience`."""
    best: float = 0.0
    """The highest mean of as many."""
    counts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0.0))
    """Of all answers so far, see `COUNTED`."""

    @property
    def suspicious(self) -> bool:
        """Whether it may be on its way to a stop: no time to overwrite a good checkpoint."""
        return self.mismatched > 0 or self._fell(most=0.5)

    def sampled(self, answers: int, right: int, sums: Mapping[str, float]) -> str:
        """Hears of a batch; why the run has to stop, in a sentence without its end, or "".

        `answers`, and of them `right` ones: of its first draw; `sums`: of all its draws, `COUNTED` and the `surprise`,
        the sum of the negative log-probabilities.
        """
        if not math.isfinite(sums["surprise"]):
            return NO_NUMBERS
        for name in COUNTED:
            self.counts[name] += sums[name]
        self.recent = [*self.recent, right / answers][-self.grpo.patience :]
        if len(self.recent) == self.grpo.patience:
            self.best = max(self.best, self._mean)
        self._answers_each = answers
        if self._fell(most=1.0):
            return (
                f"the share of right answers fell from {self.best:.1%} to {self._mean:.1%} (means of "
                f"{len(self.recent)} steps): the policy diverges; lower training.learning_rate, or raise "
                "grpo.kl_to_base"
            )
        return ""

    def updated(self, updated: bool, mismatch_kl: float | None) -> str:
        """Hears of what became of a batch; as `sampled`."""
        if mismatch_kl is not None:
            if not math.isfinite(mismatch_kl):
                return NO_NUMBERS
            self.mismatched = self.mismatched + 1 if mismatch_kl > self.grpo.max_mismatch_kl else 0
        self.hopeless = 0 if updated or self.recent[-1] > 0 else self.hopeless + 1
        if self.mismatched >= self.grpo.patience:
            return (
                f"the sampler and the trainer disagree on the answers' probability (mismatch KL {mismatch_kl:.3g}, "
                f"over grpo.max_mismatch_kl = {self.grpo.max_mismatch_kl:g} for {self.mismatched} steps): lower "
                "training.learning_rate"
            )
        if self.hopeless >= self.grpo.patience:
            return (
                f"{self._right_of_all}, none of the last {self.hopeless} steps', and there is nothing to learn from: "
                f"{what_would_help(self.counts, self.grpo)}"
            )
        return ""

    def no_update_in(self, steps: int) -> str:
        """What to tell of a run that came to the end of its `steps` and never updated anything."""
        return (
            f"GRPO learned nothing in {steps} steps: all answers to each prompt got the same reward "
            f"({self._right_of_all}); {what_would_help(self.counts, self.grpo)}"
        )

    def state(self) -> dict[str, Any]:
        """For `restore`."""
        return {name: value for name, value in asdict(self).items() if name != "grpo"}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        for name, value in state.items():
            setattr(self, name, value)

    @property
    def _right_of_all(self) -> str:
        return f"{self.counts['right']:.0f} of {self.counts['answers']:.0f} sampled answers were right"

    @property
    def _mean(self) -> float:
        return sum(self.recent) / max(1, len(self.recent))

    def _fell(self, most: float) -> bool:
        """Whether the share of right answers fell by `most` of what is allowed, and by more than chance explains: four
        standard errors of the difference of two shares."""
        if len(self.recent) < self.grpo.patience:
            return False
        now, best, number = self._mean, self.best, self._answers_each * len(self.recent)
        error: float = ((now * (1 - now) + best * (1 - best)) / number) ** 0.5
        return best - now > max(most * self.grpo.max_fall * best, 4 * error)

    _answers_each: int = 1
