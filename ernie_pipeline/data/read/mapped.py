"""Rows of any columns as rows of the schema: which column is the question, which the answer, and where in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ernie_pipeline.data.read.extract import answer_text, extract_answer, what_is_missing
from ernie_pipeline.data.read.row_schema import (
    INPUT,
    Message,
    NotUtf8,
    Parameters,
    RowProblem,
    SourceRow,
    check_record,
)
from ernie_pipeline.recipe.sections import Source

USER, ASSISTANT = "user", "assistant"
ABSENT = object()


@dataclass(frozen=True)
class Columns:
    """The recipe's `source.question`, `answer`, `messages`, `extract` and `instruction`."""

    question: str
    answer: str
    messages: str
    extract: str
    instruction: str

    @classmethod
    def of(cls, source: Source) -> "Columns | None":
        """Those that the recipe names; None where rows have the schema already."""
        if not source.has_columns:
            return None
        return cls(source.question, source.answer, source.messages, source.extract, source.instruction)

    @property
    def names(self) -> list[str]:
        """The columns that are read, as the recipe names them."""
        return [name for name in (self.messages, self.question, self.answer) if name]

    def row(self, record: Any) -> SourceRow:
        """The row that a decoded record stands for, or the `RowProblem` in its place; raises `RowProblem`."""
        if isinstance(record, RowProblem):
            raise record
        if not isinstance(record, dict):
            return check_record(record)  # which says what it is
        turns = self._turns(record) if self.messages else []
        answered = bool(turns) and turns[-1].role == ASSISTANT
        prompt = turns[:-1] if answered else turns
        if self.messages and not any(turn.role == USER for turn in prompt):
            raise RowProblem(self.messages, "has no user's turn before the answer")
        value = turns[-1].content if answered else None
        answer = self._answer(value_of(record, self.answer) if self.answer else value)
        question = self._text(record, self.question) if self.question else _asked(prompt)
        if not self.messages:
            prompt = [Message(USER, question or "")]
        return SourceRow(Parameters(self._instructed(prompt)), question, answer)

    def _turns(self, record: dict[str, Any]) -> list[Message]:
        turns = value_of(record, self.messages)
        if turns is ABSENT:
            raise RowProblem(self.messages, "is missing")
        if hasattr(turns, "tolist"):
            turns = turns.tolist()
        row = self._checked({"responses_create_params": {"input": turns}, "question": "", "expected_answer": ""})
        messages = row.responses_create_params.input
        if messages[-1].role != ASSISTANT and not self.answer:
            raise RowProblem(self.messages, "does not end with an assistant's turn, and source.answer names no column")
        return messages

    def _answer(self, value: Any) -> str | None:
        """An empty one is left to the filters, as in rows of the schema."""
        field = self.answer or self.messages
        if value is ABSENT:
            raise RowProblem(field, "is missing")
        text = answer_text(value)
        if value is None or (text is not None and not text.strip()):
            return text
        if text is None:
            problem = f"is not UTF-8 (byte {value.byte} of the text)" if isinstance(value, NotUtf8) else _no_text(value)
            raise RowProblem(field, problem)
        found = extract_answer(text, self.extract)
        if found is None:
            raise RowProblem(field, what_is_missing(self.extract))
        return self._plain(found, field)

    def _text(self, record: dict[str, Any], name: str) -> str | None:
        value = value_of(record, name)
        if value is ABSENT:
            raise RowProblem(name, "is missing")
        return self._plain(value, name)

    def _plain(self, value: Any, field: str) -> str | None:
        """The text, once it is one that the schema allows."""
        turn = {"role": USER, "content": ""}
        try:
            row = check_record(
                {"responses_create_params": {"input": [turn]}, "question": value, "expected_answer": None}
            )
        except RowProblem as problem:
            raise RowProblem(field, problem.problem) from None
        return row.question

    def _checked(self, record: dict[str, Any]) -> SourceRow:
        try:
            return check_record(record)
        except RowProblem as problem:
            raise RowProblem(problem.field.replace(INPUT, self.messages, 1), problem.problem) from None

    def _instructed(self, prompt: list[Message]) -> list[Message]:
        """The prompt with the instruction before its last question."""
        place = max(number for number, turn in enumerate(prompt) if turn.role == USER)
        asked = Message(USER, self.instruction + prompt[place].content)
        return [*prompt[:place], asked, *prompt[place + 1 :]]


def value_of(record: Mapping[str, Any], name: str) -> Any:
    """What stands in the column `name`, which may lie in others ("a.b"); `ABSENT` where there is none such."""
    if name in record:
        return record[name]
    outer, dot, inner = name.partition(".")
    below = record.get(outer) if dot else None
    return value_of(below, inner) if isinstance(below, dict) else ABSENT


def has_column(columns: Mapping[str, Any] | list[str], name: str) -> bool:
    """Whether `name`, or the column in which it lies, is one of the columns."""
    return name in columns or name.partition(".")[0] in columns


def _asked(prompt: list[Message]) -> str:
    return next(turn.content for turn in reversed(prompt) if turn.role == USER)


def _no_text(value: Any) -> str:
    kinds = {bool: "a boolean", list: "a list", dict: "an object", float: "no finite number"}
    return f"is {kinds.get(type(value), type(value).__name__)}, neither text nor a number"
