"""The models that trainings have, for what is under them."""

from ernie_pipeline_tests.models.grouped.capturer import capturer
from ernie_pipeline_tests.training.conftest import demo_adapter, grouped_adapter, sums

__all__ = ["capturer", "demo_adapter", "grouped_adapter", "sums"]
