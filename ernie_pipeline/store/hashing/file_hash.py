"""The SHA-256 of a file."""

import hashlib
from io import BufferedReader
from pathlib import Path


def sha256_of(file: Path) -> str:
    """The hash of the file's bytes in hex digits, read now. Raises `OSError`."""
    with file.open("rb") as stream:
        return digest_of(stream)


def digest_of(stream: BufferedReader) -> str:
    """The same of what is left to read of an open file."""
    return hashlib.file_digest(stream, "sha256").hexdigest()
