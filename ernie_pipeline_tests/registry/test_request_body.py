"""Bodies of requests: what is costly to parse, or would fail in what parses it, is refused before."""

import json

import pytest

from ernie_pipeline.registry.serving.refusal import Refusal
from ernie_pipeline.registry.serving.request_body import MAX_DEPTH, MAX_PARTS, json_object


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"{}"',
        b"\xff",
        json.dumps({"a": 1}).encode("utf-16"),
        b'{"a": 1' + b"0" * 5000 + b"}",  # Python parses no number of so many digits
        b'{"a": "[[[[',
        b"]" * 100,
    ],
)
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal, match=r"^the request must be a JSON object$"):
        json_object(body)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b'{"a": ' + b"[" * 100_000, "the request has more than 20,000 objects and lists"),
        (b'{"a": [' + b"{}," * MAX_PARTS + b"{}]}", "the request has more than 20,000 objects and lists"),
        (b'{"a": ' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}", "the request is nested more than 32 levels deep"),
        (b'{"a":' * 900 + b"1" + b"}" * 900, "the request is nested more than 32 levels deep"),
    ],
)
def test_what_is_costly_to_parse_is_refused(body: bytes, sentence: str) -> None:
    with pytest.raises(Refusal, match=f"^{sentence}$"):
        json_object(body)


def test_brackets_in_texts_do_not_count() -> None:
    told = {"a": "[{" * MAX_PARTS + '\\"]', "\\": ["}", '"[', {}]}
    for body in (json.dumps(told).encode(), b"\xef\xbb\xbf" + json.dumps(told, ensure_ascii=False).encode()):
        assert json_object(body) == told
