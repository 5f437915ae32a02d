"""`ask`: a question to the champion, answered as it is made."""

import json
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ernie_pipeline.cli.output import FRESH, AsJson, is_terminal
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.registry.model_uri import FORMS
from ernie_pipeline.utils.errors import PipelineError

if TYPE_CHECKING:
    from ernie_pipeline.registry.asking import Asked

MODEL = f"{FORMS}, or an adapter's fingerprint; else the recipe's champion"
Model = Annotated[str | None, typer.Option(metavar="MODEL", help=MODEL)]
Temperature = Annotated[float, typer.Option(min=0, metavar="T", help="0: the likeliest answer")]
MaxNewTokens = Annotated[int | None, typer.Option(min=1, metavar="N", help="the most tokens of an answer")]


def ask(
    question: Annotated[
        str, typer.Argument(metavar="QUESTION", help='such as "Solve for x: 2*x + 3 = 7"; - reads standard input')
    ],
    model: Model = None,
    temperature: Temperature = 0.0,
    max_new_tokens: MaxNewTokens = None,
    as_json: AsJson = False,
) -> int:
    """Print the answer."""
    text = sys.stdin.read() if question == "-" else question
    if not text.strip():
        raise PipelineError('the question is empty; ask one, such as ernie ask "2x + 3 = 7"')
    asked = open_model(model, aloud=not as_json)
    pieces = list[str]()
    for piece in asked.answer([{"role": "user", "content": text}], temperature, max_new_tokens):
        pieces.append(piece)
        if not as_json:
            print(piece, end="", flush=True)
    if as_json:
        print(json.dumps({"model": asked.name, "question": text, "answer": "".join(pieces)}, indent=1))
    else:
        print()
    return FRESH


def open_model(named: str | None, aloud: bool = True) -> "Asked":
    """The model, loaded; `aloud`: that it is being loaded is said."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as in `export`
    if aloud and is_terminal(sys.stderr):
        print("loading the model ...", end="\r", file=sys.stderr, flush=True)
    from transformers.utils.logging import disable_progress_bar

    from ernie_pipeline.registry.asking import Asked

    disable_progress_bar()
    asked = Asked(Settings.from_environment(), named)
    if aloud and is_terminal(sys.stderr):
        print(" " * 25, end="\r", file=sys.stderr, flush=True)
    return asked
