from dataclasses import asdict, replace
from typing import Any

import pytest

from ernie_pipeline.staleness.reasons import differences, nearest
from ernie_pipeline.store.artifacts import Provenance
from ernie_pipeline.store.history import Build

WANTED = Provenance(
    stage="qlora_adapter",
    fingerprint="f00d",
    declared_version="c0de",
    inputs={"math_split": "77b0c1d2e3f4a5b6", "base_model": "sha256:e41e0000ffff"},
    recipe={
        "lora": {"rank": 16, "targets": ["q_proj"]},
        "training": {"learning_rate": 0.0001},
        "training.backend": "a",
    },
    modules={"ernie_pipeline.x": "1", "ernie_pipeline.y": "1"},
    libraries={"polars": "2", "torch": "2.13.0"},
)


def build(**changes: Any) -> Build:
    return asdict(replace(WANTED, **changes)) | {"data_version": "d", "seconds": 1.0, "built": "2026"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, []),
        ({"fingerprint": "0000", "declared_version": "other"}, []),
        (
            {"recipe": WANTED.recipe | {"training": {"learning_rate": 0.0002}}},
            ["recipe training.learning_rate 0.0002 -> 0.0001"],
        ),
        (
            {"recipe": WANTED.recipe | {"lora": {"rank": 8, "targets": ["q_proj", "k_proj"]}}},
            ["recipe lora.rank 8 -> 16", "recipe lora.targets ['q_proj', 'k_proj'] -> ['q_proj']"],
        ),
        (
            {"recipe": {key: value for key, value in WANTED.recipe.items() if key != "training.backend"}},
            ["recipe training.backend (none) -> a"],
        ),
        ({"recipe": WANTED.recipe | {"gone": ""}}, ['recipe gone "" -> (none)']),
        ({"recipe": WANTED.recipe | {"gone": True}}, ["recipe gone true -> (none)"]),
        ({"inputs": WANTED.inputs | {"math_split": "9f3a000011112222"}}, ["input math_split 9f3a0000 -> 77b0c1d2"]),
        ({"inputs": WANTED.inputs | {"base_model": "commit:abcdef0123"}}, ["input base_model abcdef01 -> e41e0000"]),
        ({"inputs": {"math_split": WANTED.inputs["math_split"]}}, ["input base_model (none) -> e41e0000"]),
        ({"modules": {"ernie_pipeline.x": "0", "ernie_pipeline.y": "1"}}, ["code ernie_pipeline.x changed"]),
        ({"modules": {"ernie_pipeline.y": "1"}}, ["code ernie_pipeline.x is new"]),
        ({"modules": WANTED.modules | {"ernie_pipeline.z": "1"}}, ["code ernie_pipeline.z is no longer used"]),
        ({"libraries": {"polars": "1", "torch": "2.13.0"}}, ["library polars 1 -> 2"]),
        ({"libraries": {"torch": "2.13.0"}}, ["library polars (none) -> 2"]),
    ],
)
def test_each_difference_is_told_in_its_words(changes: dict[str, Any], said: list[str]) -> None:
    assert differences(WANTED, build(**changes)) == said


def test_of_several_sets_those_that_differ_are_named() -> None:
    wanted = replace(WANTED, inputs={"benchmark_sets": "a.txt=sha256:1f1f, b.txt=sha256:2e2e, c.txt=sha256:3d3d"})
    before = build(inputs={"benchmark_sets": "a.txt=sha256:1f1f, b.txt=sha256:0000, d=commit:4c4c"})
    assert differences(wanted, before) == [
        "input benchmark_sets b.txt 0000 -> 2e2e",
        "input benchmark_sets c.txt (none) -> 3d3d",
        "input benchmark_sets d 4c4c -> (none)",
    ]
    assert differences(wanted, build(inputs={"benchmark_sets": "none"})) == ["input benchmark_sets none -> 3d3d"]


def test_inputs_that_differ_in_late_digits_only_differ() -> None:
    inputs = WANTED.inputs | {"math_split": WANTED.inputs["math_split"][:-1] + "0"}
    assert len(differences(WANTED, build(inputs=inputs))) == 1


def test_an_ignored_input_is_no_difference() -> None:
    other = build(inputs={"math_split": "0", "base_model": "0"})
    assert differences(WANTED, other, ignored_inputs=["math_split"]) == ["input base_model 0 -> e41e0000"]


def test_the_nearest_build_has_the_fewest_differences_and_of_those_it_is_the_newest() -> None:
    one, newer_one = (build(libraries=WANTED.libraries | {"polars": version}) for version in ("0", "1"))
    two, far = build(libraries={}), build(recipe={})
    assert nearest(WANTED, [one, newer_one, two, far]) is newer_one
    assert nearest(WANTED, [two, far]) is two
    assert nearest(WANTED, []) is None


def test_where_a_recipe_key_decided_what_is_read_the_recipe_s_changes_alone_are_told() -> None:
    before = build(recipe={"training": {"learning_rate": 0.1}}, libraries={}, inputs={})
    assert differences(WANTED, before) == ["recipe training.learning_rate 0.1 -> 0.0001"]
    fewer = build(inputs={}, recipe=WANTED.recipe | {"training": {"learning_rate": 0.1}})
    assert differences(WANTED, fewer) == ["recipe training.learning_rate 0.1 -> 0.0001"]
