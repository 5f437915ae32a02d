"""`compare A B`: two models on the same held-out rows, by the answers that the store has of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ernie_pipeline.cli.output import FRESH, AsJson, print_answer
from ernie_pipeline.cli.settings_options import with_options
from ernie_pipeline.orchestration.words import rows
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.registry.model_uri import FORMS
from ernie_pipeline.registry.trained_on import loss_note, trained_on
from ernie_pipeline.store.artifacts import Artifact, ArtifactStore
from ernie_pipeline.store.history import builds
from ernie_pipeline.store.shared.settled import open_store
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.shares import between, percent, points, points_between
from ernie_pipeline.utils.text_table import aligned

if TYPE_CHECKING:
    from ernie_pipeline.registry.verification.version import Version

ADAPTER = "qlora_adapter"
BASE, SIDES = "base", ("adapter_evaluation", "base_evaluation")
FORM = f"base, {FORMS}, or an evaluation's fingerprint"
SHOWN = 5
"""Questions that are answered better, and as many worse."""


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help=FORM)],
    second: Annotated[str, typer.Argument(metavar="B", help="the other, named alike")],
    as_json: AsJson = False,
) -> int:
    """Accuracy of both with intervals, the paired difference, and what got better and worse."""
    from ernie_pipeline.evaluation.compare import compare_evaluations  # it imports Arrow and SciPy

    settings = Settings.from_environment()
    store = open_store(settings, for_run=False, fetch=True)
    a, b = _evaluation(settings, store, first, second), _evaluation(settings, store, second, first)
    compared = compare_evaluations(a.folder, b.folder)
    changed = _changed(a.folder, b.folder)
    sides = {first: a.json("metrics.json"), second: b.json("metrics.json")}
    note = _why_higher(store, {first: a, second: b})
    values = {"models": sides, "comparison": compared, "loss_note": note, **changed}
    print_answer(as_json, values, _text(sides, compared, note, changed))
    return FRESH


def _trained_on(store: ArtifactStore, evaluation: Artifact) -> str:
    """What the model was trained on, as `trained_on` has it; "" of the base model, and where that is not known."""
    wanted = evaluation.manifest["inputs"].get(ADAPTER)
    made = [each["recipe"] for each in builds(store, ADAPTER) if each["data_version"] == wanted]
    return trained_on(made[-1:]) if made else ""


def _why_higher(store: ArtifactStore, sides: dict[str, Artifact]) -> str:
    """Why one of the two has the higher loss and the higher accuracy, "" where it has not."""
    told = {name: (_trained_on(store, each), each.json("metrics.json")) for name, each in sides.items()}
    notes = (
        loss_note(f"version {name}" if name.isdecimal() else name, on, its, other, other_on)
        for name, (on, its) in told.items()
        for other_on, other in told.values()
    )
    return next(filter(None, notes), "")


def _evaluation(settings: Settings, store: ArtifactStore, named: str, other: str) -> Artifact:
    """The answers of a model; of `base` those that the other one's were compared with, else the recipe's."""
    if named == BASE:
        return _base(settings, store, other)
    for stage in SIDES:
        if artifact := store.find(stage, named)[0]:
            return artifact
    return _of_version(settings, store, named, SIDES[0])


def _base(settings: Settings, store: ArtifactStore, other: str) -> Artifact:
    if other != BASE and not any(store.find(stage, other)[0] for stage in SIDES):
        return _of_version(settings, store, other, SIDES[1])
    from ernie_pipeline.staleness.chain import NotThereError
    from ernie_pipeline.staleness.stages import open_chain

    try:
        return open_chain(settings, ask_registry=False).artifact(SIDES[1])
    except NotThereError:
        run = with_options("ernie run")
        raise PipelineError(f'the base model\'s answers are not in {store.root}; build them with "{run}"') from None


def _of_version(settings: Settings, store: ArtifactStore, named: str, stage: str) -> Artifact:
    """The evaluation that a registered version was made from."""
    version = _version(settings, named)
    for build in reversed(builds(store, "registered_model")):
        registered = store.find("registered_model", build["fingerprint"])[0]
        said = registered.json("registration.json") if registered else {}
        if registered and (said.get("name"), str(said.get("version"))) == (version.name, version.version):
            wanted = registered.manifest["inputs"][stage]
            made = [store.find(stage, each["fingerprint"])[0] for each in reversed(builds(store, stage))]
            found = next((artifact for artifact in made if artifact and artifact.data_version == wanted), None)
            if found:
                return found
            raise PipelineError(f"the {stage} of {version.uri} is no longer in {store.root}; build it again")
    raise PipelineError(f"{version.uri} was not registered from this home ({store.root}); set --home to the one it was")


def _version(settings: Settings, named: str) -> "Version":
    from ernie_pipeline.cli.verify import settings_with_registry
    from ernie_pipeline.registry.tracking import connected
    from ernie_pipeline.registry.verification.version import find_version

    with connected(settings_with_registry().tracking_uri) as client:
        return find_version(client, named, settings.load_recipe().registry.model_name)


def _changed(before: Path, after: Path) -> dict[str, list[dict[str, str]]]:
    """The rows that only one of the two answers correctly."""
    import polars as pl

    columns = ["row_id", "question", "reference", "prediction", "correct"]
    first, second = (pl.read_parquet(folder / "predictions.parquet", columns=columns) for folder in (before, after))
    both = first.join(second.select("row_id", "prediction", "correct"), on="row_id", suffix="_after")
    told = both.select("question", "reference", "prediction", "prediction_after", "correct", "correct_after")
    better, worse = pl.col("correct_after") & ~pl.col("correct"), pl.col("correct") & ~pl.col("correct_after")
    return {
        name: told.filter(which).drop("correct", "correct_after").to_dicts()
        for name, which in (("better", better), ("worse", worse))
    }


def _text(
    sides: dict[str, Any], compared: dict[str, float], note: str, changed: dict[str, list[dict[str, str]]]
) -> str:
    table = [("", "accuracy", "95 % interval", "loss on the completions")]
    for name, metrics in sides.items():
        interval = between(metrics["accuracy_low"], metrics["accuracy_high"])
        table.append((name, percent(metrics["accuracy"]), interval, f"{metrics['loss_completion']:.4f}"))
    lines = [
        aligned(table),
        *([note] if note else []),
        "",
        f"{points(compared['gain'])} (95 % interval {points_between(compared['gain_low'], compared['gain_high'])}), "
        f"p = {compared['p_value']:.2g}: {rows(len(changed['better']))} better, "
        f"{len(changed['worse'])} worse, {compared['both_correct']:.0f} right in both, "
        f"{compared['neither']:.0f} in neither",
    ]
    for name, found in changed.items():
        lines += [f"\n{name}:"] if found else []
        lines += [f"  {_line(each['question'])}  ({each['reference']})" for each in found[:SHOWN]]
        lines += [f"  and {len(found) - SHOWN} more: --json"] if len(found) > SHOWN else []
    return "\n".join(lines)


def _line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 90 else f"{text[:89]}…"
