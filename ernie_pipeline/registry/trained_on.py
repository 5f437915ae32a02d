"""What an adapter was trained on, in a word, and what follows for how its loss on the held-out rows is read."""

from collections.abc import Iterable, Mapping
from typing import Any

TAUGHT = {
    "answers": "answers without worked solutions",
    "solutions": "the base model's own solutions of these problems that were graded right",
    "rewards": "its own attempts at these problems, rewarded where they were right",
}
"""By the words of `trained_on`."""

OWN_WORDS = ("solutions", "rewards")
"""Training on what a model has written itself, and not on the rows' completions."""


def trained_on(built_with: Iterable[Mapping[str, Any]]) -> str:
    """A key of `TAUGHT`, by the recipe keys that artifacts were built with: the adapter's alone have that section."""
    sections = (keys.get("training", {}) for keys in built_with)
    training = next((section for section in sections if "on" in section), {"on": "answers"})
    return "rewards" if training.get("method") == "grpo" else str(training["on"])


def loss_note(name: str, on: str, metrics: Mapping[str, Any], other: Mapping[str, Any], other_on: str = "") -> str:
    """Why the model `name`, which was trained `on` a key of `TAUGHT`, has both the higher loss on the completions and
    the higher accuracy; "" where it has not, or where that does not follow from what the two were trained on."""
    if on not in OWN_WORDS or other_on in OWN_WORDS:
        return ""
    if not all(
        key in metrics and key in other and metrics[key] > other[key] for key in ("loss_completion", "accuracy")
    ):
        return ""
    return (
        f"The loss of {name} is higher although more of its answers are right: it is measured on the reference answers "
        "as they stand, bare in a box, and the model has learnt from solutions in its own words, which say more."
    )
