"""Why an artifact is built, as its step says it, and why it was built, as its page says it later."""

import shutil
from pathlib import Path

import pytest

from ernie_pipeline.staleness.because import FIRST, SAME_AGAIN, why_it_was_built, why_to_build
from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline_tests.staleness.chains import chain_of, constant, recipe_with, walk


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


def test_what_was_never_built_is_said_to_be_so(store: ArtifactStore) -> None:
    chain = chain_of(store)
    assert why_to_build(chain, "raw_nemotron") == "not built yet"
    assert why_it_was_built(store, walk(chain)["raw_nemotron"].manifest) == FIRST


def test_a_changed_key_and_a_changed_input_are_named(store: ArtifactStore) -> None:
    walk(chain_of(store))
    chain = chain_of(store, recipe_with(lora={"rank": 8}))
    assert why_to_build(chain, "qlora_adapter") == "recipe lora.rank 16 -> 8"
    assert why_it_was_built(store, walk(chain)["qlora_adapter"].manifest) == "recipe lora.rank 16 -> 8"
    other = chain_of(store, nemotron_source="sha256:7e57")
    assert why_to_build(other, "raw_nemotron") == "input nemotron_source 5000 -> 7e57"


def test_damage_is_named_and_later_that_it_was_built_again(store: ArtifactStore) -> None:
    made = walk(chain_of(store))["math_split"]
    (made.folder / "output.json").write_text("2")
    assert why_to_build(chain_of(store), "math_split") == "artifact altered: output.json"
    shutil.rmtree(made.folder)
    chain = chain_of(store)
    assert why_to_build(chain, "math_split") == "artifact deleted"
    again = chain.reuse_or_build("math_split", constant)
    assert not again.reused
    assert why_it_was_built(store, again.manifest) == SAME_AGAIN
