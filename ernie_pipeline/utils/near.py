"""What somebody may have meant who misspelled a name: of a command, of a recipe's key."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The question "did you mean 'rank'?", "" where no known name is near."""
    near = get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else ""
