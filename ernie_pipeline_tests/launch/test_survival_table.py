"""The table of what each launcher survives names tests; each of them is there."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
TABLE = TESTS.parent / "benchmarks" / "launch" / "README.md"
NAMED = re.compile(r"`([\w/.]+\.py|\.\.\.)::(test_\w+)(?:\[\w+\])?`")


def test_every_test_that_the_table_names_is_there() -> None:
    if not TABLE.is_file():
        pytest.skip("the benchmarks are not beside the tests")
    file, named = "", NAMED.findall(TABLE.read_text(encoding="utf-8"))
    assert len(named) > 40
    for place, name in named:
        file = file if place == "..." else place  # "..." is the file before
        assert f"\ndef {name}(" in (TESTS / file).read_text(encoding="utf-8"), f"{file}::{name}"
