"""The SHA-256 of a file."""

import hashlib
from pathlib import Path


def sha256_of(file: Path) -> str:
    """The hash of the file's bytes in hex digits, read now. Raises `OSError`."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
