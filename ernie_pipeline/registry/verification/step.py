"""What verification found out, step by step: each passed, differs, or could not be checked."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Outcome = Literal["passed", "differs", "unchecked"]
GRADES = "grades "
"""Begins the names of the steps on stored answers: without them it is only known which files were registered."""
SHOWN = {"passed": "passed", "differs": "DIFFERS", "unchecked": "not checked"}


@dataclass(frozen=True)
class Step:
    """One thing that was looked at, and what was found, in a sentence.

    `asked`: whether what could not be checked was asked for; a signature is, once a key is named. `details`: more, for
    programs.
    """

    name: str
    outcome: Outcome
    said: str
    asked: bool = True
    details: Mapping[str, Any] = field(default_factory=dict)


def passed(name: str, said: str, **details: Any) -> Step:
    """A step that passed."""
    return Step(name, "passed", said, details=details)


def differs(name: str, said: str, **details: Any) -> Step:
    """A step that found something else than what is recorded."""
    return Step(name, "differs", said, details=details)


def unchecked(name: str, said: str, *, asked: bool = True, **details: Any) -> Step:
    """A step that could not be checked; `said` tells why."""
    return Step(name, "unchecked", said, asked, details)


@dataclass(frozen=True)
class Report:
    """All steps of the verification of a model version, `uri` as MLflow names it."""

    uri: str
    steps: Sequence[Step]

    @property
    def outcome(self) -> Outcome:
        """ "differs" if something does, else "unchecked" if something that was asked for could not be checked."""
        asked = [step.outcome for step in self.steps if step.asked]
        return "differs" if "differs" in asked else "unchecked" if "unchecked" in asked else "passed"

    @property
    def sentence(self) -> str:
        """The last one: what it comes to."""
        named = {kind: [step.name for step in self.steps if step.outcome == kind] for kind in SHOWN}
        not_asked = [step.name for step in self.steps if step.outcome == "unchecked" and not step.asked]
        if self.outcome == "differs":
            return f"{self.uri} is NOT what was recorded: see {', '.join(named['differs'])}."
        if self.outcome == "unchecked":
            missing = [name for name in named["unchecked"] if name not in not_asked]
            return f"{self.uri} could not be verified in full: see {', '.join(missing)}."
        beside = f"; beside that, not checked: {', '.join(not_asked)}" if not_asked else ""
        looked = "measured" if any(step.name.startswith(GRADES) for step in self.steps) else "registered"
        return f"{self.uri} is what was {looked}: {len(named['passed'])} steps passed{beside}."

    def as_json(self) -> dict[str, Any]:
        """As values, for programs."""
        return {
            "model": self.uri,
            "outcome": self.outcome,
            "sentence": self.sentence,
            "steps": [asdict(step) for step in self.steps],
        }
