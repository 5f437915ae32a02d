"""JSON files as all of a job's outputs are written: indented, UTF-8, with a line's end at the end."""

import json
from pathlib import Path


def write_json(file: Path, value: object) -> None:
    """Write `value` (of JSON's types) to `file`."""
    file.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
