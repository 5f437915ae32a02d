"""What any format of a home held is read: `formats/` has a store of each, as the package of that time wrote it."""

import shutil
from pathlib import Path

import pytest

from ernie_pipeline.recipe.home_format import FORMAT, check_format
from ernie_pipeline.store.artifacts import ArtifactStore
from ernie_pipeline.store.history import recorded
from ernie_pipeline.store.housekeeping.artifacts import verify

FORMATS = Path(__file__).parent / "formats"


def test_there_is_a_store_of_each_format() -> None:
    assert {path.name for path in FORMATS.iterdir()} == {str(number) for number in range(1, FORMAT + 1)}


@pytest.mark.parametrize("number", range(1, FORMAT + 1))
def test_it_is_read(number: int, tmp_path: Path) -> None:
    root = Path(shutil.copytree(FORMATS / str(number), tmp_path / "store"))
    store = ArtifactStore(root)
    assert check_format(root) == number
    found, reason = store.find("math_split", "f00df00df00df00d")
    assert found, reason
    assert (found.data_version, found.failed_check) == ("7af7bf62561fff8c", "")
    assert found.json("reports/profile.json") == {"places": {"train": 1}}
    assert [build["fingerprint"] for build in recorded(store, "math_split")] == ["f00df00df00df00d"]
    assert verify(store) == []
