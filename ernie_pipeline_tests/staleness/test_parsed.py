from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.staleness.parsed import Parsed
from ernie_pipeline.store.sealed import write_sealed


class Counting:
    """A parser that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, text: str) -> dict[str, Any]:
        self.calls += 1
        return {"length": len(text)}


@pytest.fixture
def reader(tmp_path: Path) -> Path:
    file = tmp_path / "reader.py"
    file.write_text("1")
    return file


def test_a_text_is_parsed_once_whatever_process_asks(tmp_path: Path, reader: Path) -> None:
    parse, place = Counting(), tmp_path / "cache" / "modules.json"
    for _ in range(2):
        parsed = Parsed(parse, reader, place)
        assert [parsed.of("abc"), parsed.of("abc")] == [{"length": 3}] * 2
        parsed.keep()
    assert parse.calls == 1
    Parsed(parse, reader, place).of("abcd")
    assert parse.calls == 2
    assert [file.name for file in place.parent.iterdir()] == ["modules.json"]


def test_what_is_asked_for_stays_when_others_are_let_go(
    tmp_path: Path, reader: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ernie_pipeline.staleness.parsed.MOST", 2)
    parse, place = Counting(), tmp_path / "modules.json"
    for text in ("kept", "edited once", "edited twice", "edited again"):
        parsed = Parsed(parse, reader, place)
        parsed.of("kept")
        parsed.of(text)
        parsed.keep()
    assert parse.calls == 4


def test_other_code_of_the_reader_parses_again(tmp_path: Path, reader: Path) -> None:
    parse, place = Counting(), tmp_path / "modules.json"
    for text in ("1", "2"):
        reader.write_text(text)
        parsed = Parsed(parse, reader, place)
        parsed.of("abc")
        parsed.keep()
    assert parse.calls == 2


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"found": {}, "seal": "0"}', b"\xff"])
def test_a_damaged_file_costs_the_parsing_and_nothing_else(tmp_path: Path, reader: Path, damage: bytes) -> None:
    parse, place = Counting(), tmp_path / "modules.json"
    parsed = Parsed(parse, reader, place)
    parsed.of("abc")
    parsed.keep()
    place.write_bytes(damage)
    again = Parsed(parse, reader, place)
    assert again.of("abc") == {"length": 3}
    again.keep()
    assert parse.calls == 2
    Parsed(parse, reader, place).of("abc")
    assert parse.calls == 2


def test_where_nothing_can_be_written_it_still_parses(tmp_path: Path, reader: Path) -> None:
    (tmp_path / "file").write_text("")
    parsed = Parsed(Counting(), reader, tmp_path / "file" / "modules.json")
    assert parsed.of("abc") == {"length": 3}
    parsed.keep()


@pytest.mark.parametrize(
    "values", [{"found": {"a": 1}}, {"parsed": 3}, {"parsed": "{"}, {"parsed": "[]"}, {"parsed": "[" * 10**5}]
)
def test_what_another_version_of_the_package_has_kept_costs_the_parsing(
    tmp_path: Path, reader: Path, values: dict[str, Any]
) -> None:
    write_sealed(tmp_path / "kept", values)
    parsed = Parsed(str.upper, reader, tmp_path / "kept")
    assert parsed.of("text") == "TEXT"
    parsed.keep()
    assert Parsed(lambda text: "not asked", reader, tmp_path / "kept").of("text") == "TEXT"
