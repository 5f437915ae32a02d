import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ernie_pipeline.errors import PipelineError
from ernie_pipeline.recipe import Recipe, parse_recipe
from ernie_pipeline.stages import STAGES
from ernie_pipeline.store.artifacts import Artifact, ArtifactStore
from ernie_pipeline.store.chain import Chain

OBSERVED = {"nemotron_source": "sha256:rows", "base_model": "sha256:weights"}
MODELS = ["qlora_adapter", "base_evaluation", "adapter_evaluation"]


def constant(out: Path) -> None:
    """What a rebuilt stage writes when its output is the same as before."""
    (out / "output.json").write_text("1")


def chain_of(store: ArtifactStore, recipe: Recipe | None = None, **observed: str) -> Chain:
    versions = OBSERVED | observed
    return Chain(
        recipe or Recipe(), store, STAGES, {name: lambda _, v=version: v for name, version in versions.items()}
    )


def walk(chain: Chain, **write: Callable[[Path], None]) -> dict[str, Artifact]:
    """Every stage reused or built in order, each by its own function in `write` or by `constant`."""
    return {name: chain.reuse_or_build(name, write.get(name, constant)) for name in STAGES}


def built(artifacts: dict[str, Artifact]) -> list[str]:
    return [name for name, artifact in artifacts.items() if not artifact.reused]


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


def test_the_same_recipe_again_reuses_everything(store: ArtifactStore) -> None:
    first = walk(chain_of(store))
    again = walk(chain_of(store))
    assert (built(first), built(again)) == (list(STAGES), [])
    assert [a.data_version for a in first.values()] == [a.data_version for a in again.values()]


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ({"source": {"max_bad_rows": 3}}, ["raw_nemotron"]),
        ({"source": {"split": "test"}}, ["raw_nemotron"]),
        ({"source": {"rows": 7, "seed": 7}}, []),  # these reach the chain as the version of nemotron_source
        ({"base_model": {"name": "someone/ernie"}}, []),  # and this as the version of base_model
        ({"filters": {"max_question_chars": 99}}, ["math_split"]),
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
    declared = {path.partition(".")[0] for stage in STAGES.values() for path in stage.recipe}
    assert declared | {"source", "base_model"} == set(Recipe.model_fields)


def test_going_back_to_an_earlier_recipe_reuses_its_artifacts(store: ArtifactStore) -> None:
    other = parse_recipe({"lora": {"rank": 8}}, where="test")
    walk(chain_of(store))
    walk(chain_of(store, other))
    assert built(walk(chain_of(store))) == []
    assert built(walk(chain_of(store, other))) == []


def test_a_rebuilt_stage_with_the_same_output_keeps_the_stages_below(store: ArtifactStore) -> None:
    def with_report(out: Path) -> None:
        constant(out)
        (out / "reports").mkdir()
        (out / "reports" / "bad_rows.json").write_text("another")

    walk(chain_of(store))
    other_bytes = chain_of(store, nemotron_source="sha256:reordered")
    assert built(walk(other_bytes, raw_nemotron=with_report)) == ["raw_nemotron"]


def test_a_rebuilt_stage_with_another_output_rebuilds_what_reads_it(store: ArtifactStore) -> None:
    walk(chain_of(store))
    other_rows = chain_of(store, nemotron_source="sha256:more rows")
    moved = built(walk(other_rows, raw_nemotron=lambda out: (out / "output.json").write_text("2")))
    assert moved == ["raw_nemotron", "math_split"]  # the split came out as it was, so nothing below it


def test_another_base_model_leaves_the_raw_rows(store: ArtifactStore) -> None:
    walk(chain_of(store))
    assert built(walk(chain_of(store, base_model="sha256:others"))) == [s for s in STAGES if s != "raw_nemotron"]


def test_a_damaged_artifact_alone_is_rebuilt_and_its_note_says_why(store: ArtifactStore) -> None:
    adapter = walk(chain_of(store))["qlora_adapter"]
    (adapter.folder / "output.json").write_text("2")
    again = walk(chain_of(store))
    assert built(again) == ["qlora_adapter"]
    assert again["qlora_adapter"].note == "artifact altered: output.json"


def test_an_artifact_that_no_longer_holds_is_rebuilt(store: ArtifactStore) -> None:
    walk(chain_of(store))
    asked = []

    def gone(artifact: Artifact) -> bool:
        asked.append(artifact.manifest["stage"])
        return False

    artifact = chain_of(store).reuse_or_build("registered_model", constant, still_holds=gone)
    assert asked == ["registered_model"]
    assert (artifact.reused, artifact.note) == (False, "what it stands for is gone")


def test_a_missing_upstream_is_one_sentence_that_says_what_to_do(store: ArtifactStore) -> None:
    expected = r'^raw_nemotron for this recipe: not built yet; materialize it first \(select "\+raw_nemotron"\)$'
    with pytest.raises(PipelineError, match=expected):
        chain_of(store).reuse_or_build("math_split", constant)
    raw = chain_of(store).reuse_or_build("raw_nemotron", constant)
    (raw.folder / "output.json").unlink()
    with pytest.raises(
        PipelineError, match=r"^raw_nemotron for this recipe: artifact altered: output\.json is missing; materialize"
    ):
        chain_of(store).reuse_or_build("math_split", constant)


def test_an_observed_version_is_asked_for_once(store: ArtifactStore) -> None:
    asked = []

    def observe(recipe: Recipe) -> str:
        asked.append(recipe)
        return "v"

    walk(Chain(Recipe(), store, STAGES, {"nemotron_source": observe, "base_model": observe}))
    assert len(asked) == 2


FINGERPRINTS = """
from pathlib import Path
import sys
from ernie_pipeline.recipe import Recipe
from ernie_pipeline.stages import STAGES
from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline.store.chain import Chain
chain = Chain(Recipe(), ArtifactStore(Path(sys.argv[1])), STAGES, dict.fromkeys(
    ("nemotron_source", "base_model", "raw_nemotron", "math_split", *STAGES), lambda recipe: "v"))
print([chain.provenance(name).fingerprint for name in STAGES])
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
