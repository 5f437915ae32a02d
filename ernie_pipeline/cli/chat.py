"""`chat`: a conversation with the champion."""

import sys

from ernie_pipeline.cli.ask import MaxNewTokens, Model, Temperature, open_model
from ernie_pipeline.cli.output import FRESH
from ernie_pipeline.utils.errors import PipelineError


def chat(model: Model = None, temperature: Temperature = 0.0, max_new_tokens: MaxNewTokens = None) -> int:
    """Ask, be answered, ask on; an empty line begins anew, Ctrl-D ends."""
    asked = open_model(model)
    told = f"{asked.name}: an empty line begins a new conversation, Ctrl-D ends it"
    if asked.instruction:
        told += ". The model has learnt single questions; of longer conversations it knows little"
    print(told, file=sys.stderr)
    messages = list[dict[str, str]]()
    while True:
        try:
            text = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return FRESH
        if not text:
            messages = []
            continue
        messages.append({"role": "user", "content": text})
        answer = ""
        try:
            for piece in asked.answer(messages, temperature, max_new_tokens):
                answer += piece
                print(piece, end="", flush=True)
        except PipelineError as error:  # too long, say: the conversation goes on without it
            print(f"error: {error}", file=sys.stderr)
            messages.pop()
            continue
        print()
        messages.append({"role": "assistant", "content": answer})
