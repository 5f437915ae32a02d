import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.recipe.load import parse_recipe
from ernie_pipeline.recipe.sections import Recipe
from ernie_pipeline.staleness.chain import Chain
from ernie_pipeline.staleness.stage import ObservedSource, Work
from ernie_pipeline.staleness.stages import STAGES, all_sources, all_stages, with_method
from ernie_pipeline.store.artifacts import Artifact, ArtifactStore, Check
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.staleness.chains import OBSERVED, built, chain_of, constant, recipe_with, walk, writes

MODELS = ["qlora_adapter", "base_evaluation", "adapter_evaluation"]


def test_the_same_recipe_again_reuses_everything(store: ArtifactStore) -> None:
    first = walk(chain_of(store))
    again = walk(chain_of(store))
    assert (built(first), built(again)) == (list(STAGES), [])
    assert [a.data_version for a in first.values()] == [a.data_version for a in again.values()]


OWN = {"kind": "file", "path": "rows.csv"}


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ({"source": {"max_bad_rows": 3}}, ["raw_nemotron"]),
        ({"source": {"split": "test"}}, ["raw_nemotron"]),
        ({"source": {"instruction": "Box it. "}}, []),  # read of rows of other columns alone
        ({"source": {**OWN, "question": "q", "answer": "a"}}, ["raw_nemotron"]),
        ({"source": {**OWN, "messages": "m"}}, ["raw_nemotron"]),
        ({"source": {"kind": "hub", "dataset": "a/b", "config": "main"}}, ["raw_nemotron"]),
        ({"source": {"rows": 7, "seed": 7}}, []),  # these reach the chain as the version of nemotron_source
        ({"base_model": {"name": "someone/ernie"}}, []),  # and this as the version of base_model
        ({"filters": {"max_question_chars": 99}}, ["math_split"]),
        ({"near_duplicates": {"threshold": 0.5}}, ["math_split"]),
        ({"decontamination": {"overlap": 0.7}}, ["math_split"]),
        ({"benchmarks": {"sets": ["math.jsonl"]}}, []),  # reaches the chain as the version of benchmark_sets
        ({"split": {"seed": 1}}, ["math_split"]),
        ({"quantization": {"double": False}}, [*MODELS, "registered_model"]),
        ({"lora": {"rank": 8}}, ["qlora_adapter", "adapter_evaluation", "registered_model"]),
        ({"training": {"learning_rate": 1e-4}}, ["qlora_adapter"]),
        ({"training": {"seed": 1}}, ["qlora_adapter"]),
        ({"evaluation": {"rows": 9}}, ["base_evaluation", "adapter_evaluation"]),
        ({"evaluation": {"max_new_tokens": 9}}, ["base_evaluation", "adapter_evaluation", "registered_model"]),
        ({"gate": {"min_gain": 0.5}}, ["registered_model"]),
        ({"registry": {"model_name": "another"}}, ["registered_model"]),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_only_what_a_stage_declares_moves_its_fingerprint(
    store: ArtifactStore, change: dict[str, Any], moved: list[str]
) -> None:
    walk(chain_of(store))
    changed = parse_recipe(change, where="test")
    assert changed != Recipe()
    assert built(walk(chain_of(store, changed))) == moved


def test_every_recipe_section_moves_some_stage_or_an_observed_version() -> None:
    tables = {"suites": {"mine": {"source": {"path": "mine.jsonl"}}}, "publish": {"repo": "me/model"}}
    recipe = parse_recipe({"training": {"method": "grpo"}, **tables}, where="test")
    by_grpo = with_method(all_stages(recipe), recipe)
    declared = {path.partition(".")[0] for stage in by_grpo.values() for path in stage.recipe}
    observed = {source.section.partition(".")[0] for source in all_sources(recipe).values()}
    assert declared | observed == {*Recipe.model_fields}
    of_execution = {path for stage in by_grpo.values() for path in stage.recipe if path.startswith("execution")}
    assert of_execution == {"execution.generator"}


def test_what_says_how_other_columns_are_read_is_in_the_fingerprint_of_their_rows_alone(store: ArtifactStore) -> None:
    own = {**OWN, "question": "q", "answer": "a"}
    ways = [{}, {"answer": "b"}, {"extract": "boxed"}, {"instruction": "Box it. "}, {"question": "p"}]
    recipes = [parse_recipe({"source": {**own, **way}}, where="test") for way in ways]
    assert len({chain_of(store, recipe).declared_version("raw_nemotron") for recipe in recipes}) == len(ways)
    plain = chain_of(store).provenance("raw_nemotron")
    assert {*plain.recipe} == {"source.max_bad_rows", "source.split"}


def test_going_back_to_an_earlier_recipe_reuses_its_artifacts(store: ArtifactStore) -> None:
    other = parse_recipe({"lora": {"rank": 8}}, where="test")
    walk(chain_of(store))
    walk(chain_of(store, other))
    assert built(walk(chain_of(store))) == []
    assert built(walk(chain_of(store, other))) == []


def test_a_rebuilt_stage_with_the_same_output_keeps_the_stages_below(store: ArtifactStore) -> None:
    def with_report(work: Work, out: Path) -> None:
        constant(work, out)
        (out / "reports").mkdir()
        (out / "reports" / "bad_rows.json").write_text("another")

    walk(chain_of(store))
    other_bytes = chain_of(store, nemotron_source="sha256:reordered")
    assert built(walk(other_bytes, raw_nemotron=with_report)) == ["raw_nemotron"]


def test_a_rebuilt_stage_with_another_output_rebuilds_what_reads_it(store: ArtifactStore) -> None:
    walk(chain_of(store))
    other_rows = chain_of(store, nemotron_source="sha256:more rows")
    moved = built(walk(other_rows, raw_nemotron=writes("2")))
    assert moved == ["raw_nemotron", "math_split"]  # the split came out as it was, so nothing below it


def test_another_base_model_leaves_the_raw_rows(store: ArtifactStore) -> None:
    walk(chain_of(store))
    answers = [s for s in STAGES if s not in ("raw_nemotron", "verified_solutions")]
    assert built(walk(chain_of(store, base_model="sha256:others"))) == answers


def test_a_damaged_artifact_alone_is_rebuilt_and_its_note_says_why(store: ArtifactStore) -> None:
    adapter = walk(chain_of(store))["qlora_adapter"]
    (adapter.folder / "output.json").write_text("2")
    again = walk(chain_of(store))
    assert built(again) == ["qlora_adapter"]
    assert again["qlora_adapter"].note == "artifact altered: output.json"


def test_an_artifact_whose_effect_elsewhere_is_lost_is_built_again(store: ArtifactStore) -> None:
    walk(chain_of(store))
    asked = []

    def lost(artifact: Artifact) -> str:
        asked.append(artifact.manifest["stage"])
        return "version 3 is gone"

    again = walk(chain_of(store, lost={"registered_model": lost}))
    assert set(asked) == set(built(again)) == {"registered_model"}
    assert again["registered_model"].note == "version 3 is gone"


def test_what_a_failed_build_kept_is_found_by_the_next_one_and_gone_when_the_artifact_stands(
    store: ArtifactStore,
) -> None:
    def cut_short(work: Work, out: Path) -> None:
        work.unfinished.mkdir(parents=True)
        (work.unfinished / "checkpoint").write_text("half way")
        (out / "output.json").write_text("1")
        raise KeyboardInterrupt

    def go_on(work: Work, out: Path) -> None:
        (out / "output.json").write_text((work.unfinished / "checkpoint").read_text())

    def look(work: Work, out: Path) -> None:
        (out / "output.json").write_text(json.dumps(work.unfinished.exists()))

    with pytest.raises(KeyboardInterrupt):
        chain_of(store).reuse_or_build("raw_nemotron", cut_short)
    fingerprint = chain_of(store).provenance("raw_nemotron").fingerprint
    assert store.all_unfinished() == [("raw_nemotron", fingerprint)]
    assert store.find("raw_nemotron", fingerprint) == (None, "not built yet")
    other = chain_of(store, nemotron_source="others").reuse_or_build("raw_nemotron", look)
    assert other.json("output.json") is False, "it is of another fingerprint"
    artifact = chain_of(store).reuse_or_build("raw_nemotron", go_on)
    assert (artifact.folder / "output.json").read_text() == "half way"
    assert store.all_unfinished() == []
    assert sorted(path.name for path in artifact.folder.iterdir()) == ["manifest.json", "output.json"]
    assert not list((store.root / "raw_nemotron").glob(".*")), "nothing is left aside"


def test_what_cannot_be_removed_does_not_fail_the_build_that_stands(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(work: Work, out: Path) -> None:
        work.unfinished.mkdir(parents=True)
        constant(work, out)

    def refuse(path: Path, target: Path) -> Path:
        if ".unfinished" in path.parts:
            raise OSError(errno.EXDEV, "it is on another disk")
        return rename(path, target)

    rename = Path.rename
    monkeypatch.setattr(Path, "rename", refuse)
    assert not chain_of(store).reuse_or_build("raw_nemotron", write).reused
    assert chain_of(store).reuse_or_build("raw_nemotron", write).reused


TOO_FEW = Check("sizes", False, "0 of 4 rows")


def test_an_artifact_that_failed_a_blocking_check_is_kept_and_not_used(store: ArtifactStore) -> None:
    chain = chain_of(store)
    chain.reuse_or_build("raw_nemotron", constant)
    failed = chain.reuse_or_build("math_split", writes("0", [TOO_FEW]))
    assert (failed.reused, failed.checks) == (False, [TOO_FEW])
    for again in (chain, chain_of(store)):  # in the process that built it, and in the next one
        for use in (again.artifact, again.version):
            with pytest.raises(
                PipelineError, match=r"^math_split is not fit for use: check sizes failed: 0 of 4 rows$"
            ):
                use("math_split")
        with pytest.raises(PipelineError, match="not fit for use"):
            again.reuse_or_build("qlora_adapter", constant)
        assert again.reuse_or_build("math_split", constant).reused, "doing the work again would give the same"


def test_a_failed_check_that_does_not_block_stops_nothing(store: ArtifactStore) -> None:
    warned = writes("1", [Check("sizes", False, "few rows", blocking=False)])
    assert built(walk(chain_of(store), math_split=warned)) == list(STAGES)
    assert chain_of(store).artifact("math_split").failed_check == ""
    assert built(walk(chain_of(store))) == []


def test_a_stage_at_work_sees_its_inputs_and_what_it_declares(store: ArtifactStore) -> None:
    seen = []

    def look(work: Work, out: Path) -> None:
        seen.append((dict(work.made_from.inputs), work.folder("math_split"), work.recipe.lora.rank))
        assert list(work.artifacts) == ["math_split"]
        with pytest.raises(RuntimeError, match=r"qlora_adapter reads recipe\.gate"):
            _ = work.recipe.gate
        constant(work, out)

    built_ones = walk(chain_of(store), qlora_adapter=look)
    split = built_ones["math_split"]
    assert seen == [({"math_split": split.data_version, "base_model": OBSERVED["base_model"]}, split.folder, 16)]


def test_a_missing_upstream_is_one_sentence_that_says_what_to_do(store: ArtifactStore) -> None:
    expected = (
        r"^raw_nemotron for this recipe: not built yet; build it, and whatever else is missing, with --select "
        r'"\*math_split" \("ernie plan" says what is stale, and why\)$'
    )
    with pytest.raises(PipelineError, match=expected):
        chain_of(store).reuse_or_build("math_split", constant)
    raw = chain_of(store).reuse_or_build("raw_nemotron", constant)
    (raw.folder / "output.json").unlink()
    with pytest.raises(
        PipelineError, match=r"^raw_nemotron for this recipe: artifact altered: output\.json is missing; build it"
    ):
        chain_of(store).reuse_or_build("math_split", constant)


def test_what_is_to_be_selected_is_all_above_the_asset_that_was_asked_for(store: ArtifactStore) -> None:
    """Of an empty store the first missing artifact is the topmost: to build it alone would not help."""
    with pytest.raises(PipelineError, match=r'^raw_nemotron .* with --select "\*qlora_adapter" '):
        chain_of(store).reuse_or_build("qlora_adapter", constant)


def test_an_observed_version_is_asked_for_once(store: ArtifactStore) -> None:
    asked = []

    def observe(recipe: Recipe) -> str:
        asked.append(recipe)
        return "v"

    walk(Chain(Recipe(), store, STAGES, {name: ObservedSource(name, observe) for name in OBSERVED}))
    assert len(asked) == len(OBSERVED)


FINGERPRINTS = """
from pathlib import Path
import sys
from ernie_pipeline.recipe.sections import Recipe
from ernie_pipeline.staleness.stages import SOURCES, STAGES
from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline.staleness.chain import Chain
from ernie_pipeline.staleness.stage import ObservedSource
source = ObservedSource("source", lambda recipe: "v")
chain = Chain(Recipe(), ArtifactStore(Path(sys.argv[1])), STAGES, dict.fromkeys(SOURCES, source))
versions = dict.fromkeys(STAGES, "v")
print([chain.provenance(name, versions).fingerprint for name in STAGES])
"""


def test_fingerprints_are_the_same_in_every_process(tmp_path: Path) -> None:
    runs = [
        subprocess.run(
            [sys.executable, "-c", FINGERPRINTS, str(tmp_path)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    assert len(set(json.loads(runs[0].replace("'", '"')))) == len(STAGES)


def test_what_another_process_built_anew_for_a_lost_one_is_reused_as_it_is_now(store: ArtifactStore) -> None:
    walk(chain_of(store))

    def gone(artifact: Artifact) -> str:
        return "" if (artifact.folder / "output.json").read_text() == "2" else "gone"

    waiting = chain_of(store, lost={"registered_model": gone})
    wanted = waiting.provenance("registered_model")
    assert waiting.find(wanted) == (None, "gone")
    anew = store.build(wanted, lambda out: (out / "output.json").write_text("2") and None)
    found, _ = waiting.find(wanted)
    assert found is not None
    assert found.data_version == anew.data_version


def test_rows_are_kept_across_what_does_not_decide_them_and_not_across_what_does(store: ArtifactStore) -> None:
    def rows(chain: Chain) -> dict[str, str]:
        walk(chain)
        kept = {name: chain.rows(name) for name in chain.stages}
        return {name: each.folder.name for name, each in kept.items() if each}

    usual = rows(chain_of(store))
    assert sorted(usual) == ["adapter_evaluation", "base_evaluation"]
    assert usual["adapter_evaluation"] != usual["base_evaluation"]
    for free in (
        {"split": {"seed": 1}},
        {"evaluation": {"rows": 7, "grading_timeout_s": 1.0}},
        {"gate": {"min_gain": 0.5}},
    ):
        assert rows(chain_of(store, recipe_with(**free))) == usual
    for deciding in ({"evaluation": {"max_new_tokens": 7}}, {"quantization": {"double": False}}):
        changed = rows(chain_of(store, recipe_with(**deciding)))
        assert all(changed[name] != usual[name] for name in usual)
    other_base = rows(chain_of(store, base_model="sha256:f00d"))
    assert all(other_base[name] != usual[name] for name in usual)
    chain = chain_of(store, recipe_with(training={"seed": 5}))
    walk(chain, qlora_adapter=writes("another adapter"))
    kept = {name: chain.rows(name) for name in usual}
    assert [each and each.folder.name == usual[name] for name, each in kept.items()] == [True, False]
