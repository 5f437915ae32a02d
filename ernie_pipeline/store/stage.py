"""A stage: what its output depends on, declared."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One built asset. Its fingerprint covers exactly what is named here.

    `inputs`: the observed and built assets that it reads. `recipe`: the sections ("lora") or single keys
    ("source.max_bad_rows") that it reads. `code`: the modules in which its work is done; what they import inside this
    package counts with them. `libraries`: the distributions whose version decides the output.
    """

    name: str
    inputs: tuple[str, ...]
    recipe: tuple[str, ...]
    code: tuple[str, ...]
    libraries: tuple[str, ...]
