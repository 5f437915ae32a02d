"""What is asked, checked: every function takes what a client sent, whatever that is, and raises `Refusal` with what is
wrong with it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ernie_pipeline.registry.serving.refusal import Refusal

Message = dict[str, str]
ROLES = ("system", "user", "assistant")
FIELDS = ("role", "content", "type", "id", "status")
"""What a message may have: the last three are in the output items of OpenAI's Responses, which a client sends back."""

TEXT_PARTS = ("text", "input_text", "output_text")
"""OpenAI's parts of a content that are text."""

PARAMETERS = ("max_new_tokens", "temperature", "top_p", "seed")
MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Settings:
    """How to answer: at most how many tokens, greedily at temperature 0, and from which seed (negative: none).

    `limit`: what the client calls `max_new_tokens`.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = -1
    limit: str = field(default="max_new_tokens", compare=False)


def checked_settings(values: Mapping[str, Any], default: int, limit: str = "max_new_tokens") -> Settings:
    """From parameters by name, of which null is one not given. `default`: max_new_tokens where it is not; `limit`: what
    the client calls that."""
    given = {name: value for name, value in values.items() if value is not None}
    refuse_unknown(given, PARAMETERS)
    tokens, seed = given.get("max_new_tokens", default), given.get("seed", -1)
    temperature, top_p = given.get("temperature", 0.0), given.get("top_p", 1.0)
    if not _is_integer(tokens) or tokens < 1:
        raise Refusal(f"{limit} must be a whole number, at least 1")
    if not _is_number(temperature) or not 0 <= temperature < math.inf:
        raise Refusal("temperature must be a number, at least 0")
    if not _is_number(top_p) or not 0 < top_p <= 1:
        raise Refusal("top_p must be a number, above 0 and at most 1")
    if not _is_integer(seed) or seed > MAX_SEED:
        raise Refusal(f"seed must be a whole number, at most {MAX_SEED}")
    return Settings(int(tokens), float(temperature), float(top_p), int(seed), limit)


def refuse_unknown(values: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raise for a name that is not a known one: what is asked for would not be done."""
    for name in values:
        if name not in known:
            raise Refusal(f"unknown parameter {str(name)[:100]!r}; known are {', '.join(known)}")


def messages_of(row: Mapping[str, Any], instruction: str) -> list[Message]:
    """The conversation of a row that has either a `question` or `messages`."""
    question, messages = (None if _is_missing(row.get(name)) else row[name] for name in ("question", "messages"))
    if (question is None) == (messages is None):
        raise Refusal(
            "give a question or messages, and not null" if messages is None else "give a question or messages, not both"
        )
    if question is not None:
        return [{"role": "user", "content": instruction + checked_text(question, "question")}]
    return checked_messages(messages, instruction)


def checked_messages(messages: Any, instruction: str) -> list[Message]:
    """A conversation that ends with the user. The `instruction` that was trained with stands before it, as before a
    question, unless it is there already or a system message says what to do."""
    if not isinstance(messages, list) or not messages:
        raise Refusal("messages must be a list of at least one {role, content}")
    checked = [_checked_message(message, f"messages[{number}]") for number, message in enumerate(messages)]
    if checked[-1]["role"] != "user":
        raise Refusal(f"the last message must be the user's, not the {checked[-1]['role']}'s")
    first = checked[0]
    if first["role"] == "user" and not first["content"].startswith(instruction):
        first["content"] = instruction + first["content"]
    return checked


def _checked_message(message: Any, place: str) -> Message:
    if not isinstance(message, dict):
        raise Refusal(f"{place} must be an object with role and content, not {_kind(message)}")
    if unknown := [name for name, value in message.items() if name not in FIELDS and value is not None]:
        raise Refusal(f"{place} has an unknown field {str(unknown[0])[:100]!r}; it has role and content")
    if message.get("type", "message") != "message":  # OpenAI's Responses have other kinds of items
        raise Refusal(f"{place} must be a message: no other type of item is answered")
    if message.get("role") not in ROLES:
        raise Refusal(f"{place}.role must be one of {', '.join(ROLES)}")
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_checked_part(part, f"{place}.content") for part in content)
    return {"role": message["role"], "content": checked_text(content, f"{place}.content")}


def _checked_part(part: Any, place: str) -> str:
    if not isinstance(part, dict) or part.get("type") not in TEXT_PARTS or not isinstance(part.get("text"), str):
        raise Refusal(f"{place} must be a string, or parts of the type text")
    text: str = part["text"]
    return text


def checked_text(text: Any, place: str) -> str:
    """A string that says something."""
    if not isinstance(text, str):
        raise Refusal(f"{place} must be a string, not {_kind(text)}")
    if not text.strip():
        raise Refusal(f"{place} is empty")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise Refusal(f"{place} is not valid Unicode: it has half of a surrogate pair") from None
    return text


def _is_missing(value: Any) -> bool:
    """Whether a table has nothing there: null, or the NaN that pandas writes for it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    """Whether it is one, and no whole number that is too large for a float."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _kind(value: Any) -> str:
    """A value's kind in JSON's words."""
    if value is None:
        return "null"
    kinds: tuple[tuple[type, str], ...] = (
        (bool, "true or false"),
        (int, "a number"),
        (float, "a number"),
        (str, "a string"),
        (list, "a list"),
    )
    return next((word for kind, word in kinds if isinstance(value, kind)), "an object")
