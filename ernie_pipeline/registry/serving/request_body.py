"""A request's body, as far as a server must know it before it parses it: bounded in what its parsing can cost."""

import json
import re
from typing import Any

from ernie_pipeline.registry.serving.refusal import Refusal

MAX_BODY = 2 * 2**20
"""The bytes of a request, at most: several times what the longest conversation of 131,072 tokens takes."""

MAX_PARTS = 20_000
"""The objects and lists of a request, at most. Two MiB of empty lists took the servers two seconds each to parse."""

MAX_DEPTH = 32
"""How deep they may be in each other: what reads them further on does so by recursion."""

NO_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[^"\[\]{}]++', re.DOTALL)
"""In JSON: strings, whole or cut off, and all that is no bracket."""


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object that the body is. Raises `Refusal` for anything else, at once for what is costly to parse."""
    wrong = Refusal("the request must be a JSON object")
    try:
        text = body.decode("utf-8-sig")
        _check_structure(text)
        parsed = json.loads(text)
    except (ValueError, RecursionError):  # not UTF-8, no JSON, a number of thousands of digits
        raise wrong from None
    if not isinstance(parsed, dict):
        raise wrong
    return parsed


def _check_structure(text: str) -> None:
    brackets = NO_BRACKETS.sub("", text)
    if brackets.count("[") + brackets.count("{") > MAX_PARTS:
        raise Refusal(f"the request has more than {MAX_PARTS:,} objects and lists")
    depth = 0
    for bracket in brackets:
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_DEPTH:
            raise Refusal(f"the request is nested more than {MAX_DEPTH} levels deep")
