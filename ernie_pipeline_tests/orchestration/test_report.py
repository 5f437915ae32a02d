"""The tags by which Dagster tells whether an asset is stale."""

from ernie_pipeline.orchestration.report import version_tags
from ernie_pipeline.staleness.stage import EARLIER_ADAPTER


def test_a_result_names_a_version_of_each_asset_above_and_of_nothing_else() -> None:
    """A round before is no asset; one that the recipe does not let read the rows depends on them in Dagster's eyes."""
    made_from = {"declared_version": "c0de", "inputs": {"base_model": "sha256:1", EARLIER_ADAPTER: "2"}}
    assert version_tags(made_from, unread={"math_split": "3"}) == {
        "dagster/code_version": "c0de",
        "dagster/input_data_version/base_model": "sha256:1",
        "dagster/input_data_version/math_split": "3",
    }
