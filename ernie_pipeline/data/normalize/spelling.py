r"""LaTeX that changes how a text looks and not what it says, as maps for `str.replace_many(..., leftmost=True)`.

Of two texts that begin at one place, Polars takes the one that stands first in the map. So what only begins like
something here (`\leftarrow` like `\left`) stands first, and is left as it is.
"""

_DELIMITERS = (r"\(", r"\)", r"\[", r"\]")
_SPACES = (r"\,", r"\;", r"\:", "\\ ", r"\quad", r"\qquad", "~")
_FRACTIONS = dict.fromkeys((r"\dfrac", r"\tfrac"), r"\frac")

QUESTION = {
    **{same: same for same in ("\\\\", r"\$")},
    **dict.fromkeys((*_DELIMITERS, "$", *_SPACES, r"\!", "\\\n", "“", "”", "„", "«", "»", "``"), " "),
    **dict.fromkeys(("\u2018", "\u2019"), "'"),
    **_FRACTIONS,
}
"""Of questions; what parts words there parts them still."""

ANSWER = {
    **{same: same for same in (r"\leftarrow", r"\rightarrow", "\\\\")},
    **dict.fromkeys((*_DELIMITERS, r"\left", r"\right", r"\!", r"\displaystyle"), ""),
    **dict.fromkeys(_SPACES, " "),
    **_FRACTIONS,
    **{"{,}": ",", "\u2212": "-", "∞": r"\infty", "\u222a": r"\cup", "∈": r"\in"},
}
"""Of bare answers; `$` is left, as it may stand for a currency."""

ANSWER_WITHOUT_DOLLARS = {r"\$": r"\$", **ANSWER, "$": ""}
