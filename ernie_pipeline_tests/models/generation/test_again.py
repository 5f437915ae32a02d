"""Asked again and again while it learns, a model keeps what it generates with, and its answers are as if it did not."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ernie_pipeline.models.backend import Sampling
from ernie_pipeline.models.generation import again, decode
from ernie_pipeline.models.generation.decode_step import joined
from ernie_pipeline.models.generation.merged import merge, merge_again
from ernie_pipeline.models.peft.backend import PeftModel4bit
from ernie_pipeline.models.spec import ModelSpec
from ernie_pipeline_tests.models.conftest import logits_of, new_adapted

IDS = torch.arange(5, 45)
PROMPTS = [[5 + n % 7, 30, 40 + n % 3] + [50 + n] * (n % 5) for n in range(40)]
DRAWN = Sampling(8, 1.3, 0.95)


@pytest.fixture(scope="module")
def model(short_spec: ModelSpec) -> PeftModel4bit:
    return PeftModel4bit(short_spec, "cpu", new_adapted(checkpoint=Path(short_spec.base.checkpoint)))


@pytest.fixture
def learning(model: PeftModel4bit) -> Iterator[PeftModel4bit]:
    """At the end as it was."""
    before = {name: each.detach().clone() for name, each in every_lora(model)}
    yield model
    with torch.no_grad():
        for name, each in every_lora(model):
            each.copy_(before[name])


def every_lora(model: PeftModel4bit) -> list[tuple[str, torch.Tensor]]:
    return [(name, each) for name, each in model.module.named_parameters() if "lora_" in name]


def learn(model: PeftModel4bit, factor: float) -> None:
    with torch.no_grad():
        for _, each in every_lora(model):
            each.mul_(factor)


def ask(model: PeftModel4bit, number: int, sampling: Sampling = DRAWN) -> Any:
    return model.generate(PROMPTS[:number], sampling, rows=256, seeds=range(number))


def test_its_answers_follow_what_it_has_learned(learning: PeftModel4bit) -> None:
    """Of more prompts than are answered at a time, of fewer, greedy ones in between, and longer ones at the end."""
    asked = [(36, DRAWN, 1.0), (40, DRAWN, 3.0), (6, DRAWN, 1.0), (33, Sampling(8), 1.0), (34, Sampling(30, 1.0), 0.5)]
    plain, kept = [], []
    for number, sampling, factor in asked:
        learn(learning, factor)
        plain.append(ask(learning, number, sampling))
    learn(learning, 1 / 1.5)
    with learning.generating_again(16):
        for number, sampling, factor in asked:
            learn(learning, factor)
            kept.append(ask(learning, number, sampling))
    assert [each.tokens for each in kept] == [each.tokens for each in plain]
    for one, other in zip(kept, plain, strict=True):
        for mine, theirs in zip(one.logprobs, other.logprobs, strict=True):
            assert mine == pytest.approx(theirs, abs=1e-3)
    assert kept[0].tokens != kept[1].tokens[:36]
    assert {each.how for each in kept} == {"merged float32"}


def test_it_merges_once_and_makes_room_once(learning: PeftModel4bit, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    usual = decode.Slots.__init__

    def count(slots: Any, model: Any, rows: int, *args: Any) -> None:
        made.append(rows)
        usual(slots, model, rows, *args)

    monkeypatch.setattr(decode.Slots, "__init__", count)
    with learning.generating_again(16):
        ask(learning, 40)
        assert learning.again is not None
        assert learning.again.generator is not None
        first = learning.again.generator.model
        for number in (40, 8, 20):
            ask(learning, number)
        assert learning.again.generator.model is first
    assert made == [16]
    assert learning.again is None


def test_it_keeps_nothing_where_it_is_large_and_after_memory_ran_out(
    learning: PeftModel4bit, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = ask(learning, 36).tokens
    with learning.generating_again(16):
        assert ask(learning, 36).tokens == wanted
        assert learning.release_generator()
        assert not learning.release_generator()
        assert ask(learning, 36).tokens == wanted
        assert learning.again is not None
        assert learning.again.generator is None
    monkeypatch.setattr(again, "SHARE", 0.0)
    with learning.generating_again(16):
        assert ask(learning, 36).tokens == wanted
        assert not learning.release_generator()


def test_weights_are_written_where_they_are_also_where_projections_share_one(learning: PeftModel4bit) -> None:
    """As the fused step has them: views of one weight, made in inference mode."""
    merged = merge(learning.module)
    attention = merged.model.layers[0].self_attn
    with torch.inference_mode():
        whole = joined(attention.q_proj, attention.k_proj, attention.v_proj)
    before = whole.clone()
    learn(learning, 3.0)
    merge_again(merged, learning.module)
    assert attention.q_proj.weight.data_ptr() == whole.data_ptr()
    assert not torch.equal(whole, before)
    torch.testing.assert_close(logits_of(merged, IDS), logits_of(merge(learning.module), IDS), atol=0, rtol=0)


def test_the_experts_it_chose_are_told_of_each_answer_as_if_it_kept_nothing(learning: PeftModel4bit) -> None:
    """With calls that do not ask for them in between."""
    asked = [(36, True), (33, False), (40, True)]
    plain = [ask(learning, number, replace(DRAWN, with_routing=routed)).routing for number, routed in asked]
    with learning.generating_again(16):
        kept = [ask(learning, number, replace(DRAWN, with_routing=routed)).routing for number, routed in asked]
    assert plain[1] is None
    assert kept[1] is None
    for one, other in zip([*kept[0], *kept[2]], [*plain[0], *plain[2]], strict=True):
        assert torch.equal(one.sort(dim=-1).values, other.sort(dim=-1).values)
    assert (kept[0][0][-2] >= 0).all()
