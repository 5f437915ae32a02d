"""`export peft|unsloth|merged|gguf OUT`: a registered adapter in a form that others load, checked before it is there.

Exit status: 0 it was loaded back and is what it should be; 3 it is there, and could not be loaded back on this machine;
1 it cannot be made, and nothing is left of it.
"""

import argparse
import sys

from ernie_pipeline.cli.output import FRESH, STALE, print_answer
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.registry.export.export import Asked, export


def export_model(options: argparse.Namespace) -> int:
    """Write the export that the options ask for, and print what was found when it was loaded back."""
    asked = Asked(form=options.form, out=options.out, model=options.model, onto=options.onto, type=options.type)

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    report = export(Settings.from_environment(), asked, tell)
    text = "\n".join([f"{options.out} ({options.form}):", *(f"  {sentence}" for sentence in report.sentences)])
    print_answer(options, {"out": str(options.out), "loaded_back": report.loaded, **report.figures}, text)
    return FRESH if report.loaded else STALE
