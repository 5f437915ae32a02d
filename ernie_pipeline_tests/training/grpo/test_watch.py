"""When a run is stopped."""

import json
import math

import pytest

from ernie_pipeline.recipe.sections import Grpo
from ernie_pipeline.training.grpo.watch import Watch

GRPO = Grpo(patience=4, max_mismatch_kl=0.1, max_fall=0.5)


def heard(watch: Watch, rights: list[int], kls: list[float | None], updated: bool = True, **sums: float) -> list[str]:
    """What it says of steps of 32 answers."""
    told = []
    for right, kl in zip(rights, kls, strict=True):
        usual = {"answers": 32, "ended": 32, "formatted": 32, "timed_out": 0, "right": right, "surprise": 9.0}
        told.append(watch.sampled(32, right, usual | sums) or watch.updated(updated, kl))
    return told


def test_a_mismatch_that_stays_stops_it_and_one_that_passes_does_not() -> None:
    watch = Watch(GRPO)
    assert heard(watch, [8] * 6, [0.2, 0.2, 0.2, 0.05, 0.2, 0.2]) == [""] * 6
    assert watch.suspicious
    *before, last = heard(watch, [8] * 2, [0.3, 0.4])
    assert before == [""]
    assert last == (
        "the sampler and the trainer disagree on the answers' probability (mismatch KL 0.4, over "
        "grpo.max_mismatch_kl = 0.1 for 4 steps): lower training.learning_rate"
    )


def test_a_base_that_solves_nothing_stops_it() -> None:
    watch = Watch(GRPO)
    assert heard(watch, [0] * 3, [None] * 3, updated=False) == [""] * 3
    assert heard(watch, [0], [0.0], updated=True) == [""]  # to learn the format is something
    *before, last = heard(watch, [0] * 4, [None] * 4, updated=False)
    assert before == [""] * 3
    assert last.startswith("0 of 256 sampled answers were right, none of the last 4 steps', and there is nothing to")
    assert heard(Watch(GRPO), [32] * 9, [None] * 9, updated=False) == [""] * 9  # all right is no reason


@pytest.mark.parametrize(
    ("sums", "told"),
    [
        ({"ended": 8, "formatted": 8}, "75% were cut off at grpo.max_new_tokens = 1024; raise it"),
        ({"formatted": 0}, "100% had no boxed answer; ask for one in the prompts, use an instruction-tuned base model"),
        ({"timed_out": 32}, "100% were not graded within grpo.grading_timeout_s = 5 s; raise it, or give the machine"),
        ({}, "raise grpo.group = 8, give it easier problems or a stronger base model, or train on solutions first"),
    ],
)
def test_it_says_what_would_help(sums: dict[str, float], told: str) -> None:
    last = heard(Watch(GRPO), [0] * 4, [None] * 4, updated=False, **sums)[-1]
    assert last.startswith("0 of 128 sampled answers were right, none of the last 4 steps', and there is nothing to")
    assert last.partition("learn from: ")[2].startswith(told)


def test_what_is_no_number_stops_it_at_once() -> None:
    for broken in (
        heard(Watch(GRPO), [8], [0.0], surprise=math.nan),
        heard(Watch(GRPO), [8], [math.nan]),
        heard(Watch(GRPO), [8], [math.inf]),
    ):
        assert broken == ["the answers' probabilities are no numbers any more: lower training.learning_rate"]


def test_a_fall_stops_it_if_chance_does_not_explain_it() -> None:
    watch = Watch(GRPO)
    assert heard(watch, [16] * 4 + [12, 10, 12, 9], [0.0] * 8) == [""] * 8
    *before, last = heard(watch, [4, 2, 1, 0], [0.0] * 4)
    assert last.startswith("the share of right answers fell from 50.0% to ")
    assert last.endswith(
        "(means of 4 steps): the policy diverges; lower training.learning_rate, or raise grpo.kl_to_base"
    )
    assert any(told == "" for told in before)
    assert heard(Watch(GRPO), [3, 2, 2, 2, 0, 1, 0, 0], [0.0] * 8) == [""] * 8  # few: it may be chance


def test_it_goes_on_from_its_state() -> None:
    first, second = Watch(GRPO), Watch(GRPO)
    heard(first, [0, 3, 1], [0.2, 0.3, 0.4])
    second.restore(json.loads(json.dumps(first.state())))
    assert second == first
    assert heard(second, [2], [0.5]) == heard(first, [2], [0.5])
    assert heard(first, [2], [0.5])[0]
