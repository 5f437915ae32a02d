"""The cases of cases.jsonl: equal answers in other forms are right, near misses are wrong. The contract, by example."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.grading.judge import judge

CASES: list[dict[str, Any]] = [
    json.loads(line) for line in (Path(__file__).parent / "cases.jsonl").read_text(encoding="utf-8").splitlines()
]
KINDS = sorted({case["kind"] for case in CASES})


def boxed(text: str) -> str:
    return rf"\boxed{{{text}}}"


@pytest.mark.parametrize("kind", KINDS)
def test_cases(kind: str) -> None:
    failed = []
    for case in CASES:
        if case["kind"] == kind:
            found = judge(case["answer"], case["reference"])
            if found.correct != (case["want"] == "right"):
                failed.append(f"{case['reference']} | {case['answer']} | wanted {case['want']}: {found.reason}")
    assert not failed, "\n".join(failed)


def test_every_judgement_has_a_reason() -> None:
    assert all(judge(case["answer"], case["reference"]).reason for case in CASES)


def test_a_reference_answers_itself() -> None:
    wrong = [c["reference"] for c in CASES if not judge(boxed(c["reference"]), c["reference"]).correct]
    assert wrong == []


def test_judging_is_quick() -> None:
    """1,000 answers a second on two cores are asked; one core is given 500, on a machine that may be busy."""
    started = time.process_time()
    for case in CASES:
        judge(case["answer"], case["reference"])
    assert len(CASES) / (time.process_time() - started) > 500


@pytest.mark.parametrize(
    ("answer", "reference", "reason"),
    [
        (r"\boxed{3} or \boxed{4}", "3", "several boxes disagree"),
        (r"\boxed{1,2}", "1,2,3", "3 parts are asked, 2 are given"),
        (r"\boxed{1,2,3}", "1,2", "2 parts are asked, 3 are given"),
        (r"\boxed{[1,2)}", "[1,2]", "the brackets differ"),
        (r"\boxed{x>1}", r"x\ge1", "the left bracket differs"),
        (r"\boxed{3,4}", "3", "2 values are given where one is asked"),
        (r"\boxed{}", "3", "the box is empty"),
        ("I do not know what to say.", "3", "no answer was found"),
        (r"\boxed{5\text{ kg}}", r"5\text{ m}", "the unit differs"),
        (r"\boxed{(1,3)}", "(1,2)", "part 2: the value differs"),
    ],
)
def test_reasons(answer: str, reference: str, reason: str) -> None:
    assert judge(answer, reference).reason == reason
