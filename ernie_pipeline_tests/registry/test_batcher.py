"""The queue, with two layers of a model: what many callers ask is answered in batches, in turns, while they wait."""

import dataclasses
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from typing import Any

import pytest
import torch

from ernie_pipeline.models.backend import Generation, LoadedModel, Sampling
from ernie_pipeline.models.checkpoint.tokenizer import prompt_text, token_ids
from ernie_pipeline.models.spec import ModelSpec
from ernie_pipeline.registry.serving import scoring_server
from ernie_pipeline.registry.serving.batcher import BATCH_TOKENS_CPU, PIECE, Batcher
from ernie_pipeline.registry.serving.conversation import Settings
from ernie_pipeline.registry.serving.refusal import Refusal

HOT = Settings(600, temperature=1e4, seed=7)
"""Any token may follow any other, so that an answer rarely ends, and those of this seed do not end soon."""


class Watched:
    """A model that notes the rows and tokens of every call, waits for leave to make it, and has no room for more than
    `most_rows`."""

    def __init__(self, model: LoadedModel):
        self.model, self.end_tokens, self.device = model, model.end_tokens, model.device
        self.calls: list[tuple[int, int]] = []
        self.leave = threading.Event()
        self.leave.set()
        self.most_rows = 16

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, *, rows: int, seeds: Sequence[int]
    ) -> Generation:
        self.leave.wait(60)
        self.calls.append((len(prompts), sampling.max_new_tokens))
        if len(prompts) > self.most_rows:
            raise torch.OutOfMemoryError("as on a GPU")
        return self.model.generate(prompts, sampling, rows=rows, seeds=seeds)


@pytest.fixture(scope="module")
def model(short_spec: ModelSpec) -> Any:
    from ernie_pipeline.models.peft.backend import PeftBackend

    return PeftBackend().load(short_spec, "cpu")


@pytest.fixture
def watched(model: LoadedModel) -> Watched:
    return Watched(model)


@pytest.fixture
def batcher(watched: Any) -> Iterator[Batcher]:
    yield Batcher(watched, max_batch=4, max_waiting=16)
    watched.leave.set()
    for thread in threading.enumerate():  # the model is shared, so one batcher works at a time
        if thread.name == "answers":
            thread.join(60)


def prompts(model: Any, *questions: str) -> list[list[int]]:
    messages = [[{"role": "user", "content": question}] for question in questions]
    return token_ids(model.tokenizer, [prompt_text(model.tokenizer, one) for one in messages])


def endless(model: Any) -> list[list[int]]:
    return prompts(model, "Compute 1 + 1.")


def test_what_waits_is_answered_together_and_as_alone(model: Any, watched: Watched, batcher: Batcher) -> None:
    asked = prompts(model, *(f"Compute {i} + 30." for i in range(6)))
    watched.leave.clear()
    waiting = [answer for prompt in asked for answer in batcher.submit([prompt], Settings(24))]
    watched.leave.set()
    answers = [one.result(60) for one in waiting]
    assert answers == [model.generate([prompt], Sampling(24), rows=1).tokens[0] for prompt in asked]
    rows = [rows for rows, _ in watched.calls]
    assert (sum(rows), max(rows) <= 4, len(rows) <= 3) == (6, True, True), "the first call begins with who is there"


def test_an_answer_in_pieces_is_the_answer(
    model: Any, watched: Watched, batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = prompts(model, "Solve for x: 3*x + 5 = 20")
    with torch.no_grad():  # the base model goes on after its answer where no end token stops it
        whole = model.module.generate(torch.tensor(asked), max_new_tokens=70, do_sample=False, eos_token_id=None)
    monkeypatch.setattr(type(model), "end_tokens", [])
    batcher.ends = frozenset()
    [answer] = batcher.submit(asked, Settings(70))
    assert answer.result(60) == whole[0, len(asked[0]) :].tolist()
    assert watched.calls == [(1, PIECE), (1, 70 - PIECE)]


def test_a_long_answer_takes_turns_with_short_ones(model: Any, watched: Watched, batcher: Batcher) -> None:
    [long] = batcher.submit(endless(model), HOT)
    short = batcher.submit(prompts(model, "Compute 12 + 30."), Settings(8))
    assert short[0].result(60)
    assert not long.done()
    long.cancel()


def test_a_short_one_waits_for_no_round_of_long_ones(model: Any, watched: Watched, batcher: Batcher) -> None:
    """However many have waited longer: at most for the batch that is under way and one more."""
    watched.leave.clear()
    crowd = batcher.submit([prompt * 12 for prompt in endless(model)] * 12, HOT)
    short = batcher.submit(prompts(model, "Compute 12 + 30."), Settings(8))
    watched.leave.set()
    assert short[0].result(60)
    assert len(watched.calls) <= 3, "three batches of four are before it in the queue, and again when they come back"
    for one in crowd:
        one.cancel()


def test_long_ones_go_on_while_short_ones_keep_coming(model: Any, watched: Watched, batcher: Batcher) -> None:
    [long] = batcher.submit([prompt * 12 for prompt in endless(model)], Settings(130, temperature=1e4, seed=7))
    for _ in range(12):
        if long.done():
            break
        for one in batcher.submit(prompts(model, *(f"Compute {i} + 30." for i in range(6))), Settings(4)):
            one.result(60)
    assert long.done(), "every other batch is of those that waited longest"


def test_a_batch_is_bounded_in_what_its_prompts_cost(model: Any, watched: Watched, batcher: Batcher) -> None:
    long = [prompt * 150 for prompt in endless(model)]
    assert 1_000 < len(long[0]) < BATCH_TOKENS_CPU
    watched.leave.clear()
    waiting = batcher.submit([*long * 4], Settings(1))
    watched.leave.set()
    assert all(one.result(120) for one in waiting)
    assert max(rows for rows, _ in watched.calls) == BATCH_TOKENS_CPU // len(long[0]) < 4


def test_a_cancelled_one_costs_no_more_than_its_piece(model: Any, watched: Watched, batcher: Batcher) -> None:
    watched.leave.clear()
    waiting = batcher.submit(endless(model) * 8, HOT)
    for one in waiting:
        one.cancel()
    watched.leave.set()
    [after] = batcher.submit(prompts(model, "Compute 12 + 30."), Settings(8))
    after.result(60)
    assert sum(tokens for _, tokens in watched.calls) <= PIECE + 8


def test_no_more_may_wait_than_there_is_room_for(model: Any, watched: Watched, batcher: Batcher) -> None:
    watched.leave.clear()
    with pytest.raises(Refusal, match="0 questions wait already, and no more than 16 may; ask again later") as refusal:
        batcher.submit(endless(model) * 17, HOT)
    assert refusal.value.get_http_status_code() == 503
    waiting = batcher.submit(endless(model) * 16, HOT)
    for one in waiting:
        one.cancel()
    batcher.check_room(12)  # who has gone takes no room


def test_a_seed_gives_the_same_answer_whoever_else_asks(model: Any, watched: Watched, batcher: Batcher) -> None:
    seeded = Settings(80, temperature=3.0, seed=5)
    asked = prompts(model, "Compute 12 + 30.")
    alone = batcher.submit(asked * 5, seeded)
    watched.leave.clear()
    others = batcher.submit(endless(model) * 3, HOT)
    among = batcher.submit(asked * 5, dataclasses.replace(seeded))
    [another] = batcher.submit(asked, dataclasses.replace(seeded, seed=6))
    watched.leave.set()
    answers = [one.result(60) for one in alone]
    assert answers == [one.result(60) for one in among]
    assert len(set(map(tuple, [*answers, another.result(60)]))) > 2, "each answer is drawn by itself"
    for one in others:
        one.cancel()


def test_a_batch_without_memory_is_tried_one_by_one(model: Any, watched: Watched, batcher: Batcher) -> None:
    watched.most_rows = 1
    answers = batcher.submit(endless(model) * 3, Settings(8))
    assert len({tuple(one.result(60)) for one in answers}) == 1
    watched.most_rows = 0
    [never] = batcher.submit(endless(model), Settings(8))
    with pytest.raises(Refusal, match="memory ran out for a conversation of 10 tokens; send a shorter one"):
        never.result(60)


def test_an_error_is_the_batch_s_own(model: Any, watched: Watched, batcher: Batcher) -> None:
    [broken] = batcher.submit([["no token"]], Settings(8))  # type: ignore[list-item]
    with pytest.raises(Exception, match="str"):
        broken.result(60)
    [next_one] = batcher.submit(endless(model), Settings(8))
    assert next_one.result(60)


def test_after_the_time_limit_the_work_stops(
    model: Any, watched: Watched, batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(scoring_server.TIMEOUT, "0.2")
    waiting = batcher.submit(endless(model) * 2, Settings(2000, temperature=1e4))
    with pytest.raises(Refusal, match=r"no answer within 0\.2 seconds") as refusal:
        scoring_server.wait_for(waiting)
    assert refusal.value.get_http_status_code() == 504
    assert all(one.cancelled() for one in waiting)
    assert wait(batcher.submit(endless(model), Settings(8)), 60).done
