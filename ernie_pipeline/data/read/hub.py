"""A data set of the hub, loaded at a commit."""

from typing import TYPE_CHECKING

from ernie_pipeline.utils.errors import PipelineError

if TYPE_CHECKING:
    import datasets


def load_hub(name: str, config: str | None, split: str, commit: str, called: str, cure: str) -> "datasets.Dataset":
    """Its rows. `called` names it and `cure` says what to check, in an error's sentence.

    Raises `PipelineError` when it cannot be loaded.
    """
    import datasets  # seconds of imports that only such a set needs
    import httpx

    try:
        return datasets.load_dataset(name, config, split=split, revision=commit)
    except (datasets.exceptions.DatasetsError, OSError, ValueError, httpx.HTTPError) as error:
        why = " ".join(str(error).split())[:300]
        raise PipelineError(f"{called} cannot be loaded at commit {commit} ({why}); {cure}") from error
