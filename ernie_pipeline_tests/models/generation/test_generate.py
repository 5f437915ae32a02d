from collections.abc import Callable
from typing import Any

import pytest
import torch

from ernie_pipeline.demo import BASE
from ernie_pipeline.demo.problems import demo_rows
from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer, prompt_text, token_ids, up_to_end
from ernie_pipeline.models.generation.generate import generate, generate_tokens
from ernie_pipeline.models.generation.sampler import Sampler

SHORT = ["1 + 1 =", "gcd(12, 18) =", "Solve for x: 3*x + 4 = 19", "The least common multiple of 4, 6.\n", "7"]


@pytest.fixture(scope="module")
def ask(base: Any) -> Callable[..., list[str]]:
    tokenizer = load_tokenizer(str(BASE))

    def answers(prompts: list[str], **changes: Any) -> list[str]:
        return generate(base, tokenizer, prompts, **{"max_new_tokens": 12, "rows": 16} | changes)

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
    assert ask(prompts, rows=5) == alone


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
    sampled = ask(prompts, rows=6, sampler=Sampler(5.0), progress=lambda done, total: heard.append((done, total)))
    assert sampled != ask(prompts)
    assert heard == [(6, 16), (12, 16), (16, 16)]


def test_nothing_asked_is_nothing_answered(ask: Callable[..., list[str]]) -> None:
    assert ask([]) == []


def tokens_of(model: Any, prompts: list[str], **changes: Any) -> list[list[int]]:
    usual: dict[str, Any] = {"max_new_tokens": 12, "pad_token_id": 0, "end_tokens": [2], "rows": 16}
    return generate_tokens(model, token_ids(load_tokenizer(str(BASE)), prompts), **usual | changes).tokens


def test_the_tokens_are_those_of_transformers_on_the_tokenizer_s_own_batch(base: Any, prompts: list[str]) -> None:
    batch = load_tokenizer(str(BASE))(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
    output = base.generate(**batch, max_new_tokens=12, do_sample=False, pad_token_id=0)
    wanted = [up_to_end(tokens, [2]) for tokens in output[:, batch["input_ids"].shape[1] :].tolist()]
    assert tokens_of(base, prompts) == wanted
    assert tokens_of(base, prompts, pad_token_id=5) == wanted  # what is padded with is not seen


def test_what_ends_an_answer_is_said_and_not_the_model_s(base: Any, prompts: list[str]) -> None:
    usual, endless = tokens_of(base, prompts), tokens_of(base, prompts, end_tokens=[])
    assert any(answer[-1] == 2 and len(answer) < 12 for answer in usual)
    assert {len(answer) for answer in endless} == {12}
    assert [up_to_end(answer, [2]) for answer in endless] == usual
    other = usual[0][1]
    assert tokens_of(base, prompts, end_tokens=[2, other]) == [up_to_end(answer, [2, other]) for answer in endless]


class RunsOut:
    """Lets memory run out in a model's step of more than `rows` rows, from the `after`-th on."""

    def __init__(self, rows: int, after: int):
        self.rows, self.after, self.steps = rows, after, 0
        self.sizes: list[int] = []

    def __call__(self, module: Any, args: Any, given: dict[str, Any]) -> None:
        if given["input_ids"].shape[1] == 1:
            self.steps += 1
            self.sizes.append(len(given["input_ids"]))
            if self.sizes[-1] > self.rows and self.steps > self.after:
                raise torch.OutOfMemoryError("CUDA out of memory")


def test_out_of_memory_it_goes_on_with_fewer_and_with_what_was_not_answered(tiny: Any) -> None:
    prompts, seeds = [[30 + n, 40, 50 + n % 3] for n in range(40)], [*range(40)]
    usual: dict[str, Any] = {"max_new_tokens": 30, "pad_token_id": 0, "end_tokens": [*range(25)]}
    usual |= {"sampler": Sampler(1.0), "seeds": seeds, "rows": 16}
    wanted = generate_tokens(tiny, prompts, **usual)
    heard: list[int] = []
    told: list[tuple[int, int]] = []
    runs_out = RunsOut(rows=5, after=20)
    hook = tiny.register_forward_pre_hook(runs_out, with_kwargs=True)
    found = generate_tokens(
        tiny,
        prompts,
        **usual,
        progress=lambda done, total: told.append((done, total)),
        on_answer=lambda index, tokens: heard.append(index),
    )
    hook.remove()
    assert found.tokens == wanted.tokens
    for mine, other in zip(found.logprobs, wanted.logprobs, strict=True):
        assert mine == pytest.approx(other, abs=1e-4)
    assert sorted(heard) == [*range(40)], "each once, whatever ran out"
    assert max(runs_out.sizes) == 16
    assert runs_out.sizes[-1] <= 5
    assert told == sorted(told)
    assert told[-1] == (40, 40)


def test_out_of_memory_with_a_single_row_is_an_error(tiny: Any) -> None:
    hook = tiny.register_forward_pre_hook(RunsOut(rows=0, after=0), with_kwargs=True)
    with pytest.raises(torch.OutOfMemoryError):
        generate_tokens(tiny, [[30, 40]] * 4, max_new_tokens=3, pad_token_id=0, end_tokens=[], rows=4)
    hook.remove()
