"""The steps of verifying a registered version, in their order, gathered from the rooms that know how."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from ernie_pipeline.cli.rebuild import rebuild
from ernie_pipeline.evaluation.again import GradedAgain, grade_attempts_again, grade_evaluation_again
from ernie_pipeline.evaluation.compare import compare_evaluations
from ernie_pipeline.evaluation.suites.figures import suite_figures
from ernie_pipeline.grading.grade import Grader
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.recipe.signing import Signing
from ernie_pipeline.registry.lineage import walk_back
from ernie_pipeline.registry.made_from import made_from
from ernie_pipeline.registry.provenance import ROOT
from ernie_pipeline.registry.request import held_out_rows
from ernie_pipeline.registry.suite_figures import digest_of
from ernie_pipeline.registry.tracking import CHECKED
from ernie_pipeline.registry.verification import answers, figures, suites
from ernie_pipeline.registry.verification.chain import Here, check_links, check_root
from ernie_pipeline.registry.verification.files import FILES, Statement, check_files
from ernie_pipeline.registry.verification.step import GRADES, Step, differs, passed, unchecked
from ernie_pipeline.registry.verification.version import Version, files_of
from ernie_pipeline.staleness.chain import Chain
from ernie_pipeline.staleness.code import read_module
from ernie_pipeline.staleness.stages import STAGES, open_chain
from ernie_pipeline.staleness.suites import suite_of
from ernie_pipeline.store.artifacts import Artifact, ArtifactStore, asset_of
from ernie_pipeline.store.history import builds
from ernie_pipeline.store.quantized_base import FOLDER, PLACE
from ernie_pipeline.store.readable import NOT_READABLE
from ernie_pipeline.store.sealed import Files
from ernie_pipeline.store.shared.settled import open_store
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.flatten import flatten
from ernie_pipeline.utils.shares import percent

if TYPE_CHECKING:
    from mlflow import MlflowClient

SIDES = ("base", "adapter")


@dataclass(frozen=True)
class Depth:
    """What is looked at beyond files, chain, grades and figures: `answers` to be made again, and all to be rebuilt.

    `files_only`: not even the chain, of which `store prune` may have removed what no recipe of today asks for.
    """

    answers: int = 0
    rebuild: bool = False
    files_only: bool = False


class Graders:
    """Graders that stay until all is graded, one for each limit of time: their workers take a second to start."""

    def __init__(self) -> None:
        self._open, self._made = ExitStack(), dict[float, Grader]()

    def __enter__(self) -> "Graders":
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def with_limit(self, timeout_s: float) -> Grader:
        """The one whose answers may take so many seconds each."""
        if timeout_s not in self._made:
            self._made[timeout_s] = self._open.enter_context(Grader(timeout_s=timeout_s))
        return self._made[timeout_s]


def verify_version(settings: Settings, client: "MlflowClient", version: Version, depth: Depth) -> Iterator[Step]:
    """The steps, each as soon as it is done. What cannot be done is told in its step, and the rest goes on."""
    store, signing = open_store(settings, for_run=False, fetch=True), Signing.from_environment()
    yield _registration(version)
    steps, statement = _files(store, version, signing)
    yield from steps
    if depth.files_only:
        return
    root, made = check_root(store, version, statement)
    yield root
    if made is None:
        return
    read = made_from(version.tags, statement).fingerprints
    links = walk_back(store, made["inputs"], ROOT, STAGES, read)
    yield from check_links(links, version, statement, _here(settings))
    artifacts = {link.name: link.artifact for link in links if link.artifact}
    yield from _measured(client, version, artifacts, store, made["inputs"])
    if step := _suites(client, version, store):
        yield step
    if depth.answers and any(step.outcome == "differs" for step in steps):
        yield unchecked(answers.NAME, "its files are not those that were registered, so nothing of them is run")
    elif depth.answers:
        yield _answered(settings, version, artifacts, depth.answers)
    if depth.rebuild:
        yield from rebuild(settings, links)


def _files(store: ArtifactStore, version: Version, signing: Signing) -> tuple[list[Step], Statement]:
    """See `check_files`; where the files cannot be had, one step that says so."""
    try:
        with files_of(version) as folder:
            return check_files(folder, _listed(store, version), signing)
    except PipelineError as error:
        return [unchecked(FILES, str(error))], None


def _registration(version: Version) -> Step:
    name = "registration"
    if CHECKED not in version.tags:
        return differs(name, f"it has no tag {CHECKED}: it was never loaded back and compared")
    return passed(name, f"{version.uri} is in the registry, loaded back once (logits off by {version.tags[CHECKED]})")


def _listed(store: ArtifactStore, version: Version) -> Files | None:
    """The files that were uploaded for this very version, as the store recorded it; None where it has no record."""
    artifact, _ = store.find(ROOT, version.tags.get("fingerprint", "none"))
    if artifact is None:
        return None
    try:
        said = artifact.json("registration.json")
        same = (said["name"], str(said["version"])) == (version.name, version.version)
        listed: Files | None = said.get("files") if same else None
    except NOT_READABLE:
        return None
    return listed


def _here(settings: Settings) -> Here:
    chain: list[Chain] = []

    def module(name: str) -> str | None:
        found = read_module(name)
        return found.shape if found else None

    def library(name: str) -> str | None:
        with suppress(PackageNotFoundError):
            return version(name)
        return None

    def source(name: str) -> str:
        if not chain:
            chain.append(open_chain(settings, ask_registry=False))
        return chain[0].version(name)

    return Here(module, library, source)


def _measured(
    client: "MlflowClient",
    version: Version,
    artifacts: Mapping[str, Artifact],
    store: ArtifactStore,
    inputs: Mapping[str, str],
) -> Iterator[Step]:
    """Every stored answer graded again, and what follows from the grades, beside what the registry says."""
    split, metrics = artifacts.get("math_split"), dict[str, Any]()
    with Graders() as graders:
        for name, artifact in artifacts.items():
            if asset_of(name) == "verified_solutions" and (artifact.folder / "attempts.parquet").is_file() and split:
                grader = graders.with_limit(artifact.manifest["recipe"]["solutions"]["grading_timeout_s"])
                yield _readable(name, partial(_attempts, name, artifact, split, grader))
        for side in SIDES:
            name, evaluation = f"{side}_evaluation", artifacts.get(f"{side}_evaluation")
            if evaluation is None or split is None:
                yield unchecked(_grade_step(name), "it, or the split that it answers, is not there intact")
                continue
            grader = graders.with_limit(evaluation.manifest["recipe"]["evaluation"]["grading_timeout_s"])
            yield _readable(name, partial(_answers, name, evaluation, split, grader, metrics))
    if len(metrics) < len(SIDES):
        yield unchecked(figures.NAME, "they follow from answers that are not there intact")
        return
    yield _readable(figures.NAME, partial(_figures, client, version, artifacts, store, inputs, metrics))


def _readable(name: str, look: Callable[[], Step]) -> Step:
    """What `look` finds; an artifact in which something else lies than this package writes was made by another."""
    try:
        return look()
    except PipelineError as error:
        return unchecked(name, str(error))
    except NOT_READABLE as error:
        return differs(name, f"what lies there is not what this package writes ({type(error).__name__}: {error})")


def _attempts(name: str, solutions: Artifact, split: Artifact, grader: Grader) -> Step:
    return _graded(name, grade_attempts_again(solutions.folder, split.folder, grader), {})


def _answers(name: str, evaluation: Artifact, split: Artifact, grader: Grader, metrics: dict[str, Any]) -> Step:
    """The step; the evaluation's figures, as worked out anew, go into `metrics`, by base or adapter."""
    again, told = grade_evaluation_again(evaluation.folder, split.folder, grader), evaluation.json("metrics.json")
    metrics[name.removesuffix("_evaluation")] = {**told, **again.metrics}
    return _graded(name, again, told)


def _grade_step(name: str) -> str:
    return f"{GRADES}{name}"


def _graded(name: str, again: GradedAgain, told: Mapping[str, Any]) -> Step:
    """`told`: the figures that the artifact has."""
    step = _grade_step(name)
    if again.changed:
        said = f"{len(again.changed)} of {again.rows} answers are not as they were graded: {again.changed[0]}"
        return differs(step, said, changed=again.changed)
    before, now = flatten(dict(told)), flatten(again.metrics)
    if wrong := [key for key, value in now.items() if not figures.same(before.get(key), value)]:
        return differs(step, f"{wrong[0]} is {before.get(wrong[0])} in metrics.json, and {now[wrong[0]]} by the grades")
    late = f", {again.late} of them not in time, which says nothing" if again.late else ""
    accuracy = f"; accuracy {percent(now['accuracy'])}" if "accuracy" in now else ""
    return passed(step, f"{again.rows} answers graded again, all as before{late}{accuracy}", late=again.late)


def _figures(
    client: "MlflowClient",
    version: Version,
    artifacts: Mapping[str, Artifact],
    store: ArtifactStore,
    inputs: Mapping[str, str],
    metrics: Mapping[str, Any],
) -> Step:
    base, adapter = (artifacts[f"{side}_evaluation"].folder for side in SIDES)
    try:
        comparison = compare_evaluations(base, adapter)
    except PipelineError as error:
        return differs(figures.NAME, str(error))
    root, _ = store.find(ROOT, version.tags.get("fingerprint", "none"))
    if root and (wrong := [k for k, v in root.json("comparison.json").items() if not figures.same(v, comparison[k])]):
        return differs(figures.NAME, f"{wrong[0]} of comparison.json is not {comparison[wrong[0]]}, as the answers say")
    wanted = flatten({**metrics, "comparison": comparison})
    tags = {
        "gate.accuracy": repr(metrics["adapter"]["accuracy"]),
        "gate.split_version": inputs["math_split"],
        "gate.adapter_version": inputs["qlora_adapter"],
        "gate.held_out": held_out_rows(adapter),
    }
    return figures.check_figures(client, version, wanted, tags)


def _suites(client: "MlflowClient", version: Version, store: ArtifactStore) -> Step | None:
    """None where the registry has no figures on suites, or no run of the version, which another step tells."""
    from mlflow.exceptions import MlflowException

    def find(asset: str, digest: str) -> Mapping[str, float] | None:
        suite = suite_of(asset)
        for build in reversed(builds(store, asset)) if suite else ():
            if digest_of(build["data_version"]) == digest:
                artifact, _ = store.find(asset, build["fingerprint"])
                if suite and artifact and artifact.data_version == build["data_version"]:
                    return suite_figures(suite[0], artifact.json("metrics.json"))
        return None

    try:
        return suites.check_suites(client, version, find)
    except NOT_READABLE as error:
        said = f"what lies there is not what this package writes ({type(error).__name__}: {error})"
        return differs(suites.NAME, said)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def _answered(settings: Settings, version: Version, artifacts: Mapping[str, Artifact], count: int) -> Step:
    evaluation, split = artifacts.get("adapter_evaluation"), artifacts.get("math_split")
    if evaluation is None or split is None:
        return unchecked(answers.NAME, "adapter_evaluation, or the split that it answers, is not there intact")
    bases = {PLACE: str(settings.store / FOLDER)}
    return answers.check_answers(version, evaluation.folder, split.folder, count, bases)
