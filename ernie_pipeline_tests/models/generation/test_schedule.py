"""Slots that prompts take one after another: nobody waits for another's answer, and nothing is computed twice."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from ernie_pipeline.models.generation.decode import decode
from ernie_pipeline.models.generation.sampler import GREEDY, Answers, Sampler
from ernie_pipeline.models.generation.schedule import ON_A_CPU, DecodeSettings, Work
from ernie_pipeline_tests.models.generation.conftest import VOCABULARY

ENDS = [*range(25)]
DRAWN = Sampler(1.0, 0.95)


def random_prompts(number: int, samples: int = 1, *, same: int = 0, seed: int = 0) -> list[list[int]]:
    """Each `samples` times, of 1 to 30 tokens after `same` that all have."""
    rng = random.Random(seed)
    first = [rng.randrange(25, VOCABULARY) for _ in range(same)]
    each = [first + [rng.randrange(25, VOCABULARY) for _ in range(rng.randrange(1, 31))] for _ in range(number)]
    return [prompt for prompt in each for _ in range(samples)]


def log_normal(number: int, median: float, most: int, seed: int = 0) -> list[int]:
    rng = random.Random(seed)
    return [max(1, min(most, round(rng.lognormvariate(0, 0.8) * median))) for _ in range(number)]


def answered(model: Any, prompts: list[list[int]], **changes: Any) -> Answers:
    usual: dict[str, Any] = {
        "max_new_tokens": 12,
        "end_tokens": ENDS,
        "rows": 8,
        "capture": False,
        "seeds": [31 * n for n in range(len(prompts))],
    }
    return decode(model, prompts, **usual | changes)


@contextmanager
def prefills_of(model: Any) -> Iterator[list[list[list[int]]]]:
    """The tokens [rows][tokens] of each pass that is not a step."""
    passes: list[list[list[int]]] = []

    def hear(module: Any, args: Any, given: dict[str, Any]) -> None:
        if "logits_to_keep" in given:
            passes.append(given["input_ids"].tolist())

    hook = model.register_forward_pre_hook(hear, with_kwargs=True)
    yield passes
    hook.remove()


def assert_same(found: Answers, wanted: Answers) -> None:
    assert found.tokens == wanted.tokens
    for mine, other in zip(found.logprobs, wanted.logprobs, strict=True):
        assert mine == pytest.approx(other, abs=1e-4)


# The answers


@pytest.mark.parametrize("sampler", [GREEDY, DRAWN])
@pytest.mark.parametrize("same", [0, 20])
def test_an_answer_does_not_depend_on_slots_order_or_refills(tiny: Any, sampler: Sampler, same: int) -> None:
    prompts = random_prompts(12, samples=2, same=same)
    seeds = [31 * n for n in range(len(prompts))]
    alone = [answered(tiny, [prompt], sampler=sampler, seeds=[s]) for prompt, s in zip(prompts, seeds, strict=True)]
    wanted = Answers([each.tokens[0] for each in alone], [each.logprobs[0] for each in alone])
    assert len({len(tokens) for tokens in wanted.tokens}) > 4
    for changes in (
        {"rows": 100},
        {"rows": 7},
        {"rows": 7, "settings": DecodeSettings(check_every=3, least_rows=1, length_step=8, prefill_tokens=50)},
        {"rows": 9, "settings": DecodeSettings(check_every=2, prefill_tokens=1)},
        {"rows": 1, "settings": DecodeSettings(check_every=5)},
    ):
        assert_same(answered(tiny, prompts, sampler=sampler, **changes), wanted)
    shuffled = random.Random(3).sample(range(len(prompts)), len(prompts))
    found = answered(tiny, [prompts[i] for i in shuffled], sampler=sampler, seeds=[seeds[i] for i in shuffled], rows=5)
    assert_same(found, Answers([wanted.tokens[i] for i in shuffled], [wanted.logprobs[i] for i in shuffled]))


def test_each_log_probability_is_its_token_s(tiny: Any) -> None:
    prompts = random_prompts(30)
    found = answered(tiny, prompts, sampler=Sampler(2.0), rows=4)
    for prompt, tokens, logprobs in zip(prompts, found.tokens, found.logprobs, strict=True):
        with torch.no_grad():
            logits = tiny(input_ids=torch.tensor([prompt + tokens]), use_cache=False).logits[0]
        own = (logits / 2.0).log_softmax(-1)[len(prompt) - 1 : -1]
        assert logprobs == pytest.approx(own.gather(1, torch.tensor(tokens)[:, None])[:, 0].tolist(), abs=1e-3)


def test_budgets_end_answers_where_no_token_does(tiny: Any) -> None:
    prompts, budgets = random_prompts(40), log_normal(40, 6, 40)
    found = answered(tiny, prompts, end_tokens=[], budgets=budgets, rows=6)
    assert [*map(len, found.tokens)] == [*map(len, found.logprobs)] == budgets
    longer = answered(tiny, prompts, end_tokens=[], max_new_tokens=40, rows=40)
    assert found.tokens == [tokens[:budget] for tokens, budget in zip(longer.tokens, budgets, strict=True)]


# What is spent


@pytest.mark.parametrize(("settings", "bar"), [(ON_A_CPU, 0.97), (DecodeSettings(), 0.9)])
def test_on_unlike_lengths_hardly_a_row_is_idle(tiny: Any, settings: DecodeSettings, bar: float) -> None:
    budgets, work = log_normal(300, 50, 400), Work()
    answered(tiny, random_prompts(300), end_tokens=[], budgets=budgets, rows=16, settings=settings, work=work)
    assert work.row_steps <= work.steps * 16
    assert sum(budgets) / work.row_steps >= bar
    # where a batch waits for its longest
    batches = [budgets[start : start + 16] for start in range(0, len(budgets), 16)]
    assert sum(budgets) / sum(len(batch) * max(batch) for batch in batches) < 0.5


def test_the_samples_of_a_prompt_are_prefilled_once_and_so_is_what_all_begin_with(tiny: Any) -> None:
    alone = random_prompts(30, same=20)
    prompts = random_prompts(30, samples=4, same=20)
    random.Random(1).shuffle(prompts)
    with prefills_of(tiny) as passes:
        answered(tiny, prompts, rows=10, settings=DecodeSettings(prefill_tokens=1))
    rows = [row for each in passes for row in each]
    assert sum(map(len, rows)) == 20 + sum(len(prompt) - 1 - 20 for prompt in alone)
    with prefills_of(tiny) as passes:
        answered(tiny, prompts, rows=10)
    assert len(passes) == 2, "all of them fit into one pass"


def test_no_pass_has_more_tokens_than_it_may_have(tiny: Any) -> None:
    prompts = random_prompts(50)
    with prefills_of(tiny) as passes:
        answered(tiny, prompts, rows=4, settings=DecodeSettings(prefill_tokens=90))
    assert all(len(rows) * len(rows[0]) <= 90 for rows in passes)
    assert all((len(rows) + 1) * len(rows[0]) > 90 for rows in passes[:-1]), "and each has as many as it may"


def test_an_answer_is_heard_while_others_are_made(tiny: Any) -> None:
    heard: list[int] = []
    steps_when_heard: list[int] = []
    work = Work()

    def hear(index: int, tokens: list[int], logprobs: list[float]) -> None:
        heard.append(index)
        steps_when_heard.append(work.steps)

    budgets = [3, 90, 5, 7, 4]
    found = answered(
        tiny,
        [[5, 6, 7]] * 5,
        end_tokens=[],
        budgets=budgets,
        rows=2,
        on_answer=hear,
        settings=DecodeSettings(check_every=2),
        work=work,
    )
    assert heard == [0, 2, 3, 4, 1]
    assert [*map(len, found.tokens)] == budgets
    assert steps_when_heard[-2] < 30 < work.steps
