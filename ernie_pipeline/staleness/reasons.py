"""Why an artifact is not the one that is wanted: what differs between two provenances, in words."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ernie_pipeline.store.artifacts import Provenance
from ernie_pipeline.store.history import Build
from ernie_pipeline.utils.flatten import flatten

SHOWN_DIGITS = 8


def differences(wanted: Provenance, build: Build, ignored_inputs: Collection[str] = ()) -> list[str]:
    """One clause for each recipe key, input, module and library in which an earlier build differs from the wanted.

    Where another value of a recipe key made the stage read other keys or inputs, as that it is to sample at all, the
    recipe's changes alone are told: the rest follows from them.
    """
    before, after = flatten(build["recipe"]), flatten(wanted.recipe)
    both = {*before} & {*after}
    deciding = _changes("recipe", {key: before[key] for key in both}, {key: after[key] for key in both})
    if deciding and ({*before} != {*after} or {*wanted.inputs} != {*build["inputs"]}):
        return deciding
    return _all_differences(wanted, build, ignored_inputs)


def _all_differences(wanted: Provenance, build: Build, ignored_inputs: Collection[str] = ()) -> list[str]:
    inputs, built_from = (
        {name: version for name, version in versions.items() if name not in ignored_inputs}
        for versions in (wanted.inputs, build["inputs"])
    )
    for name in {*inputs} & {*built_from}:
        if (before := _parts(name, built_from[name])) and (after := _parts(name, inputs[name])):
            del built_from[name], inputs[name]
            built_from, inputs = built_from | before, inputs | after
    return [
        *_changes("recipe", flatten(build["recipe"]), flatten(wanted.recipe)),
        *_changes("input", built_from, inputs, shown=_short),
        *_module_changes(build["modules"], wanted.modules),
        *_changes("library", build["libraries"], wanted.libraries),
    ]


def nearest(wanted: Provenance, builds: Sequence[Build]) -> Build | None:
    """The build that differs in the fewest things from the wanted; of several, the newest (`builds` has it last)."""
    return min(reversed(builds), key=lambda build: len(_all_differences(wanted, build)), default=None)


def value_words(value: Any) -> str:
    """A recipe's value as a recipe has it, but for the quotes of a text that is not empty."""
    if isinstance(value, bool):
        return str(value).lower()
    return '""' if value == "" else str(value)


def _changes(
    kind: str, before: Mapping[str, Any], after: Mapping[str, Any], shown: Callable[[Any], str] = value_words
) -> list[str]:
    names = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    old, new = ({name: shown(m[name]) if name in m else "(none)" for name in names} for m in (before, after))
    return [f"{kind} {name} {old[name]} -> {new[name]}" for name in names]


def _module_changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    verbs = {(True, True): "changed", (False, True): "is new", (True, False): "is no longer used"}
    return [
        f"code {name} {verbs[name in before, name in after]}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


def _parts(name: str, version: str) -> dict[str, str]:
    """{"sets a": "sha256:1f..", "sets b": ...} of the version "a=sha256:1f.., b=..." of `sets`; {} of a plain one."""
    parts = [part.rpartition("=") for part in version.split(", ")]
    return {f"{name} {part}": value for part, _, value in parts} if all(part for part, _, _ in parts) else {}


def _short(version: str) -> str:
    """ "sha256:9f3a..." without the kind of version and most of its digits."""
    return version.rpartition(":")[2][:SHOWN_DIGITS]
