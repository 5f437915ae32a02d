"""When a run is stopped."""

import json

from ernie_pipeline.recipe.sections import Grpo
from ernie_pipeline.training.grpo.watch import Watch

GRPO = Grpo(patience=4, max_mismatch_kl=0.1, max_fall=0.5)


def heard(watch: Watch, rights: list[int], kls: list[float | None], updated: bool = True) -> list[str]:
    """What it says of steps of 32 answers."""
    told = []
    for right, kl in zip(rights, kls, strict=True):
        told.append(watch.sampled(32, right) or watch.updated(updated, kl))
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
