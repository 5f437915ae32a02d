"""A number that stands for some values, the same on every machine and in every process."""

import hashlib


def stable_number(*parts: str | int) -> int:
    """64 bits that stand for the parts."""
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
