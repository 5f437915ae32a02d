"""Small objects of JSON's values behind a line with their hash: torn or altered ones are told from whole ones."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

Values = dict[str, Any]


def packed(values: Mapping[str, Any]) -> bytes:
    """The object's bytes."""
    text = json.dumps(values, sort_keys=True).encode()
    return hashlib.sha256(text).hexdigest().encode() + b"\n" + text


def unpacked(body: bytes) -> Values | None:
    """What was packed; None for anything else."""
    line, _, text = body.partition(b"\n")
    if line != hashlib.sha256(text).hexdigest().encode():
        return None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None
