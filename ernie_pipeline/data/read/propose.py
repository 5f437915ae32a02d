"""What the recipe's [source] can say of rows, told from their columns: which hold question and answer, and how."""

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any, NamedTuple

from ernie_pipeline.data.read.extract import answer_text, extract_answer
from ernie_pipeline.data.read.mapped import ABSENT, ASSISTANT, USER, value_of
from ernie_pipeline.data.read.row_schema import INPUT

QUESTIONS = ("question", "problem", "query", "prompt", "input", "instruction", "text")
"""What a column of questions is called, in any case; the first of these that there is."""
ANSWERS = (
    *("expected_answer", "final_answer", "reference_answer", "answer", "ground_truth", "gold", "target", "result"),
    *("label", "solution", "output", "response", "completion"),
)
"""What a column of answers is called, as above."""
MARKS = ("boxed", "after ####")
MOST = 0.5
"""Share of the rows in which a mark stands, above which it is the rows' form."""
LONG = 200
"""Characters of a text that is no bare answer."""
SAYS_HOW = "\\boxed"


class Proposal(NamedTuple):
    """`looks_like`: what people call such rows. `keys`: those of [source] that read them."""

    looks_like: str
    keys: dict[str, str]

    @property
    def lines(self) -> list[str]:
        """The keys as lines of TOML."""
        return [f"{key} = {toml_text(value)}" for key, value in self.keys.items()]


def propose(records: Sequence[dict[str, Any]]) -> Proposal | None:
    """What reads rows like these (some of the first); None where the columns do not tell."""
    columns = list(dict.fromkeys(name for record in records for name in _names(record)))
    chats = [name for name in columns if _is_chat(records, name)]
    question = _first(QUESTIONS, [name for name in columns if _is_text(records, name)])
    answers = [name for name in columns if _has_answers(records, name) and name != question]
    answer = _first(ANSWERS, [name for name in answers if _how(records, name) or not _is_long(records, name)])
    if question and answer:
        extract = _how(records, answer)
        if INPUT in chats:  # the schema but for a column's name or type
            return _chat(records, INPUT, question, answer)
        return Proposal(_known_as(question, answer, extract), _keys(question=question, answer=answer, extract=extract))
    return _chat(records, chats[0], "", answer) if chats else None


def toml_text(text: str) -> str:
    r"""A text as TOML writes it: 'as it is' where that is possible, else with escapes.

    >>> toml_text("after ####"), toml_text(r"= (\d+)")
    ('"after ####"', "'= (\\d+)'")
    """
    plain = all(character.isprintable() for character in text)
    if plain and not set(text) & {'"', "\\"}:
        return f'"{text}"'
    if plain and "'" not in text:
        return f"'{text}'"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'


def _chat(records: Sequence[dict[str, Any]], messages: str, question: str, answer: str) -> Proposal | None:
    """`answer`: the column beside the chat, "" where the assistant's last turn is the answer."""
    ends = [value_of(record, messages)[-1] for record in records if value_of(record, messages)]
    if not answer and not all(end["role"] == ASSISTANT for end in ends):
        return None
    said = [{"": end["content"]} for end in ends]
    extract = _how(records, answer) if answer else _how(said, "")
    asked = [str(turn["content"]) for record in records for turn in value_of(record, messages) or () if _asks(turn)]
    keys = _keys(messages=messages, question=question, answer=answer, extract=extract)
    if asked and sum(SAYS_HOW in text for text in asked) > MOST * len(asked):
        keys["instruction"] = ""  # the turns say already where the answer is to stand
    return Proposal("chat messages", keys)


def _asks(turn: dict[str, Any]) -> bool:
    return bool(turn["role"] == USER)


def _keys(**keys: str) -> dict[str, str]:
    return {key: value for key, value in keys.items() if value}


def _known_as(question: str, answer: str, extract: str) -> str:
    if (question, answer, extract) == ("question", "answer", "after ####"):
        return "GSM8K"
    if (question, answer, extract) == ("problem", "solution", "boxed"):
        return "MATH"
    return "rows of question and answer"


def _first(called: Sequence[str], names: Sequence[str]) -> str:
    """The name that stands first in `called`, in any case; a column within another counts by its own last name."""
    for word in called:
        for name in names:
            if name.rpartition(".")[2].lower() == word:
                return name
    return ""


def _names(record: dict[str, Any]) -> Iterator[str]:
    """The columns, and those within them: "a", "a.b"."""
    for name, value in record.items():
        yield name
        if isinstance(value, dict):
            yield from (f"{name}.{inner}" for inner in value if "." not in inner)


def _values(records: Sequence[dict[str, Any]], name: str) -> list[Any]:
    values = (value_of(record, name) for record in records)
    return [value for value in values if value is not None and value is not ABSENT]


def _is_text(records: Sequence[dict[str, Any]], name: str) -> bool:
    values = _values(records, name)
    return sum(isinstance(value, str) for value in values) > MOST * len(values)


def _has_answers(records: Sequence[dict[str, Any]], name: str) -> bool:
    values = _values(records, name)
    return sum(answer_text(value) is not None for value in values) > MOST * len(values)


def _is_chat(records: Sequence[dict[str, Any]], name: str) -> bool:
    values = _values(records, name)
    return bool(values) and all(isinstance(turns, list) and turns and all(map(_is_turn, turns)) for turns in values)


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, dict) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)


def _is_long(records: Sequence[dict[str, Any]], name: str) -> bool:
    return median(len(answer_text(value) or "") for value in _values(records, name)) > LONG


def _how(records: Sequence[dict[str, Any]], name: str) -> str:
    """The mark behind or in which most of the column's texts have their answer; "" for none."""
    texts = [value for value in _values(records, name) if isinstance(value, str)]
    found = {mark: sum(extract_answer(text, mark) is not None for text in texts) for mark in MARKS}
    best = max(found, key=lambda mark: found[mark])
    return best if found[best] > MOST * len(texts) else ""
