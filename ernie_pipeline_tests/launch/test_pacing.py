from typing import Any

from ernie_pipeline.launch.pacing import paced


def test_of_many_counts_few_are_told_and_the_last_one_always() -> None:
    now, told = [0.0], list[str]()
    report = paced(lambda line, _: told.append(line), pause_s=10, clock=lambda: now[0])
    for done in range(1, 31):
        now[0] += 1
        report(f"answered {done} of 30", {})
    assert told == ["answered 10 of 30", "answered 20 of 30", "answered 30 of 30"]


def test_what_counts_nothing_or_has_values_goes_through() -> None:
    told: list[tuple[str, dict[str, Any]]] = []
    report = paced(lambda line, values: told.append((line, values)), clock=lambda: 0.0)
    lines: list[tuple[str, dict[str, Any]]] = [("loading demo", {}), ("step 1 of 9", {"loss": 0.5}), ("1 of 2", {})]
    for line, values in lines:
        report(line, values)
    assert told == lines[:2]
