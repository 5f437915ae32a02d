"""What the plan says after each kind of change, over chains that write a line of text."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ernie_pipeline
from ernie_pipeline.cli.plan import render_plan
from ernie_pipeline.staleness import code
from ernie_pipeline.staleness.chain import Chain
from ernie_pipeline.staleness.plan import AssetPlan, RefreshPlan, asked_for, make_plan
from ernie_pipeline.staleness.stages import STAGES
from ernie_pipeline.store.artifacts import Artifact, ArtifactStore, Check
from ernie_pipeline_tests.staleness.chains import OBSERVED, built, chain_of, recipe_with, tree, walk, writes

ALL = list(STAGES)
BELOW_SPLIT = ["qlora_adapter", "base_evaluation", "adapter_evaluation", "registered_model"]
RANK_8 = recipe_with(lora={"rank": 8})


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


@pytest.fixture
def full(store: ArtifactStore) -> dict[str, Artifact]:
    """Every stage built, each with an output of its own."""
    return walk(chain_of(store), **{name: writes(name) for name in STAGES})


def states(plan: RefreshPlan) -> dict[str, tuple[str, ...]]:
    """State and reasons of all that is not fresh."""
    return {a.asset: (a.state, *a.reasons) for a in plan.assets if a.state != "fresh"}


def waits_for(*names: str) -> tuple[str, ...]:
    return ("waiting", f"waits for {', '.join(names)}")


BELOW_ADAPTER = {
    "adapter_evaluation": waits_for("qlora_adapter"),
    "registered_model": waits_for("qlora_adapter", "adapter_evaluation"),
}
BELOW_THE_SPLIT = {
    "qlora_adapter": waits_for("math_split"),
    "base_evaluation": waits_for("math_split"),
    "adapter_evaluation": waits_for("math_split", "qlora_adapter"),
    "registered_model": waits_for("math_split", "qlora_adapter", "base_evaluation", "adapter_evaluation"),
}


def test_of_an_empty_store_everything_is_missing(store: ArtifactStore) -> None:
    plan = make_plan(chain_of(store))
    assert states(plan) == dict.fromkeys(ALL, ("missing", "not built yet"))
    assert [asset.asset for asset in plan.assets if asset.fingerprint] == ["raw_nemotron", "verified_solutions"]
    assert (plan.fresh, plan.to_build) == (False, ALL)
    assert not store.root.exists(), "a plan writes nothing"


def test_of_a_full_store_everything_is_fresh(store: ArtifactStore, full: dict[str, Artifact]) -> None:
    before = tree(store.root)
    plan = make_plan(chain_of(store))
    assert states(plan) == {}
    assert (plan.fresh, plan.to_build) == (True, [])
    for asset in plan.assets:
        manifest = full[asset.asset].manifest
        assert (asset.fingerprint, asset.data_version) == (manifest["fingerprint"], manifest["data_version"])
        assert (asset.seconds, asset.built) == (manifest["seconds"], manifest["built"])
    assert tree(store.root) == before


def test_a_changed_recipe_key_makes_stale_who_reads_it(store: ArtifactStore, full: dict[str, Artifact]) -> None:
    plan = make_plan(chain_of(store, recipe_with(training={"learning_rate": 1e-4})))
    changed = ("stale", "recipe training.learning_rate 0.0002 -> 0.0001")
    assert states(plan) == {"qlora_adapter": changed, **BELOW_ADAPTER}
    stale = plan.assets[3]
    assert (stale.seconds, stale.fingerprint is None) == (full["qlora_adapter"].manifest["seconds"], False)


def test_what_has_changes_of_its_own_is_stale_below_what_is_stale(
    store: ArtifactStore, full: dict[str, Artifact]
) -> None:
    changed = ("stale", "recipe lora.rank 16 -> 8")
    assert states(make_plan(chain_of(store, RANK_8))) == dict.fromkeys(
        ["qlora_adapter", "adapter_evaluation", "registered_model"], changed
    )


def test_other_rows_make_raw_stale_and_the_rest_wait(store: ArtifactStore, full: dict[str, Artifact]) -> None:
    plan = make_plan(chain_of(store, nemotron_source="sha256:6000"))
    assert states(plan) == {
        "raw_nemotron": ("stale", "input nemotron_source 5000 -> 6000"),
        "math_split": waits_for("raw_nemotron"),
        **BELOW_THE_SPLIT,
    }
    assert plan.sources == {**OBSERVED, "nemotron_source": "sha256:6000"}


def test_another_base_model_makes_stale_all_but_the_raw_rows(store: ArtifactStore, full: dict[str, Artifact]) -> None:
    plan = make_plan(chain_of(store, base_model="sha256:0dd"))
    stale = [name for name in ALL if name not in ("raw_nemotron", "verified_solutions")]
    assert states(plan) == dict.fromkeys(stale, ("stale", "input base_model e41e -> 0dd"))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (shutil.rmtree, "artifact deleted"),
        (lambda folder: (folder / "output.json").write_text("x"), "artifact altered: output.json"),
        (lambda folder: (folder / "output.json").unlink(), "artifact altered: output.json is missing"),
        (lambda folder: (folder / "manifest.json").unlink(), "artifact altered: manifest.json is missing"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "artifact altered: manifest.json is not readable"),
    ],
)
@pytest.mark.parametrize("history", [True, False])
def test_a_lost_artifact_is_stale_and_what_is_below_waits(
    store: ArtifactStore, full: dict[str, Artifact], damage: Callable[[Path], object], reason: str, history: bool
) -> None:
    if not history:
        shutil.rmtree(store.root / ".builds")
    damage(full["qlora_adapter"].folder)
    if damage is shutil.rmtree and not history:  # nothing tells that it was ever there
        expected: tuple[str, ...] = ("missing", "not built yet")
    else:
        expected = ("stale", reason)
    assert states(make_plan(chain_of(store))) == {"qlora_adapter": expected, **BELOW_ADAPTER}


def test_a_whole_lost_store_is_known_from_its_history(store: ArtifactStore, full: dict[str, Artifact]) -> None:
    for name, artifact in full.items():
        store.remove(name, artifact.manifest["fingerprint"])
    plan = make_plan(chain_of(store))
    assert states(plan) == dict.fromkeys(ALL, ("stale", "artifact deleted"))
    assert all(asset.seconds is not None for asset in plan.assets)


def test_a_lost_registration_is_stale(store: ArtifactStore, full: dict[str, Artifact]) -> None:
    lost = {"registered_model": lambda artifact: "version 3 of quick is not in the registry"}
    plan = make_plan(chain_of(store, lost=lost))
    assert states(plan) == {"registered_model": ("stale", "version 3 of quick is not in the registry")}


def test_a_failed_blocking_check_is_failed_and_what_is_below_waits(store: ArtifactStore) -> None:
    chain = chain_of(store)
    chain.reuse_or_build("raw_nemotron", writes("1"))
    chain.reuse_or_build("math_split", writes("1", [Check("sizes", False, "0 of 4 rows")]))
    plan = make_plan(chain_of(store))
    assert states(plan) == {
        "math_split": ("failed", "check sizes failed: 0 of 4 rows"),
        **dict.fromkeys(["verified_solutions", *BELOW_SPLIT], ("missing", "not built yet")),
    }
    assert plan.to_build == ALL[1:]


def test_below_a_failed_check_what_was_built_before_waits(store: ArtifactStore, full: dict[str, Artifact]) -> None:
    recipe = recipe_with(split={"seed": 9})
    failing = writes("other", [Check("no_overlap", False, "1 problem is in both")])
    chain_of(store, recipe).reuse_or_build("math_split", failing)
    expected = {"math_split": ("failed", "check no_overlap failed: 1 problem is in both"), **BELOW_THE_SPLIT}
    assert states(make_plan(chain_of(store, recipe))) == expected
    assert states(make_plan(chain_of(store))) == {}


def test_a_failed_check_that_does_not_block_is_fresh(store: ArtifactStore) -> None:
    gate = Check("gate", False, "not better", blocking=False)
    walk(chain_of(store), registered_model=writes("1", [gate]))
    assert make_plan(chain_of(store)).fresh


def test_a_recipe_that_was_changed_back_is_fresh(store: ArtifactStore, full: dict[str, Artifact]) -> None:
    walk(chain_of(store, RANK_8))
    assert make_plan(chain_of(store)).fresh
    assert make_plan(chain_of(store, RANK_8)).fresh


def test_the_reason_is_told_against_the_nearest_build(store: ArtifactStore, full: dict[str, Artifact]) -> None:
    walk(chain_of(store, RANK_8))
    plan = make_plan(chain_of(store, recipe_with(lora={"rank": 8}, training={"seed": 1})))
    assert states(plan)["qlora_adapter"] == ("stale", "recipe training.seed 3407 -> 1")


def test_a_build_that_differs_in_nothing_but_its_fingerprint_is_stale_with_a_reason(
    store: ArtifactStore, full: dict[str, Artifact]
) -> None:
    """Of an earlier version of this package, which hashed in another way."""
    log = store.root / ".builds" / "raw_nemotron.jsonl"
    log.write_text(log.read_text().replace(full["raw_nemotron"].manifest["fingerprint"], "f00d"))
    shutil.rmtree(full["raw_nemotron"].folder)
    assert states(make_plan(chain_of(store)))["raw_nemotron"] == ("stale", "fingerprinted in another way")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package's modules, from which code versions are read."""
    copy = tmp_path / "package"
    shutil.copytree(Path(ernie_pipeline.__file__).parent, copy, ignore=shutil.ignore_patterns("base", "__pycache__"))
    monkeypatch.setattr(code, "ROOT", copy)
    return copy


def test_changed_code_makes_stale_the_stages_that_reach_it(
    package: Path, store: ArtifactStore, full: dict[str, Artifact]
) -> None:
    module = package / "training" / "rows.py"
    text = module.read_text()
    module.write_text(f"{text}\n# a comment\n")
    assert make_plan(chain_of(store)).fresh
    module.write_text(f"{text}\nMORE = 1\n")
    changed = ("stale", "code ernie_pipeline.training.rows changed")
    assert states(make_plan(chain_of(store))) == {"qlora_adapter": changed, **BELOW_ADAPTER}
    module.write_text(text)
    assert make_plan(chain_of(store)).fresh


@pytest.mark.parametrize("change", ["recipe", "source", "base"])
def test_building_what_the_plan_says_makes_everything_fresh_and_nothing_else_is_built(
    store: ArtifactStore, full: dict[str, Artifact], change: str
) -> None:
    changes: dict[str, Any] = {
        "recipe": {"recipe": recipe_with(split={"seed": 1})},
        "source": {"nemotron_source": "sha256:6"},
        "base": {"base_model": "sha256:6"},
    }[change]
    plan = make_plan(chain_of(store, **changes))
    chain = chain_of(store, **changes)
    done = [name for name in plan.to_build if not chain.reuse_or_build(name, writes(f"{change} {name}")).reused]
    assert make_plan(chain_of(store, **changes)).fresh
    assert done == plan.to_build
    assert built(walk(chain_of(store, **changes))) == []


def test_what_waited_is_reused_when_nothing_came_out_differently(
    store: ArtifactStore, full: dict[str, Artifact]
) -> None:
    other = recipe_with(split={"seed": 1})
    chain_of(store, other).reuse_or_build("math_split", writes("math_split"))
    assert make_plan(chain_of(store, other)).fresh


def target(chain: Chain) -> str:
    return make_plan(chain).target


def test_the_target_stays_while_it_is_built_and_when_an_artifact_is_lost(store: ArtifactStore) -> None:
    targets = {target(chain_of(store))}
    for name in STAGES:
        artifact = chain_of(store).reuse_or_build(name, writes(name))
        targets.add(target(chain_of(store)))
    shutil.rmtree(artifact.folder)
    assert {target(chain_of(store))} == targets


def test_another_recipe_source_or_code_is_another_target(store: ArtifactStore, package: Path) -> None:
    targets = [
        target(chain_of(store)),
        target(chain_of(store, RANK_8)),
        target(chain_of(store, nemotron_source="sha256:6")),
        target(chain_of(store, base_model="sha256:6")),
        target(chain_of(store, stages=STAGES | {"math_split": replace(STAGES["math_split"], libraries=())})),
    ]
    module = package / "data" / "split" / "divide.py"
    module.write_text(module.read_text() + "\nMORE = 1\n")
    targets.append(target(chain_of(store)))
    assert len(set(targets)) == len(targets)


def test_a_recipe_key_that_no_stage_reads_is_the_same_target(store: ArtifactStore) -> None:
    """It reaches the chain by the source's version, which here is the same."""
    assert target(chain_of(store, recipe_with(source={"rows": 7}))) == target(chain_of(store))


def test_as_json_is_json_and_says_it_all(store: ArtifactStore, full: dict[str, Artifact]) -> None:
    plan = make_plan(chain_of(store, RANK_8))
    values = json.loads(json.dumps(plan.as_json()))
    assert sorted(values) == ["assets", "fresh", "sources", "target"]
    assert (values["fresh"], values["sources"], values["target"]) == (False, plan.sources, plan.target)
    assert [AssetPlan(**{**a, "reasons": tuple(a["reasons"])}) for a in values["assets"]] == list(plan.assets)


def test_it_is_rendered_in_columns() -> None:
    assets = (
        AssetPlan("raw_nemotron", "fresh", (), "f", "d", 2.25, "2026"),
        AssetPlan("math_split", "stale", ("recipe split.seed 1 -> 2", "input base_model a -> b"), "f", "d", 70.0),
        AssetPlan("qlora_adapter", "waiting", ("waits for math_split",), None, "d", 1.5),
        AssetPlan("base_evaluation", "missing", ("not built yet",)),
    )
    assert render_plan(RefreshPlan(assets, {}, "")).splitlines() == [
        "asset            state    last build  why",
        "raw_nemotron     fresh    2.2 s",
        "math_split       stale    70.0 s      recipe split.seed 1 -> 2; input base_model a -> b",
        "qlora_adapter    waiting  1.5 s       waits for math_split",
        "base_evaluation  missing              not built yet",
        "",
        '1 stale, 1 waiting, 1 missing. Their last builds took 72 s together. Build them with "ernie run".',
    ]
    quick = render_plan(RefreshPlan((AssetPlan("raw_nemotron", "stale", seconds=0.4),), {}, ""))
    assert quick.endswith('\n\n1 stale. Build them with "ernie run".'), "and not that it took 0 s"
    fresh = render_plan(RefreshPlan(assets[:1], {}, ""))
    assert fresh.endswith("\n\nEverything is fresh: there is nothing to build.")


def test_what_is_asked_for_has_the_fingerprints_that_would_be_reused(
    store: ArtifactStore, full: dict[str, Artifact]
) -> None:
    there = {name: artifact.manifest["fingerprint"] for name, artifact in full.items()}
    chain = chain_of(store)
    assert asked_for(chain, make_plan(chain)) == there
    chain = chain_of(store, nemotron_source="sha256:6")
    asked = asked_for(chain, make_plan(chain))
    assert asked.pop("raw_nemotron") != there.pop("raw_nemotron")
    assert asked == there, "if the raw rows come out as they were, the rest is reused"
    chain = chain_of(ArtifactStore(store.root / "empty"))
    assert list(asked_for(chain, make_plan(chain))) == ALL
