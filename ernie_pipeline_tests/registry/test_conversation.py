"""What is asked, checked."""

from typing import Any

import pytest

from ernie_pipeline.registry.serving.conversation import Settings, checked_messages, checked_settings, messages_of
from ernie_pipeline.registry.serving.refusal import Refusal

USER = {"role": "user", "content": "1 + 1?"}
INSTRUCTION = "Box it. "
UNICODE = "is not valid Unicode: it has half of a surrogate pair"


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        (None, "messages must be a list of at least one {role, content}"),
        ([], "messages must be a list of at least one {role, content}"),
        ("hello", "messages must be a list of at least one {role, content}"),
        (["hello"], "messages[0] must be an object with role and content, not a string"),
        ([USER, None], "messages[1] must be an object with role and content, not null"),
        ([{"content": "x"}], "messages[0].role must be one of system, user, assistant"),
        ([{"role": "tool", "content": "x"}], "messages[0].role must be one of system, user, assistant"),
        ([{"role": ["user"], "content": "x"}], "messages[0].role must be one of system, user, assistant"),
        ([{"role": "user"}], "messages[0].content must be a string, not null"),
        ([{"role": "user", "content": 7}], "messages[0].content must be a string, not a number"),
        ([{"role": "user", "content": "\n "}], "messages[0].content is empty"),
        ([{"role": "user", "content": []}], "messages[0].content is empty"),
        ([{"role": "user", "content": ["x"]}], "messages[0].content must be a string, or parts of the type text"),
        ([{"role": "user", "content": "\ud800"}], f"messages[0].content {UNICODE}"),
        ([{**USER, "name": "me"}], "messages[0] has an unknown field 'name'; it has role and content"),
        ([{"type": "function_call"}], "messages[0] must be a message: no other type of item is answered"),
        ([USER, {"role": "assistant", "content": "2"}], "the last message must be the user's, not the assistant's"),
    ],
)
def test_what_is_wrong_with_messages_is_told_in_one_sentence(messages: Any, sentence: str) -> None:
    with pytest.raises(Refusal) as refusal:
        checked_messages(messages, INSTRUCTION)
    assert (refusal.value.sentence, refusal.value.status) == (sentence, 400)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({}, "give a question or messages, and not null"),
        ({"question": None, "messages": float("nan")}, "give a question or messages, and not null"),
        ({"question": "1?", "messages": [USER]}, "give a question or messages, not both"),
        ({"question": True}, "question must be a string, not true or false"),
        ({"question": {}}, "question must be a string, not an object"),
    ],
)
def test_a_row_has_either(row: Any, sentence: str) -> None:
    with pytest.raises(Refusal) as refusal:
        messages_of(row, INSTRUCTION)
    assert refusal.value.sentence == sentence


def test_the_instruction_stands_before_a_conversation_once_unless_the_system_speaks() -> None:
    trained = [{"role": "user", "content": "Box it. 1 + 1?"}]
    assert messages_of({"question": "1 + 1?"}, INSTRUCTION) == trained
    assert messages_of({"question": float("nan"), "messages": [USER]}, INSTRUCTION) == trained
    assert checked_messages(trained, INSTRUCTION) == trained
    with_system = [{"role": "system", "content": "Be brief."}, USER]
    assert checked_messages(with_system, INSTRUCTION) == with_system


def test_parts_of_text_and_items_sent_back_are_messages() -> None:
    parts = [{"type": "text", "text": "1 + "}, {"type": "input_text", "text": "1?"}]
    answered = {
        "type": "message",
        "id": "msg_1",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "2", "annotations": []}],
    }
    asked = {"role": "user", "content": parts, "refusal": None}
    assert checked_messages([asked, answered, USER], "") == [USER, {"role": "assistant", "content": "2"}, USER]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"temprature": 1.0}, "unknown parameter 'temprature'; known are max_new_tokens, temperature, top_p, seed"),
        ({"max_new_tokens": 1.5}, "max_new_tokens must be a whole number, at least 1"),
        ({"max_new_tokens": True}, "max_new_tokens must be a whole number, at least 1"),
        ({"max_new_tokens": -1}, "max_new_tokens must be a whole number, at least 1"),
        ({"temperature": "hot"}, "temperature must be a number, at least 0"),
        ({"temperature": float("inf")}, "temperature must be a number, at least 0"),
        ({"temperature": 10**400}, "temperature must be a number, at least 0"),
        ({"top_p": -(10**400)}, "top_p must be a number, above 0 and at most 1"),
        ({"top_p": float("nan")}, "top_p must be a number, above 0 and at most 1"),
        ({"seed": 2**63}, f"seed must be a whole number, at most {2**63 - 1}"),
        ({"seed": "1"}, f"seed must be a whole number, at most {2**63 - 1}"),
    ],
)
def test_what_is_wrong_with_a_parameter_is_told_in_one_sentence(values: Any, sentence: str) -> None:
    with pytest.raises(Refusal) as refusal:
        checked_settings(values, 24)
    assert refusal.value.sentence == sentence


def test_null_is_a_parameter_not_given() -> None:
    assert checked_settings({"seed": None, "temperature": 1}, 24) == Settings(24, 1.0)
