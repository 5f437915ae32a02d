"""What the commands' answers have in common: their exit status, and values for programs or text for people."""

import argparse
import json
from typing import Any

FRESH, ERROR, STALE, OVER_BUDGET = 0, 1, 3, 4


def print_answer(options: argparse.Namespace, values: dict[str, Any], text: str) -> None:
    """Print `values` as JSON where `--json` asks for it, else `text`."""
    print(json.dumps(values, indent=1) if options.json else text)
