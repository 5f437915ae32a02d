"""Whether an adapter becomes the champion: it must beat the base model beyond chance, and the present champion."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ernie_pipeline.recipe.sections import Gate
from ernie_pipeline.utils.shares import percent, points, points_between


@dataclass(frozen=True)
class Candidate:
    """A measured adapter: its accuracy on the held-out rows, and the data versions of that split and of the adapter.

    `held_out` is a hash of the rows that it answered, with their reference answers: two accuracies are comparable where
    it is the same.
    """

    accuracy: float
    split_version: str
    adapter_version: str
    held_out: str = ""


@dataclass(frozen=True)
class Champion:
    """The present champion as the registry tells it: accuracy is None, and a text empty, where its version records
    none."""

    version: str
    accuracy: float | None
    split_version: str
    adapter_version: str
    held_out: str = ""


@dataclass(frozen=True)
class Decision:
    """Promote or not, and one sentence for each thing that was weighed."""

    promote: bool
    reasons: list[str]


def decide(
    gate: Gate, comparison: Mapping[str, float], candidate: Candidate, champion: Champion | None = None
) -> Decision:
    """Promote when the gain over the base model is positive, large enough and significant, and no champion is as good.

    `comparison` is the paired comparison with the base model on the same held-out rows: gain, gain_low, gain_high (its
    95 % interval) and p_value. A champion that is this very adapter, registered again, gives way to it; one that was
    measured on other held-out rows is not comparable, and the decision is made without it.
    """
    checks = [_gain(gate, comparison), _significance(gate, comparison), _against_champion(candidate, champion)]
    return Decision(all(passed for passed, _ in checks), [reason for _, reason in checks])


def _gain(gate: Gate, comparison: Mapping[str, float]) -> tuple[bool, str]:
    gain = comparison["gain"]
    found, least = _told_apart(points, gain, gate.min_gain)
    interval = points_between(comparison["gain_low"], comparison["gain_high"])
    measured = f"The gain over the base model is {found} (95 % interval {interval})"
    if not gain > 0:
        return False, f"{measured}, which is no gain."
    enough = gain >= gate.min_gain
    return enough, f"{measured}, {'at least' if enough else 'less than'} gate.min_gain ({least})."


def _told_apart(write: Callable[[float, int], str], one: float, other: float) -> tuple[str, str]:
    """Both as `write` has them, with as many digits as tell which is the greater."""
    digits = next((few for few in (1, 2) if write(one, few) != write(other, few)), 4 if one != other else 1)
    return write(one, digits), write(other, digits)


def _significance(gate: Gate, comparison: Mapping[str, float]) -> tuple[bool, str]:
    p_value = comparison["p_value"]
    passed = p_value <= gate.max_p_value
    sides = "within" if passed else "above"
    return passed, f"The paired comparison has p = {p_value:.4g}, {sides} gate.max_p_value {gate.max_p_value:g}."


def _against_champion(candidate: Candidate, champion: Champion | None) -> tuple[bool, str]:
    if champion is None:
        return True, "There is no champion yet."
    name = f"The present champion, version {champion.version},"
    if champion.adapter_version == candidate.adapter_version:
        return True, f"{name} is this very adapter, registered again."
    if _measured_elsewhere(candidate, champion):
        return True, f"{name} was measured on other held-out rows: it is not compared, and counts neither way."
    if champion.accuracy is None:
        return False, f"{name} records no accuracy to beat; remove its alias to let this adapter in."
    passed = candidate.accuracy > champion.accuracy
    mine, its = _told_apart(percent, candidate.accuracy, champion.accuracy)
    above = "above" if passed else "not above"
    return passed, f"The accuracy, {mine}, is {above} the {its} of the present champion, version {champion.version}."


def _measured_elsewhere(candidate: Candidate, champion: Champion) -> bool:
    """Whether the champion's figures are of other rows; of a version that records no `held_out`, its split decides."""
    if candidate.held_out and champion.held_out:
        return candidate.held_out != champion.held_out
    return bool(champion.split_version) and candidate.split_version != champion.split_version
