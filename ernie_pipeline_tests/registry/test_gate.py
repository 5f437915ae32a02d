import re
from dataclasses import replace

import pytest

from ernie_pipeline.recipe.sections import Gate
from ernie_pipeline.registry.gate import Candidate, Champion, decide

CANDIDATE = Candidate(accuracy=0.90, split_version="sha256:split", adapter_version="sha256:new")


def comparison(gain: float = 0.05, p_value: float = 0.001) -> dict[str, float]:
    return {"gain": gain, "gain_low": gain - 0.02, "gain_high": gain + 0.02, "p_value": p_value}


def champion(accuracy: float | None = 0.88, split: str = "sha256:split", adapter: str = "sha256:old") -> Champion:
    return Champion("3", accuracy, split, adapter)


def test_a_clear_gain_without_a_champion_is_promoted_and_says_why() -> None:
    decision = decide(Gate(), comparison(), CANDIDATE)
    assert decision.promote
    assert decision.reasons == [
        "The gain over the base model is +5.0 points (95 % interval +3.0 to +7.0), at least gate.min_gain (+0.0 "
        "points).",
        "The paired comparison has p = 0.001, within gate.max_p_value 0.05.",
        "There is no champion yet.",
    ]


@pytest.mark.parametrize(
    ("gate", "measured", "reason"),
    [
        (Gate(), comparison(gain=0.0), "is no gain"),
        (Gate(), comparison(gain=-0.01), "is no gain"),
        (Gate(), comparison(gain=float("nan")), "is no gain"),
        (Gate(min_gain=0.06), comparison(), r"less than gate\.min_gain \(\+6\.0 points\)"),
        (Gate(min_gain=0.0502), comparison(), r"\+5\.00 points .* less than gate\.min_gain \(\+5\.02 points\)"),
        (Gate(), comparison(p_value=0.06), r"p = 0\.06, above gate\.max_p_value 0\.05"),
        (Gate(), comparison(p_value=float("nan")), "p = nan, above"),
    ],
)
def test_one_failed_condition_is_enough(gate: Gate, measured: dict[str, float], reason: str) -> None:
    decision = decide(gate, measured, CANDIDATE)
    assert not decision.promote
    assert any(re.search(reason, text) for text in decision.reasons)


def test_the_bounds_themselves_pass() -> None:
    assert decide(Gate(min_gain=0.05, max_p_value=0.05), comparison(0.05, 0.05), CANDIDATE).promote


@pytest.mark.parametrize(("accuracy", "promoted"), [(0.88, True), (0.90, False), (0.93, False)])
def test_the_champion_must_be_beaten_strictly(accuracy: float, promoted: bool) -> None:
    decision = decide(Gate(), comparison(), CANDIDATE, champion(accuracy))
    assert decision.promote is promoted
    assert f"the {100 * accuracy:.1f} % of the present champion, version 3." in decision.reasons[-1]


@pytest.mark.parametrize("accuracy", [None, 0.5, 0.99])
def test_a_champion_of_another_split_is_not_compared_and_counts_neither_way(accuracy: float | None) -> None:
    elsewhere = champion(accuracy, split="sha256:other")
    decision = decide(Gate(), comparison(), CANDIDATE, elsewhere)
    assert decision.promote
    assert decision.reasons[-1] == (
        "The present champion, version 3, was measured on other held-out rows: it is not compared, and counts neither "
        "way."
    )
    assert not decide(Gate(), comparison(p_value=0.5), CANDIDATE, elsewhere).promote


@pytest.mark.parametrize(
    ("mine", "champions", "split", "compared"),
    [
        ("rows", "rows", "sha256:split", True),
        ("rows", "rows", "sha256:other", True),  # only the training rows are others
        ("rows", "fewer", "sha256:split", False),  # evaluation.rows is another
        ("rows", "", "sha256:split", True),  # a version from before held-out rows were recorded
        ("rows", "", "sha256:other", False),
    ],
)
def test_what_was_answered_decides_whether_accuracies_are_compared(
    mine: str, champions: str, split: str, compared: bool
) -> None:
    decision = decide(
        Gate(), comparison(), replace(CANDIDATE, held_out=mine), replace(champion(0.99, split), held_out=champions)
    )
    assert decision.promote is not compared


def test_the_same_adapter_stays_champion_but_only_past_the_gate() -> None:
    same = champion(accuracy=CANDIDATE.accuracy, adapter=CANDIDATE.adapter_version)
    decision = decide(Gate(), comparison(), CANDIDATE, same)
    assert decision.promote
    assert "this very adapter" in decision.reasons[-1]
    assert not decide(Gate(min_gain=0.5), comparison(), CANDIDATE, same).promote


def test_a_champion_without_a_recorded_accuracy_is_not_replaced_in_silence() -> None:
    decision = decide(Gate(), comparison(), CANDIDATE, champion(accuracy=None))
    assert not decision.promote
    assert "records no accuracy" in decision.reasons[-1]
