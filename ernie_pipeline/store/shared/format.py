"""The format of a home in a bucket, in an object of its own; see `recipe/home_format.py`."""

from ernie_pipeline.recipe.home_format import FORMAT, format_text, read_format
from ernie_pipeline.store.shared.bucket import Bucket, Stored

KEY = "format"
TRIES = 5


def check_format(bucket: Bucket) -> Stored | None:
    """What the bucket says, None for nothing. Raises `PipelineError` for a format that this package does not know."""
    there = bucket.get(KEY)
    if there is not None:
        read_format(there.body, f"{bucket.address}/{KEY}")
    return there


def write_format(bucket: Bucket) -> None:
    """Let the bucket say this package's format, if it says none or an older one. Raises as `check_format`."""
    for _ in range(TRIES):
        there = check_format(bucket)
        if there is None:
            written = bucket.create(KEY, format_text())
        elif read_format(there.body, bucket.address) < FORMAT:
            written = bucket.replace(KEY, format_text(), there.version)
        else:
            return
        if written is not None:
            return
    check_format(bucket)
