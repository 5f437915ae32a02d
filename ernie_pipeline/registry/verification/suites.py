"""What the registry says of a version's figures on suites, beside the artifacts with the answers that they are of."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ernie_pipeline.registry.suite_figures import Told, told_in_registry
from ernie_pipeline.registry.verification.figures import same
from ernie_pipeline.registry.verification.step import Step, differs, passed, unchecked
from ernie_pipeline.registry.verification.version import Version

if TYPE_CHECKING:
    from mlflow import MlflowClient

NAME = "suite figures"
Find = Callable[[str, str], "Mapping[str, float] | None"]


def check_suites(client: "MlflowClient", version: Version, find: Find) -> Step | None:
    """Compare them with what `find` gives for an asset and the beginning of its data version: None where there is no
    such artifact intact. None where the registry has no figures on suites.

    A version is registered without suites, and what of them is stored may be pruned: what is not there was not asked
    for, and proves nothing.
    """
    gone, held = set[str](), set[tuple[str, str]]()
    there: dict[tuple[str, str], Mapping[str, float] | None] = {}
    for side, told in told_in_registry(client, version.run_id):
        key = (told.asset, told.digest)
        if key not in there:
            there[key] = find(*key)
        found = there[key]
        if found is None:
            gone.add(told.asset)
        elif said := _difference(side, told, found.get(told.name)):
            return differs(NAME, said)
        else:
            held.add((side, told.name))
    if gone:
        return unchecked(NAME, f"the answers of {', '.join(sorted(gone))} are not in this store", asked=False)
    return passed(NAME, f"{len(held)} figures are those of {len(there)} artifacts with answers") if there else None


def _difference(side: str, told: Told, found: float | None) -> str:
    if same(told.value, found):
        return ""
    whose = "the base model's " if side == "base" else ""
    said, stored = ("nothing" if each is None else repr(each) for each in (told.value, found))
    return f"{whose}{told.place} {told.name} is {said} in the registry, and {stored} by {told.asset}"
