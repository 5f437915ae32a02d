"""Which version of the source there is: a content hash, a hub commit, or the demo generator's own version."""

from pathlib import Path

from ernie_pipeline.recipe.sections import Source
from ernie_pipeline.store.hashing.file_hash import sha256_of
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.hub import hub_commit


def resolve_source(source: Source) -> str:
    """The source's data version: "sha256:<hex>" of a file, "commit:<40 hex>" of a hub data set, or "demo:<version>".

    Never a branch name. A revision that is a commit already needs no network. Raises `PipelineError` when the file
    or the data set cannot be reached.
    """
    if source.kind == "file":
        return f"sha256:{_file_hash(source_file(source))}"
    if source.kind == "hub":
        commit = hub_commit("dataset", source.dataset, source.revision, "source.dataset", "source.revision")
        return f"commit:{commit}"
    from ernie_pipeline.demo.problems import demo_version

    return f"demo:{demo_version(source.rows, source.seed)}"


def describe_source(source: Source) -> str:
    """A label for people: what the rows are read from, without resolving it."""
    if source.kind == "file":
        return f"file {_absolute(source)}"
    if source.kind == "hub":
        return f"data set {source.dataset} (revision {source.revision}, split {source.split})"
    return f"demo ({source.rows} generated problems, seed {source.seed})"


def source_file(source: Source) -> Path:
    """The absolute path of a kind="file" source; `PipelineError` unless a file stands there."""
    path = _absolute(source)
    try:
        if path.is_file():
            return path
        problem = "is a folder, not a file" if path.is_dir() else "does not exist"
    except OSError as error:  # its folder may not be searched, or no file can have such a name
        problem = f"cannot be looked for ({error.strerror})"
    kinds = "JSONL, JSON, CSV, TSV, Parquet or Arrow"
    raise PipelineError(
        f"source file {path} {problem}; set source.path, or ERNIE_PIPELINE_SOURCE, to a file of rows ({kinds})"
    )


def _absolute(source: Source) -> Path:
    return Path(source.path).expanduser().absolute()


def _file_hash(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise PipelineError(f"source file {path} cannot be read ({error.strerror}); make it readable") from error
