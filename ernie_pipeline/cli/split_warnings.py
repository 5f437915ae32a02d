"""What the split that stands says of its filters, for the summaries of `plan` and `refresh`."""

from ernie_pipeline.data.tables.heavy_filters import told_by_profile
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.staleness.plan import RefreshPlan
from ernie_pipeline.store.readable import NOT_READABLE, read_json

SPLIT = "math_split"


def split_warnings(plan: RefreshPlan, settings: Settings) -> list[str]:
    """A sentence for each filter that took more than a third of the rows of the split that the recipe asks for; none
    while that is to be built."""
    made = next(asset for asset in plan.assets if asset.asset == SPLIT)
    if made.state != "fresh" or not made.fingerprint:
        return []
    try:
        profile = read_json(settings.store / SPLIT / made.fingerprint / "reports" / "profile.json")
        return [f"{SPLIT}: {words}" for words in told_by_profile(profile)]
    except NOT_READABLE:
        return []
