"""What a chat template does to a conversation, learned once for each sequence of roles instead of rendered row by row.

Nearly every template puts its own text around the contents and does nothing else. Then a conversation's text is a fixed
list of pieces: the template's texts and the contents in between. Rendering takes 60 us a row, joining pieces under one.

Three things must hold before pieces stand for the template. Contents are given to it as `Traced` texts, which tell when
the template looks into them or changes them (`'</think>' in content`, `content | trim`). Awkward contents, and a sample
of the real ones, must come out of the pieces exactly as they come out of the template. Otherwise, or when the template
fails, there are no pieces, and each row is rendered.
"""

from collections.abc import Callable, Sequence
from typing import Any

Messages = list[dict[str, str]]
Render = Callable[[Messages], str]
Pieces = tuple[str | int, ...]
"""The template's texts, and between them the positions of the messages whose contents stand there."""

AWKWARD = (
    "",
    " both ends ",
    "\n\nlines\n",
    "{{ messages }}{% if %}{#",
    "</s><s><|end|></think><think>",
    "\t'\"\\<&>",
    "é½ﬁ\u00a0",
)

_ALLOWED = frozenset(
    (
        "__class__",
        "__str__",
        "__add__",
        "__radd__",
        "__html__",
        "__init__",
        "__new__",
        "touched",
        "__dict__",
        "__hash__",
    )
)


class Traced(str):
    """A text that remembers, in `touched`, whether anything but joining it to other texts was done to it."""

    touched: list[str]

    def __new__(cls, text: str, touched: list[str]) -> "Traced":
        traced = super().__new__(cls, text)
        traced.touched = touched
        return traced

    def __getattribute__(self, name: str) -> Any:
        if name not in _ALLOWED:
            object.__getattribute__(self, "touched").append(name)
        return super().__getattribute__(name)

    def __str__(self) -> str:
        return self  # so that a filter that asks for str(content) still works on a traced text

    def __add__(self, other: str) -> "Traced":
        return Traced(str.__add__(self, other), self.touched)

    def __radd__(self, other: str) -> "Traced":
        return Traced(str.__add__(other, self), self.touched)


def _noted(name: str) -> Callable[..., Any]:
    def method(self: Traced, *arguments: Any) -> Any:
        self.touched.append(name)
        return getattr(str, name)(self, *arguments)

    return method


# operators and functions reach these on the class, past __getattribute__
for _name in (
    "contains",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "len",
    "getitem",
    "iter",
    "mul",
    "rmul",
    "mod",
    "rmod",
    "format",
):
    setattr(Traced, f"__{_name}__", _noted(f"__{_name}__"))
Traced.__hash__ = str.__hash__  # type: ignore[method-assign]


def learn(render: Render, roles: Sequence[str], ends: tuple[str, str] = ("", "")) -> Pieces | None:
    """The pieces of a conversation of these roles, or None where the template does more than join texts.

    `ends`: what the last message's content always begins and ends with; it is then part of the pieces.
    """
    from jinja2 import TemplateError

    touched: list[str] = []
    marks = [f"\ue000{position}\ue001" for position in range(len(roles))]
    contents = [*marks[:-1], f"{ends[0]}{marks[-1]}{ends[1]}"]
    traced = [{"role": role, "content": Traced(text, touched)} for role, text in zip(roles, contents, strict=True)]
    try:
        pieces = _pieces(render(traced), marks)
        if touched:
            return None
        for shift in range(len(AWKWARD)):
            texts = [AWKWARD[(shift + position) % len(AWKWARD)] for position in range(len(roles))]
            if not agrees(render, pieces, roles, texts, ends):
                return None
    except (TemplateError, TypeError, ValueError):
        return None  # each row is rendered, and the first that fails is told with its line
    return pieces


def agrees(render: Render, pieces: Pieces, roles: Sequence[str], texts: Sequence[str], ends: tuple[str, str]) -> bool:
    """Whether the template makes of these contents what the pieces say; of the last one `ends` are left out."""
    contents = [*texts[:-1], f"{ends[0]}{texts[-1]}{ends[1]}"]
    messages = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=True)]
    return render(messages) == "".join(texts[piece] if isinstance(piece, int) else piece for piece in pieces)


def _pieces(text: str, marks: list[str]) -> Pieces:
    pieces: list[str | int] = []
    while text:
        start, position = min((text.find(mark) % (len(text) + 1), position) for position, mark in enumerate(marks))
        if start:
            pieces.append(text[:start])
        if start < len(text):
            pieces.append(position)
            start += len(marks[position])
        text = text[start:]
    return tuple(pieces)
