"""Tables of words, as one writes them."""


def word_list(*lines: str) -> list[str]:
    """The words of the lines."""
    return " ".join(lines).split()


def word_set(*lines: str) -> frozenset[str]:
    """The words of the lines, as a set."""
    return frozenset(word_list(*lines))
