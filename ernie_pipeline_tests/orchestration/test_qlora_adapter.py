"""What the check of an adapter says, and what it tells to do."""

import math

import pytest

from ernie_pipeline.orchestration.assets.qlora_adapter import changed_the_model


@pytest.mark.parametrize(
    ("change", "passed", "said"),
    [
        (0.25, True, "up to 0.25"),
        (0.0, False, "up to 0; train longer or raise training.learning_rate"),
        (math.nan, False, "up to nan; lower training.learning_rate"),
        (math.inf, False, "up to inf; lower training.learning_rate"),
    ],
)
def test_an_adapter_that_changed_nothing_or_makes_no_numbers_stops_what_is_below(
    change: float, passed: bool, said: str
) -> None:
    check = changed_the_model(change)
    assert check.passed is passed
    assert check.description.endswith(said)
