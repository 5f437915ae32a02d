"""Decoding all at once against transformers' own `generate`, in fp32, where the same products give the same answers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from ernie_pipeline.demo import BASE
from ernie_pipeline.demo.problems import demo_rows
from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer, prompt_text, token_ids
from ernie_pipeline.models.generation.decode import decode
from ernie_pipeline.models.generation.generate import generate_tokens
from ernie_pipeline.models.generation.merged import merge
from ernie_pipeline.models.generation.sampler import Answers
from ernie_pipeline.models.generation.schedule import DecodeSettings
from ernie_pipeline_tests.models.conftest import new_adapted

SHORT = ["1 + 1 =", "gcd(12, 18) =", "Solve for x: 3*x + 4 = 19", "The least common multiple of 4, 6.\n", "7", ""]
NEW_TOKENS = 16
EOS = [2]

Shapes = list[tuple[int, int]]


@pytest.fixture(scope="module")
def merged(base: Any) -> Any:
    return merge(base)


@pytest.fixture(scope="module")
def prompts() -> list[str]:
    """Of many lengths, none beside its like, one of a single token; some answers end early, some not at all."""
    tokenizer = load_tokenizer(str(BASE))
    rows = [row["responses_create_params"]["input"] for row in demo_rows(12, seed=5)]
    long = [prompt_text(tokenizer, messages) for messages in rows]
    return [prompt for pair in zip(long, [f"<s>{text}" for text in SHORT * 2], strict=True) for prompt in pair]


@pytest.fixture(scope="module")
def ids(prompts: list[str]) -> list[list[int]]:
    return token_ids(load_tokenizer(str(BASE)), prompts)


@pytest.fixture(scope="module")
def plain(base: Any, ids: list[list[int]]) -> list[list[int]]:
    """transformers' own answers, which a model that is not merged gives."""
    return generated(base, ids, rows=5)


def generated(model: Any, ids: list[list[int]], **changes: Any) -> list[list[int]]:
    usual: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "pad_token_id": 0, "end_tokens": EOS}
    return generate_tokens(model, ids, **usual | changes).tokens


def answers(model: Any, ids: list[list[int]], **changes: Any) -> Answers:
    settings = DecodeSettings(**{key: changes.pop(key) for key in DecodeSettings._fields if key in changes})
    usual: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "end_tokens": EOS, "rows": 100, "capture": False}
    return decode(model, ids, settings=settings, **usual | changes)


def decoded(model: Any, ids: list[list[int]], **changes: Any) -> list[list[int]]:
    return answers(model, ids, **changes).tokens


@contextmanager
def inputs_of(model: Any) -> Iterator[Shapes]:
    """The shapes [rows, tokens] of the inputs that the model gets."""
    shapes: Shapes = []
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    yield shapes
    hook.remove()


def test_the_prompts_put_the_loop_to_the_test(ids: list[list[int]], plain: list[list[int]]) -> None:
    assert min(map(len, ids)) == 1
    assert len(set(map(len, ids))) > 10
    assert len({len(answer) for answer in plain}) > 5
    assert any(answer[-1] not in EOS for answer in plain), "one that does not end"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"check_every": 1, "least_rows": 1},
        {"check_every": 3, "length_step": 8, "least_rows": 2},
        {"check_every": 1000},
        {"rows": 7, "check_every": 2, "least_rows": 1},
        {"rows": 5, "check_every": 1, "prefill_tokens": 100},
        {"rows": 10, "check_every": 5, "length_step": 8, "prefill_tokens": 300},
        {"rows": 1, "length_step": 1},
        {"prefill_tokens": 1},
        {"prefill_tokens": 200, "length_step": 5},
    ],
    ids=str,
)
def test_the_answers_are_those_of_transformers_generate(
    merged: Any, ids: list[list[int]], plain: list[list[int]], changes: dict[str, Any]
) -> None:
    assert decoded(merged, ids, **changes) == plain


def test_an_adapter_s_answers_too(ids: list[list[int]], plain: list[list[int]]) -> None:
    adapted = new_adapted()
    wanted = generated(adapted, ids, rows=len(ids))
    assert wanted != plain
    assert decoded(merge(adapted), ids, check_every=2, least_rows=1) == wanted


def test_finished_rows_leave_and_the_batch_is_halved(merged: Any, ids: list[list[int]]) -> None:
    lengths = [2] * 10 + [4] * 6 + [8] * 4 + [12] * 2 + [NEW_TOKENS] * 2
    with inputs_of(merged) as shapes:
        found = decoded(merged, ids, end_tokens=[], budgets=lengths, check_every=1, least_rows=3)
    assert [*map(len, found)] == lengths
    rows = [number for number, tokens in shapes if tokens == 1]
    assert rows == [24] * 4 + [12] * 4 + [6] * 4 + [3] * 4


def test_it_stops_at_the_first_look_after_all_have_finished(merged: Any) -> None:
    (short,) = token_ids(load_tokenizer(str(BASE)), ["<s>12 + 35 ="])
    with inputs_of(merged) as shapes:
        (answer,) = decoded(merged, [short], max_new_tokens=500, check_every=8)
    assert answer[-1] == 2
    assert len(answer) <= 8
    assert len(shapes) == 1 + 8


def test_without_an_end_token_all_are_as_long_as_they_may_be(merged: Any, ids: list[list[int]]) -> None:
    answers = decoded(merged, ids, end_tokens=[], max_new_tokens=5)
    assert {len(answer) for answer in answers} == {5}


def test_several_end_tokens(merged: Any, ids: list[list[int]], plain: list[list[int]]) -> None:
    other = plain[0][1]
    cut = [answer[: answer.index(other) + 1] if other in answer else answer for answer in plain]
    assert decoded(merged, ids, end_tokens=[*EOS, other], check_every=1, least_rows=1) == cut != plain


def test_progress_tells_of_rows_as_they_finish(merged: Any, ids: list[list[int]]) -> None:
    heard: list[tuple[int, int]] = []
    decoded(merged, ids, rows=16, check_every=2, progress=lambda done, total: heard.append((done, total)))
    assert heard == sorted(set(heard)), "only news"
    assert {total for _, total in heard} == {len(ids)}
    assert len(heard) > 3
    assert heard[-1] == (len(ids), len(ids))


def test_nothing_asked_is_nothing_answered(merged: Any) -> None:
    assert decoded(merged, []) == []


def test_the_model_gets_its_attention_back_even_after_an_error(merged: Any, ids: list[list[int]]) -> None:
    decoded(merged, ids[:2], max_new_tokens=1)
    assert merged.config._attn_implementation == "sdpa"
    with pytest.raises(IndexError):
        decoded(merged, [[10**6, 5]])  # no such token
    assert merged.config._attn_implementation == "sdpa"


def test_a_long_answer_reads_more_of_the_cache_step_by_step(merged: Any, ids: list[list[int]]) -> None:
    torch.testing.assert_close(
        torch.tensor(decoded(merged, ids[:3], end_tokens=[], max_new_tokens=70, length_step=16)),
        torch.tensor(decoded(merged, ids[:3], end_tokens=[], max_new_tokens=70, length_step=512)),
    )
