"""What the asset holds where the recipe trains on something else: that it does."""

from pathlib import Path

from ernie_pipeline.utils.json_file import write_json


def write_not_asked_for(out: Path) -> None:
    """Say in `out` that no solutions are wanted: nothing is sampled, so nothing of the model or the rows is read."""
    said = {"asked_for": False, "why": 'training.on is "answers"'}
    write_json(out / "not_asked_for.json", said)


def is_asked_for(folder: Path) -> bool:
    """Whether an artifact holds solutions."""
    return not (folder / "not_asked_for.json").is_file()
