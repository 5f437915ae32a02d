from collections.abc import Callable
from typing import Any

import pytest

from ernie_pipeline.demo import BASE
from ernie_pipeline.demo.problems import demo_rows
from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer, prompt_text, token_ids
from ernie_pipeline.models.generation.generate import generate

SHORT = ["1 + 1 =", "gcd(12, 18) =", "Solve for x: 3*x + 4 = 19", "The least common multiple of 4, 6.\n", "7"]


@pytest.fixture(scope="module")
def ask(base: Any) -> Callable[..., list[str]]:
    tokenizer = load_tokenizer(str(BASE))

    def answers(prompts: list[str], **changes: Any) -> list[str]:
        return generate(base, tokenizer, prompts, **{"max_new_tokens": 12, "batch_size": 16} | changes)

    return answers


@pytest.fixture(scope="module")
def prompts() -> list[str]:
    """Of many lengths, none beside its like."""
    tokenizer = load_tokenizer(str(BASE))
    rows = [row["responses_create_params"]["input"] for row in demo_rows(8, seed=5)]
    long = [prompt_text(tokenizer, messages) for messages in rows]
    return [prompt for pair in zip(long, [f"<s>{text}" for text in SHORT * 2], strict=False) for prompt in pair]


def test_a_batch_of_different_lengths_is_answered_as_one_by_one_and_in_order(
    ask: Callable[..., list[str]], prompts: list[str]
) -> None:
    alone = [ask([prompt])[0] for prompt in prompts]
    assert len(set(alone)) > 5, "equal answers would not show their order"
    assert ask(prompts) == alone
    assert ask(prompts, batch_size=5) == alone


def test_no_more_than_max_new_tokens_and_the_same_ones(ask: Callable[..., list[str]], prompts: list[str]) -> None:
    tokenizer = load_tokenizer(str(BASE))
    some, more = ask(prompts, max_new_tokens=3), ask(prompts, max_new_tokens=12)
    assert max(len(ids) for ids in token_ids(tokenizer, some)) == 3
    assert all(long.startswith(short) for short, long in zip(some, more, strict=True))


def test_an_answer_ends_at_the_end_token_and_does_not_show_it(ask: Callable[..., list[str]]) -> None:
    (answer,) = ask(["<s>12 + 35 ="], max_new_tokens=24)
    assert answer.strip() == "47"


def test_sampling_differs_from_greedy_and_progress_is_told(ask: Callable[..., list[str]], prompts: list[str]) -> None:
    heard: list[tuple[int, int]] = []
    sampled = ask(prompts, batch_size=6, temperature=5.0, progress=lambda done, total: heard.append((done, total)))
    assert sampled != ask(prompts)
    assert heard == [(6, 16), (12, 16), (16, 16)]


def test_nothing_asked_is_nothing_answered(ask: Callable[..., list[str]]) -> None:
    assert ask([]) == []
