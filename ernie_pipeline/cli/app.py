"""`python -m ernie_pipeline COMMAND`: what is stale, building that, the store, grading, and registered models.

Exit status: 0 all is fresh (or done), 3 something is stale (or damaged, or differs, or was not checked), 1 an error, 4
a refresh that is estimated to pass the budget and was not started.
"""

import argparse
import io
import os
import signal
import sys
from pathlib import Path

from ernie_pipeline.cli.output import ERROR
from ernie_pipeline.cli.plan import plan
from ernie_pipeline.cli.refresh import refresh
from ernie_pipeline.cli.store import list_contents, prune, verify
from ernie_pipeline.utils.errors import PipelineError

INTERRUPTED, CLOSED = 128 + signal.SIGINT, 128 + signal.SIGPIPE
"""What a shell calls the exit status of a command that these signals ended."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; its exit status."""
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # an answer may hold what the terminal cannot show
    try:
        return int(options.run(options))
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return ERROR
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # "| head" has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ernie_pipeline", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    planning = commands.add_parser("plan", help="what is stale, and why; exit status 3 when something is")
    _add_init(commands)
    refreshing = commands.add_parser("refresh", help="build what the plan says, and nothing else")
    refreshing.set_defaults(run=refresh)
    store = commands.add_parser("store", help="what is in the store, whether it is intact, and removing what is idle")
    keeping = store.add_subparsers(required=True, metavar="COMMAND")
    listing = keeping.add_parser("list", help="every artifact and quantized base model, and why prune would keep it")
    verifying = keeping.add_parser("verify", help="read every file again; exit status 3 when something is damaged")
    pruning = keeping.add_parser("prune", help="say what nothing needs: not the recipe, a newest build or the registry")
    pruning.add_argument("--delete", action="store_true", help="and remove it")
    for command, run in ((planning, plan), (listing, list_contents), (verifying, verify), (pruning, prune)):
        command.add_argument("--json", action="store_true", help="for programs")
        command.set_defaults(run=run)
    grading = commands.add_parser("grade", help="whether each answer of a JSON Lines file is right, and why")
    grading.add_argument("file", type=Path, metavar="FILE.jsonl", help="rows with the fields reference and answer")
    grading.add_argument("--timeout", type=float, default=5.0, metavar="SECONDS", help="for one answer (5)")
    grading.add_argument("--json", action="store_true", help="for programs: an object a row")
    grading.set_defaults(run=_grade)
    exporting = commands.add_parser("export", help="a registered adapter in a form that others load")
    _export_arguments(exporting)
    exporting.set_defaults(run=_export)
    _add_models(commands)
    return parser


def _add_init(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    starting = commands.add_parser("init", help="write a commented recipe for your own rows")
    starting.add_argument("source", metavar="ROWS", help="a file (JSONL, JSON, CSV, TSV, Parquet, Arrow), or a hub id")
    starting.add_argument("--out", type=Path, metavar="FILE.toml", help="the recipe (called as the rows, here)")
    starting.add_argument("--base", metavar="MODEL", help="demo, a hub id or a folder (by whether there is a GPU)")
    for key, what in (("question", "question"), ("answer", "reference answer"), ("messages", "chat")):
        starting.add_argument(f"--{key}", metavar="COLUMN", help=f"the column of the {what}, where its name tells not")
    starting.add_argument("--extract", metavar="HOW", help='"boxed", "after ####" or a regular expression')
    starting.set_defaults(run=_init)


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("form", choices=["peft", "unsloth", "merged", "gguf"], help="whom it is for")
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder that does not exist yet")
    parser.add_argument(
        "--model", help="models:/NAME@ALIAS, models:/NAME/VERSION or an adapter's fingerprint (champion)"
    )
    parser.add_argument("--onto", choices=["quantized", "original"], default="quantized", help="merged, gguf: the base")
    parser.add_argument("--type", choices=["bf16", "f16", "f32", "q8_0"], default="bf16", help="gguf: the matrices'")
    parser.add_argument("--json", action="store_true", help="for programs")


def _init(options: argparse.Namespace) -> int:
    from ernie_pipeline.cli.init import init  # the other commands need no Polars

    return init(options)


def _export(options: argparse.Namespace) -> int:
    # before torch is imported, as in launch/local.py: threads that spin while they wait are slow beside other work
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from ernie_pipeline.cli.export import export_model

    return export_model(options)


def _add_models(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The commands on registered models."""
    form = "models:/NAME@ALIAS, models:/NAME/VERSION, or a version's number"
    verifying = commands.add_parser("verify", help="is this the model that was measured? exit status 3 when it differs")
    verifying.add_argument("model", nargs="?", metavar="MODEL", help=f"{form}; the recipe's champion")
    promoting = commands.add_parser("promote", help="verify a version, and make it the champion")
    promoting.add_argument("model", metavar="MODEL", help=form)
    back = commands.add_parser("rollback", help="verify the champion before this one, and make it the champion again")
    for command, run in ((verifying, _verify), (promoting, _promote), (back, _rollback)):
        command.add_argument("--answers", type=int, default=0, metavar="N", help="let it answer N held-out rows again")
        command.add_argument("--files", action="store_true", help="look at the files and their signature alone")
        command.add_argument("--rebuild", action="store_true", help="build all of it once more, and compare")
        command.add_argument("--json", action="store_true", help="for programs")
        command.set_defaults(run=run)


def _verify(options: argparse.Namespace) -> int:
    from ernie_pipeline.cli.verify import verify  # the other commands need no pyarrow

    return verify(options)


def _promote(options: argparse.Namespace) -> int:
    from ernie_pipeline.cli.promote import promote

    return promote(options)


def _rollback(options: argparse.Namespace) -> int:
    from ernie_pipeline.cli.promote import rollback

    return rollback(options)


def _grade(options: argparse.Namespace) -> int:
    from ernie_pipeline.cli.grade import grade_file  # the other commands need no NumPy

    return grade_file(options)
