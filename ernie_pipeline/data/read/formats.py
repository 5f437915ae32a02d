"""Which form a file of rows has, by its name's ending."""

from pathlib import Path
from typing import Literal

Format = Literal["json", "csv", "parquet", "arrow"]

_COMPRESSED = (".gz", ".zst")
_FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}


def format_of(path: Path) -> Format:
    """Of a file: what its name says, without an ending of compression; JSON (lines or an array) for any other name."""
    return _FORMATS.get(plain_ending(path), "json")


def plain_ending(path: Path) -> str:
    """A file's ending in small letters, without that of compression: ".tsv" of rows.tsv.gz."""
    named = path.with_suffix("") if path.suffix.lower() in _COMPRESSED else path
    return named.suffix.lower()
