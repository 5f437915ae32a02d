"""`export peft|unsloth|merged|gguf OUT`: a registered adapter in a form that others load, checked before it is there.

Exit status: 0 it was loaded back and is what it should be; 3 it is there, and could not be loaded back on this machine;
1 it cannot be made, and nothing is left of it.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from ernie_pipeline.cli.ask import Model
from ernie_pipeline.cli.output import FRESH, STALE, AsJson, print_answer
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.utils.shares import as_shown


def export(
    form: Annotated[Literal["peft", "unsloth", "merged", "gguf"], typer.Argument(help="whom it is for")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="a folder that does not exist yet")],
    model: Model = None,
    onto: Annotated[Literal["quantized", "original"], typer.Option(help="merged, gguf: onto which base")] = "quantized",
    type: Annotated[Literal["bf16", "f16", "f32", "q8_0"], typer.Option(help="gguf: type of the matrices")] = "bf16",
    as_json: AsJson = False,
) -> int:
    """Write the export of a registered adapter, and print what was found when it was loaded back."""
    # before torch is imported, as in launch/local.py: threads that spin while they wait are slow beside other work
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from ernie_pipeline.registry.export.export import Asked
    from ernie_pipeline.registry.export.export import export as write_export

    asked = Asked(form=form, out=out, model=model, onto=onto, type=type)

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    report = write_export(Settings.from_environment(), asked, tell)
    text = "\n".join([f"{out} ({form}):", *(as_shown(f"  {sentence}") for sentence in report.sentences)])
    print_answer(as_json, {"out": str(out), "loaded_back": report.loaded, **report.figures}, text)
    return FRESH if report.loaded else STALE
