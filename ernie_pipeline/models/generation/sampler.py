"""Drawing tokens so that an answer follows from its own seed, whatever shares the batch with it.

A row's n-th token is decided by one number in [0, 1) that its seed and n give, and by where that number falls in the
cumulated probabilities of the vocabulary. So a row that is sampled again, alone or in another batch, is the same but
for rounding; and nothing depends on a generator's state, which CUDA graphs and a resumed sampling would have to carry.
"""

from typing import Any, NamedTuple

import torch
from transformers import LogitsProcessor

from ernie_pipeline.models.generation.nucleus import nucleus

# splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014), figure 17; as int64, which
# wraps as uint64 does
_GOLDEN, _FIRST, _SECOND = (each - 2**64 for each in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


class Answers(NamedTuple):
    """Answers as token ids, and each token's log-probability in nats, see `Drawn`; the experts chosen, see `Routes`."""

    tokens: list[list[int]]
    logprobs: list[list[float]]
    routing: list[torch.Tensor] | None = None


class Drawn(NamedTuple):
    """Token ids [rows], and their log-probabilities [rows] in nats, of the distribution before `top_p` cut it."""

    tokens: torch.Tensor
    logprobs: torch.Tensor


class Sampler(NamedTuple):
    """How tokens are drawn. `top_p`: of the fewest tokens that together have this probability, at least one."""

    temperature: float
    top_p: float = 1.0

    def draw(self, logits: torch.Tensor, seeds: torch.Tensor, step: torch.Tensor) -> Drawn:
        """The next token of each row. `logits` [rows, vocabulary]; `seeds` [rows] and `step` [1] or [rows], int64.

        Greedy at temperature 0, with the log-probability at temperature 1.
        """
        logits = logits.float()
        if self.temperature == 0:
            tokens = logits.argmax(dim=-1)
            return Drawn(tokens, _logprobs(logits, tokens))
        logits = logits / self.temperature
        probabilities = logits.softmax(dim=-1)
        number = uniform(seeds, step)[:, None]
        kept = probabilities if self.top_p >= 1 else nucleus(probabilities, self.top_p)
        tokens = _at(kept, number)
        return Drawn(tokens, _logprobs(logits, tokens))


GREEDY = Sampler(0.0)


def uniform(seeds: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """A number in [0, 1) for each seed and step (int64, broadcast), fp64: the step-th output of splitmix64."""
    bits = seeds * _SECOND + (step + 1) * _GOLDEN  # seeds that follow one another start far apart
    bits = (bits ^ _shifted(bits, 30)) * _FIRST
    bits = (bits ^ _shifted(bits, 27)) * _SECOND
    bits = bits ^ _shifted(bits, 31)
    return _shifted(bits, 11).double() * 2.0**-53


class SeededDraws(LogitsProcessor):  # type: ignore[misc]
    """Makes transformers' greedy `generate` draw: all but the drawn token are impossible. `logprobs`: a step each."""

    def __init__(self, sampler: Sampler, seeds: torch.Tensor, prompt_width: int):
        self.sampler, self.seeds, self.prompt_width = sampler, seeds, prompt_width
        self.logprobs: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> Any:
        """See the class; `input_ids` [rows, width so far], `scores` [rows, vocabulary]."""
        step = torch.tensor([input_ids.shape[1] - self.prompt_width], device=scores.device)
        drawn = self.sampler.draw(scores, self.seeds, step)
        self.logprobs.append(drawn.logprobs)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn.tokens[:, None], 0.0)


def _at(weights: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
    """Where `number` [rows, 1] of the whole falls in the cumulated `weights` [rows, n]. fp64: a vocabulary is long."""
    cumulated = weights.double().cumsum(dim=-1)
    found = torch.searchsorted(cumulated, number * cumulated[:, -1:], right=True)
    found = found.clamp(max=weights.shape[1] - 1)
    # rounding may point behind the last weight that is not zero
    return torch.where(weights.gather(1, found) > 0, found, weights.argmax(dim=-1, keepdim=True))[:, 0]


def _logprobs(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(dim=-1)


def _shifted(bits: torch.Tensor, by: int) -> torch.Tensor:
    """Right by `by`, with zeros from the left: torch's own shift of int64 fills in the sign."""
    return (bits >> by) & ((1 << (64 - by)) - 1)
