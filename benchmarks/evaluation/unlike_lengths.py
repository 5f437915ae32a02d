"""Samples of log-normal lengths, as real answers have, beside a full batch of equal ones. For `generate.py`."""

import gc
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ernie_pipeline.models.generation.decode import decode
from ernie_pipeline.models.generation.memory_plan import free_bytes, row_bytes, rows_that_fit
from ernie_pipeline.models.generation.sampler import Sampler
from ernie_pipeline.models.generation.schedule import Work

MEDIAN, SIGMA, MOST = 250, 0.8, 2048
"""Tokens; 343 on average."""
GIB = 2**30

Prompts = list[list[int]]


def measure(model: Any, prompts: Prompts, samples: int, slots: int, new_tokens: int, tell: Callable[..., None]) -> None:
    """`samples` answers to each prompt, of log-normal lengths, in at most `slots` rows at once; and before it as many
    rows, all of `new_tokens`: the full batch."""
    every, lengths = work_of(prompts, samples)
    a_row = row_bytes(model.config, max(map(len, prompts)) + MOST, torch.bfloat16)
    rows = min(slots, len(every), rows_that_fit(a_row, free_bytes(torch.device("cuda", torch.cuda.current_device()))))
    for _ in range(2):  # kernels are compiled in the first
        full = _timed(model, every[:rows], [new_tokens] * rows, rows)
    tell("full batch", **full)
    found = _timed(model, every, lengths, rows)
    rates = [found[name] / full["tokens_per_s"] if found[name] else None for name in ("tokens_per_s", "steady")]
    tell("lognormal", **found, of_the_full_batch=rates[0], steady_of_the_full_batch=rates[1])


def work_of(prompts: Prompts, samples: int) -> tuple[Prompts, list[int]]:
    """Each prompt `samples` times, and the tokens of each answer."""
    rng = random.Random(0)
    every = [prompt for prompt in prompts for _ in range(samples)]
    return every, [max(1, min(MOST, round(MEDIAN * rng.lognormvariate(0, SIGMA)))) for _ in every]


def _timed(model: Any, prompts: Prompts, budgets: Sequence[int], rows: int) -> dict[str, Any]:
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    work, seen = Work(), _Seen(model)
    torch.cuda.synchronize()
    seen.start = time.time()
    decode(
        model,
        prompts,
        max_new_tokens=MOST,  # the cache is as large in both
        end_tokens=[],
        rows=rows,
        capture=True,
        sampler=Sampler(1.0),
        seeds=range(len(prompts)),
        budgets=budgets,
        on_answer=seen.hear,
        work=work,
    )
    torch.cuda.synchronize()
    seconds, tokens = time.time() - seen.start, sum(budgets)
    return {
        "rows": rows,
        "answers": len(prompts),
        "tokens": tokens,
        "seconds": round(seconds, 2),
        "tokens_per_s": round(tokens / seconds, 1),
        "steady": seen.steady(len(prompts) - rows),
        "occupancy": round(tokens / work.row_steps, 4),
        "steps": work.steps,
        "refills": work.refills,
        "prefill_share": round(seen.prefill_seconds() / seconds, 4),
        "reserved_gib": round(torch.cuda.max_memory_reserved() / GIB, 2),
        "device": torch.cuda.get_device_name(),
    }


class _Seen:
    """When answers came, and how long those passes of the model took that are not steps."""

    def __init__(self, model: Any):
        self.start, self.answers, self.events = 0.0, list[tuple[float, int]](), list[Any]()
        self.hooks = [
            model.register_forward_pre_hook(self.mark, with_kwargs=True),
            model.register_forward_hook(self.mark, with_kwargs=True),
        ]

    def mark(self, module: Any, args: Any, given: dict[str, Any], output: Any = None) -> None:
        if "logits_to_keep" in given:
            self.events.append(torch.cuda.Event(enable_timing=True))
            self.events[-1].record()

    def hear(self, index: int, tokens: list[int], logprobs: list[float]) -> None:
        self.answers.append((time.time() - self.start, len(tokens)))

    def prefill_seconds(self) -> float:
        for hook in self.hooks:
            hook.remove()
        pairs = zip(self.events[::2], self.events[1::2], strict=True)
        return sum(begin.elapsed_time(end) for begin, end in pairs) / 1000

    def steady(self, number: int) -> float | None:
        """Tokens a second from the first fifth of the answers to the `number`-th, up to which all slots are taken; None
        where these are too few."""
        first = number // 5
        if number - first < 100:
            return None
        begin, end = self.answers[first][0], self.answers[number - 1][0]
        return round(sum(tokens for _, tokens in self.answers[first + 1 : number]) / (end - begin), 1)
