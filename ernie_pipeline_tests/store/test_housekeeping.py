"""What the store's keeper keeps, removes and leaves alone."""

import json
import os
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.cli.store import render_contents, render_damage, render_pruned
from ernie_pipeline.recipe.sections import Recipe
from ernie_pipeline.staleness.chain import Chain
from ernie_pipeline.staleness.plan import asked_for, make_plan
from ernie_pipeline.staleness.stage import Work
from ernie_pipeline.staleness.stages import STAGES
from ernie_pipeline.store.artifacts import Artifact, ArtifactStore
from ernie_pipeline.store.housekeeping import artifacts as housekeeping
from ernie_pipeline.store.housekeeping.artifacts import Contents, Entry, Held, prune, take_stock, verify
from ernie_pipeline.store.lock import sole_builder
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.staleness import chains
from ernie_pipeline_tests.staleness.chains import constant, tree, walk, writes

Key = tuple[str, str]


def recipe_with(**sections: dict[str, Any]) -> Recipe:
    """With solutions, so that each stage reads what is above it."""
    return chains.recipe_with(**{**sections, "training": {"on": "solutions", **sections.get("training", {})}})


def chain_of(store: ArtifactStore, recipe: Recipe | None = None, **given: Any) -> Chain:
    """A chain of such a recipe."""
    return chains.chain_of(store, recipe or recipe_with(), **given)


def variant(store: ArtifactStore, number: int) -> dict[str, Artifact]:
    """A whole chain of its own: other rows, other outputs."""
    write = {name: writes(f"{name} {number}") for name in STAGES}
    return walk(chain_of(store, nemotron_source=f"v{number}"), **write)


def stock(chain: Chain, held: Mapping[str, Held] | None = None) -> Contents:
    return take_stock(chain.store, asked_for(chain, make_plan(chain)), held or {})


def keys(artifacts: Mapping[str, Artifact]) -> set[Key]:
    return {(name, artifact.manifest["fingerprint"]) for name, artifact in artifacts.items()}


def standing(store: ArtifactStore) -> set[Key]:
    return {(stage, fingerprint) for stage in store.stages() for fingerprint in store.fingerprints(stage)}


def needed(contents: Contents) -> dict[Key, tuple[str, ...]]:
    return {(entry.asset, entry.fingerprint): entry.needed_for for entry in contents.artifacts}


def idle(contents: Contents) -> set[Key]:
    return {key for key, reasons in needed(contents).items() if not reasons}


@pytest.fixture
def three(store: ArtifactStore) -> list[dict[str, Artifact]]:
    """Three chains, one after the other."""
    return [variant(store, number) for number in range(3)]


def test_each_artifact_is_listed_with_what_it_is_kept_for(
    store: ArtifactStore, three: list[dict[str, Artifact]]
) -> None:
    contents = stock(chain_of(store, nemotron_source="v0"))
    why = needed(contents)
    assert [why[key] for key in sorted(keys(three[0]))] == [("asked for by the recipe",)] * 7
    assert [why[key] for key in sorted(keys(three[1]))] == [()] * 7
    assert [why[key] for key in sorted(keys(three[2]))] == [("newest build",)] * 7
    assert [entry.asset for entry in contents.artifacts] == [name for name in STAGES for _ in range(3)]
    artifact = three[1]["math_split"]
    [entry] = [e for e in contents.artifacts if e.fingerprint == artifact.manifest["fingerprint"]]
    size = sum(file.stat().st_size for file in artifact.folder.iterdir())
    manifest = artifact.manifest
    assert entry == Entry(
        "math_split", entry.fingerprint, size, artifact.data_version, manifest["built"], manifest["seconds"]
    )


def test_a_dry_run_says_what_would_go_and_changes_nothing(
    store: ArtifactStore, three: list[dict[str, Artifact]]
) -> None:
    before = tree(store.root)
    pruned = prune(store, stock(chain_of(store, nemotron_source="v2")))
    lines = render_pruned(pruned)
    assert tree(store.root) == before
    assert {(entry.asset, entry.fingerprint) for entry in pruned.artifacts} == keys(three[0]) | keys(three[1])
    sizes = [sum(f.stat().st_size for f in a.folder.iterdir()) for chain in three[:2] for a in chain.values()]
    assert (pruned.deleted, pruned.size) == (False, sum(sizes))
    assert re.search(r"\nNothing was removed\. These are \d+\.\d KiB; --delete removes them\.$", lines)


def test_deleting_keeps_what_the_recipe_asks_for_and_the_newest(
    store: ArtifactStore, three: list[dict[str, Artifact]]
) -> None:
    pruned = prune(store, stock(chain_of(store, nemotron_source="v0")), delete=True)
    assert (pruned.deleted, pruned.notes) == (True, ())
    assert standing(store) == keys(three[0]) | keys(three[2])
    assert not list(store.root.glob("[!.]*/.*")), "nothing is left half-written"
    assert prune(store, stock(chain_of(store, nemotron_source="v0")), delete=True).artifacts == ()


def test_a_registered_version_keeps_its_artifact_and_everything_above_it(
    store: ArtifactStore, three: list[dict[str, Artifact]]
) -> None:
    def ask(folder: Path) -> str:
        return "registered as quick 3" if folder == three[1]["registered_model"].folder else ""

    chain = chain_of(store, nemotron_source="v2")
    contents = stock(chain, {"registered_model": ask})
    reasons = {name: needed(contents)[name, artifact.manifest["fingerprint"]] for name, artifact in three[1].items()}
    reader = f"read by registered_model {three[1]['registered_model'].manifest['fingerprint']}"
    assert reasons.pop("registered_model") == ("registered as quick 3",)
    assert reasons.pop("raw_nemotron") == (f"read by math_split {three[1]['math_split'].manifest['fingerprint']}",)
    read_by_adapter = (f"read by qlora_adapter {three[1]['qlora_adapter'].manifest['fingerprint']}",)
    assert reasons.pop("verified_solutions") == read_by_adapter
    assert reasons == dict.fromkeys([n for n in list(STAGES)[1:-1] if n != "verified_solutions"], (reader,))
    prune(store, contents, delete=True)
    assert standing(store) == keys(three[1]) | keys(three[2])


def test_when_the_registry_does_not_answer_all_that_may_be_registered_is_kept(
    store: ArtifactStore, three: list[dict[str, Artifact]]
) -> None:
    asked = []

    def ask(folder: Path) -> str:
        asked.append(folder)
        raise PipelineError("MLflow at http://host: no answer")

    walk(chain_of(store, recipe_with(training={"seed": 1}), nemotron_source="v0"), qlora_adapter=writes("no more"))
    unregistered = {("qlora_adapter", f) for f in store.fingerprints("qlora_adapter")} - set().union(*map(keys, three))
    variant(store, 3)
    contents = stock(chain_of(store, nemotron_source="v3"), {"registered_model": ask})
    assert len(asked) == 1, "a server that does not answer is not asked again"
    pruned = prune(store, contents, delete=True)
    assert pruned.notes == (
        "MLflow at http://host: no answer; so every artifact of registered_model is kept, with all that it was built "
        "from",
    )
    assert set().union(*map(keys, three)) <= standing(store)
    assert len(unregistered) == 1
    assert "note: MLflow at" in render_pruned(pruned)


@pytest.mark.parametrize(
    ("recipe", "source", "history"),
    [
        (recipe_with(), "v0", True),
        (recipe_with(), "v9", False),
        (recipe_with(lora={"rank": 8}), "v1", True),
        (recipe_with(training={"seed": 1}), "v0", False),
    ],
)
def test_the_plan_is_the_same_before_and_after(
    store: ArtifactStore, three: list[dict[str, Artifact]], recipe: Recipe, source: str, history: bool
) -> None:
    if not history:
        shutil.rmtree(store.root / ".builds")
    (three[2]["math_split"].folder / "output.json").write_text("altered")
    before = make_plan(chain_of(store, recipe, nemotron_source=source))
    assert prune(store, stock(chain_of(store, recipe, nemotron_source=source)), delete=True).artifacts
    assert make_plan(chain_of(store, recipe, nemotron_source=source)) == before


def test_what_waits_and_may_be_reused_is_kept_with_all_above_it(
    store: ArtifactStore, three: list[dict[str, Artifact]]
) -> None:
    """Version 0's raw rows are lost: what is below them waits, and is reused if they come out as they were."""
    store.remove("raw_nemotron", three[0]["raw_nemotron"].manifest["fingerprint"])
    contents = stock(chain_of(store, nemotron_source="v0"))
    assert idle(contents) == keys(three[1])
    prune(store, contents, delete=True)
    again = walk(chain_of(store, nemotron_source="v0"), raw_nemotron=writes("raw_nemotron 0"))
    assert [name for name, artifact in again.items() if not artifact.reused] == ["raw_nemotron"]


def test_what_another_holds_is_left_alone_and_named(store: ArtifactStore, three: list[dict[str, Artifact]]) -> None:
    contents = stock(chain_of(store, nemotron_source="v2"))
    fingerprint = three[0]["math_split"].manifest["fingerprint"]
    with sole_builder(store.root, "math_split", fingerprint, pytest.fail):
        left_alone = re.compile(
            rf"math_split {fingerprint} is left alone: it is being built by process \d+ on \S+ since \S+"
        )
        for delete in (False, True):
            pruned = prune(store, contents, delete)
            assert [bool(left_alone.fullmatch(note)) for note in pruned.notes] == [True]
            assert len(pruned.artifacts) == 13
    assert standing(store) - keys(three[2]) == {("math_split", fingerprint)}


def test_what_was_built_again_meanwhile_is_left_alone(store: ArtifactStore, three: list[dict[str, Artifact]]) -> None:
    contents = stock(chain_of(store, nemotron_source="v2"))
    fingerprint = three[0]["raw_nemotron"].manifest["fingerprint"]
    store.remove("raw_nemotron", fingerprint)
    chain_of(store, nemotron_source="v0").reuse_or_build("raw_nemotron", constant)
    pruned = prune(store, contents, delete=True)
    assert pruned.notes == (f"raw_nemotron {fingerprint} is left alone: it was built again just now",)
    assert store.find("raw_nemotron", fingerprint)[0] is not None


def test_what_killed_builders_left_half_written_goes_also_where_there_is_no_artifact(
    store: ArtifactStore, three: list[dict[str, Artifact]]
) -> None:
    kept = three[2]["math_split"].manifest["fingerprint"]
    for name in (f".{kept}.0123abcd", ".f00d.0123abcd", ".f00d.89abcdef"):
        (store.root / "math_split" / name).mkdir()
        (store.root / "math_split" / name / "half").write_bytes(bytes(512))
    (store.root / "math_split" / ".f00d.76543210").write_bytes(bytes(512))
    (store.root / "math_split" / ".mine").mkdir()
    chain = chain_of(store, nemotron_source="v2")
    dry = prune(store, stock(chain))
    pruned = prune(store, stock(chain), delete=True)
    assert dry.half_written == pruned.half_written
    assert sorted((a.fingerprint, a.size) for a in pruned.half_written) == sorted([(kept, 512), ("f00d", 3 * 512)])
    assert sorted(path.name for path in (store.root / "math_split").iterdir()) == [".mine", kept]


def test_what_a_living_builder_writes_is_left_alone(store: ArtifactStore) -> None:
    def write(work: object, out: Path) -> None:
        for delete in (False, True):
            pruned = prune(store, stock(chain_of(store)), delete)
            assert (pruned.half_written, len(pruned.notes)) == ((), 1)
        (out / "output.json").write_text("1")

    assert not chain_of(store).reuse_or_build("raw_nemotron", write).reused


def cut_short(chain: Chain, asset: str = "qlora_adapter") -> Key:
    """Keep half a build of the asset, as one that was killed would."""

    def write(work: Work, out: Path) -> None:
        (work.unfinished / "deep").mkdir(parents=True)
        (work.unfinished / "deep" / "half").write_bytes(bytes(512))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        chain.reuse_or_build(asset, write)
    return asset, chain.provenance(asset).fingerprint


def make_old(folder: Path) -> None:
    """Let all that is in it be last changed just before the time for which it is left alone."""
    then = time.time() - housekeeping.KEPT_DAYS * 24 * 3600 - 60
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (then, then))


def test_an_unfinished_build_stays_while_it_is_young_or_the_recipe_asks_for_it(
    store: ArtifactStore, three: list[dict[str, Artifact]]
) -> None:
    changed, other = chain_of(store, recipe_with(lora={"rank": 8}), nemotron_source="v2"), chain_of(store)
    key = cut_short(changed)
    young, asked = "changed in the last 14 days", "asked for by the recipe"
    assert stock(changed).unfinished == (Entry(*key, size=512, needed_for=(asked, young)),)
    assert stock(other).unfinished == (Entry(*key, size=512, needed_for=(young,)),)

    make_old(store.unfinished(*key))
    for chain in (changed, other):
        (store.unfinished(*key) / "deep" / "half").touch()
        assert prune(store, stock(chain), delete=True).unfinished == ()
        make_old(store.unfinished(*key))
    contents = stock(changed)
    assert contents.unfinished == (Entry(*key, size=512, needed_for=(asked,)),)
    assert f"{' '.join(key)}, kept by an unfinished build, asked for by the recipe  512 B" in (
        render_contents(contents).splitlines()
    )
    assert verify(store) == []
    assert prune(store, contents, delete=True).unfinished == ()
    assert store.all_unfinished() == [key]

    contents = stock(chain_of(store, nemotron_source="v2"))
    dry, pruned = prune(store, contents), prune(store, contents, delete=True)
    assert dry.unfinished == pruned.unfinished == (Entry(*key, size=512),)
    assert (dry.size, pruned.size) == (512, 512)
    assert f"{' '.join(key)}, kept by an unfinished build  512 B" in render_pruned(pruned).splitlines()
    assert store.all_unfinished() == []
    assert standing(store) == keys(three[2])
    assert not list(store.root.glob("[!.]*/.*")), "nothing is left half-written"


def test_where_what_the_recipe_asks_for_is_unknown_everything_is_kept(
    store: ArtifactStore, three: list[dict[str, Artifact]]
) -> None:
    key = cut_short(chain_of(store, recipe_with(lora={"rank": 8}), nemotron_source="v2"))
    make_old(store.unfinished(*key))
    contents = take_stock(store, dict.fromkeys(STAGES, ""), {}, unknown="the hub did not answer")
    assert {reasons[0] for reasons in needed(contents).values()} == {"perhaps asked for by the recipe"}
    assert contents.unfinished == (Entry(*key, size=512, needed_for=("perhaps asked for by the recipe",)),)
    before = tree(store.root)
    assert prune(store, contents, delete=True).notes == ("the hub did not answer; so every artifact is kept",)
    assert tree(store.root) == before


def test_what_an_unfinished_build_kept_goes_once_the_artifact_stands(store: ArtifactStore) -> None:
    """A process that was killed between the two left both."""
    chain = chain_of(store)
    walk(chain)
    key = ("raw_nemotron", chain.provenance("raw_nemotron").fingerprint)
    store.unfinished(*key).mkdir(parents=True)
    prune(store, stock(chain), delete=True)
    assert store.all_unfinished() == []
    assert store.find(*key)[0] is not None


def test_what_a_living_builder_keeps_is_left_alone(store: ArtifactStore) -> None:
    other = chain_of(store, nemotron_source="another")

    def write(work: Work, out: Path) -> None:
        work.unfinished.mkdir(parents=True)
        (work.unfinished / "half").touch()
        make_old(work.unfinished)
        for delete in (False, True):
            assert prune(store, stock(other), delete).unfinished == ()
        assert (work.unfinished / "half").exists()
        (out / "output.json").write_text("1")

    assert not chain_of(store).reuse_or_build("raw_nemotron", write).reused


BREAK = {
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "half a manifest": lambda folder: (folder / "manifest.json").write_text('{"fingerprint"'),
    "a manifest of something else": lambda folder: (folder / "manifest.json").write_text("[]"),
    "a folder for a manifest": lambda folder: ((folder / "manifest.json").unlink(), (folder / "manifest.json").mkdir()),
    "an empty folder": lambda folder: (shutil.rmtree(folder), folder.mkdir()),
    "a file for a folder": lambda folder: (shutil.rmtree(folder), folder.touch()),
    "a dead link": lambda folder: (shutil.rmtree(folder), folder.symlink_to("nowhere")),
}


@pytest.mark.parametrize("broken", BREAK)
def test_a_broken_entry_is_named_listed_and_removed(
    store: ArtifactStore, three: list[dict[str, Artifact]], broken: str
) -> None:
    shutil.rmtree(store.root / ".builds")  # so that nothing is known of it but its name
    folder = three[0]["registered_model"].folder
    BREAK[broken](folder)
    (store.root / "a file").touch()
    (store.root / "math_split" / "a file").touch()
    [damage] = verify(store)
    assert (damage.asset, damage.fingerprint) == ("registered_model", folder.name)
    assert damage.reason == store.find("registered_model", folder.name)[1] != ""
    contents = stock(chain_of(store, nemotron_source="v2"))
    assert idle(contents) == keys(three[0]) | keys(three[1])
    render_contents(contents)
    assert not prune(store, contents, delete=True).notes
    assert standing(store) == keys(three[2])
    assert (store.root / "math_split" / "a file").exists(), "what is not the store's is not touched"


def test_a_registered_one_whose_manifest_is_altered_still_keeps_what_it_was_built_from(
    store: ArtifactStore, three: list[dict[str, Artifact]]
) -> None:
    folder = three[0]["registered_model"].folder
    (folder / "manifest.json").write_text("{}")

    def ask(asked: Path) -> str:
        return "registered as quick 1" if asked == folder else ""

    contents = stock(chain_of(store, nemotron_source="v2"), {"registered_model": ask})
    assert idle(contents) == keys(three[1])  # the history tells what it was built from


def test_a_damaged_artifact_that_the_recipe_asks_for_stays(
    store: ArtifactStore, three: list[dict[str, Artifact]]
) -> None:
    (three[0]["qlora_adapter"].folder / "manifest.json").unlink()
    assert idle(stock(chain_of(store, nemotron_source="v0"))) == keys(three[1])


def test_an_asset_that_the_chain_no_longer_has_keeps_its_newest(store: ArtifactStore) -> None:
    raw = {number: variant(store, number)["raw_nemotron"].folder for number in range(2)}
    (store.root / "raw_nemotron").rename(store.root / "an_old_name")
    contents = stock(chain_of(store, nemotron_source="v1"))
    why = {key[1]: reasons for key, reasons in needed(contents).items() if key[0] == "an_old_name"}
    assert why == {raw[0].name: (), raw[1].name: ("newest build",)}


def test_verify_finds_one_altered_byte_and_nothing_else(store: ArtifactStore, three: list[dict[str, Artifact]]) -> None:
    before = tree(store.root)
    assert verify(store) == []
    assert tree(store.root) == before
    file = three[1]["math_split"].folder / "output.json"
    content = bytearray(file.read_bytes())
    content[3] ^= 1
    file.write_bytes(bytes(content))
    [damage] = verify(store)
    assert render_damage([damage]).splitlines() == [
        f"math_split {file.parent.name}: artifact altered: output.json",
        "",
        "A damaged artifact is built again by the next run that needs it.",
    ]


def test_an_empty_store_has_nothing_to_list_verify_or_remove(store: ArtifactStore) -> None:
    contents = stock(chain_of(store))
    assert (contents.artifacts, contents.half_written, verify(store)) == ((), (), [])
    assert render_contents(contents) == "There is no artifact in the store."
    assert render_damage([]) == "Everything is intact."
    assert render_pruned(prune(store, contents, delete=True)) == "There is nothing to remove."
    assert not store.root.exists()


def test_the_list_is_columns_and_a_total() -> None:
    built = "2026-11-23T06:55:59.123+00:00"
    entries = (
        Entry("raw_nemotron", "f00d", 1536, "dada", built, 2.25, ("asked for by the recipe", "newest build")),
        Entry("math_split", "c0de", 100, needed_for=()),
    )
    assert render_contents(Contents(entries, ())).splitlines() == [
        "asset         fingerprint  data version  size     built                seconds  kept because",
        "raw_nemotron  f00d         dada          1.5 KiB  2026-11-23 06:55:59  2.2      "
        "asked for by the recipe, newest build",
        "math_split    c0de                       100 B",
        "",
        '2 artifacts, 1.6 KiB. Nothing needs 1 of them, 100 B: "ernie store prune".',
    ]
    values = json.loads(json.dumps(Contents(entries, ()).as_json()))
    assert (values["size"], [entry["asset"] for entry in values["artifacts"]]) == (1636, ["raw_nemotron", "math_split"])
