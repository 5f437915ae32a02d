"""Small objects of JSON's values behind a line with their hash: torn or altered ones are told from whole ones."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from ernie_pipeline.store.readable import NOT_READABLE, parse_json

Values = dict[str, Any]


def packed(values: Mapping[str, Any]) -> bytes:
    """The object's bytes."""
    text = json.dumps(values, sort_keys=True).encode()
    return hashlib.sha256(text).hexdigest().encode() + b"\n" + text


def unpacked(body: bytes, *names: str) -> Values | None:
    """What was packed; None for anything else, such as values without one of these names."""
    line, _, text = body.partition(b"\n")
    if line != hashlib.sha256(text).hexdigest().encode():
        return None
    try:
        values = parse_json(text)
    except NOT_READABLE:
        return None
    return values if isinstance(values, dict) and values.keys() >= {*names} else None


def is_inside(name: str) -> bool:
    """Whether a name of a file, which anybody with access to the bucket may have written, stays in its folder."""
    parts = name.split("/")
    return not PurePosixPath(name).is_absolute() and not {"", ".", ".."} & {*parts} and "\0" not in name
