"""The chain once more, over a home in a bucket: the same tests, another store."""

import inspect
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline.store.shared.bucket import Bucket
from ernie_pipeline_tests.scenarios.homes import InBucket, in_a_bucket
from ernie_pipeline_tests.staleness import test_chain
from ernie_pipeline_tests.store.shared.machines import machine

numbers = itertools.count()

OF_FOLDERS = {
    "test_a_damaged_artifact_alone_is_rebuilt_and_its_note_says_why": "a damaged local copy is downloaded again",
    "test_a_missing_upstream_is_one_sentence_that_says_what_to_do": "a missing local copy is downloaded again",
    "test_what_another_process_built_anew_for_a_lost_one_is_reused_as_it_is_now": "it builds without the lock",
}
"""Tests that hold for a folder only, and why. `store/shared/test_store.py` has their like."""


@pytest.fixture(scope="module")
def homes() -> Iterator[InBucket]:
    with in_a_bucket() as homes:
        yield homes


@pytest.fixture
def store(homes: InBucket, tmp_path: Path) -> ArtifactStore:
    return machine(tmp_path, Bucket(f"s3://homes/{next(numbers)}"))


globals().update(
    {
        name: function
        for name, function in inspect.getmembers(test_chain, inspect.isfunction)
        if name.startswith("test_") and name not in OF_FOLDERS
    }
)
